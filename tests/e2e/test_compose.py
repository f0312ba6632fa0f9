"""From `docker compose up` to `down -v`, in the order of a first day."""

from __future__ import annotations

import subprocess
from typing import Any

from harness.compose import Compose, counted, curl, eventually

WEB, API = "web.example.com", "api.example.com"
EVEN = """
Kind = "service-splitter"
Name = "api"
Splits = [{ Weight = 50, ServiceSubset = "v1" }, { Weight = 50, ServiceSubset = "v2" }]
"""


def serves(compose: Compose) -> None:
    (answer,) = curl(compose.url, WEB)
    logs = "" if answer.startswith("200") else compose("logs", "--tail=40", "edge", "web-sidecar", "consul")
    assert answer.startswith("200"), f"{answer}\n{logs}"


def test_the_mesh_is_healthy_and_answers_through_two_pairs(compose: Compose) -> None:
    (answer,) = curl(compose.url, WEB)
    assert answer.startswith("200 web v1 -> api: api v")


def test_the_split_is_80_20_and_follows_consul_config_write(compose: Compose) -> None:
    found = counted(compose.url, API, 1000)
    assert 0.75 < found["200 api v1"] / 1000 < 0.85
    compose.consul("config", "write", "-", stdin=EVEN)
    eventually(lambda: 0.4 < counted(compose.url, API, 300)["200 api v2"] / 300 < 0.6, 3)


def test_an_intention_denies_and_allows(compose: Compose) -> None:
    compose.consul("intention", "delete", "edge", "web")
    compose.consul("intention", "create", "-deny", "edge", "web")
    eventually(lambda: curl(compose.url, WEB) == ["403 RBAC: access denied"], 3)
    compose.consul("intention", "delete", "edge", "web")
    compose.consul("intention", "create", "-allow", "edge", "web")
    eventually(lambda: curl(compose.url, WEB)[0].startswith("200"), 3)


def test_nothing_is_published_but_the_gateway_and_the_uis_on_loopback(compose: Compose) -> None:
    published: dict[str, Any] = {}
    for service in ("consul", "vault", "web", "api-v1", "api-v2", "edge"):
        ports = compose.container(service)["HostConfig"]["PortBindings"] or {}
        for bindings in ports.values():
            published[service] = {binding["HostIp"] for binding in bindings}
    assert published == {"consul": {"127.0.0.1"}, "vault": {"127.0.0.1"}, "edge": {"127.0.0.1"}}


def test_our_containers_are_nobody_and_can_write_nowhere(compose: Compose) -> None:
    for service in ("web-sidecar", "api-v1-sidecar", "api-v2-sidecar", "edge"):
        container = compose.container(service)
        assert container["Config"]["User"] == "10001:10001"
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["HostConfig"]["Privileged"] is False


def test_an_app_cannot_be_reached_past_its_sidecar(compose: Compose) -> None:
    attempt = compose(
        "exec",
        "-T",
        "web",
        "python3",
        "-c",
        (
            "import socket\n"
            "try: socket.create_connection(('api-v1', 9090), 3); print('reached')\n"
            "except OSError as error: print('refused')"
        ),
    )
    assert attempt.strip() == "refused"


def test_a_sidecar_that_is_killed_comes_back_with_a_new_leaf(compose: Compose) -> None:
    subprocess.run(["docker", "kill", compose.container("web-sidecar")["Id"]], check=True, capture_output=True)
    compose("up", "-d", "--no-build")
    compose.wait_healthy()
    eventually(lambda: curl(compose.url, WEB)[0].startswith("200"), 20)


def test_the_bootstrap_may_run_twice(compose: Compose) -> None:
    before = compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sha256sum", "consul-init", "/tokens/web")
    compose("up", "-d", "--no-build", "--force-recreate", "vault-init", "consul-init")
    compose.wait_healthy()
    after = compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "sha256sum", "consul-init", "/tokens/web")
    assert before == after
    eventually(lambda: curl(compose.url, WEB)[0].startswith("200"), 20)


def test_a_restart_of_consul_and_of_vault_is_lived_through(compose: Compose) -> None:
    compose("restart", "-t", "2", "consul")
    serves(compose)
    compose("restart", "-t", "2", "vault")
    serves(compose)
    compose("up", "-d", "--no-build", "vault-init")  # unseals
    compose.wait_healthy()
    serves(compose)


def test_down_leaves_nothing(compose: Compose) -> None:
    compose("down", "--volumes", "--remove-orphans", "-t", "10")
    label = f"label=com.docker.compose.project={compose.project}"
    for words in (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q")):
        done = subprocess.run(["docker", *words, "--filter", label], capture_output=True, text=True, check=True)
        assert done.stdout == ""
