"""From `docker compose up` to `down -v`, in the order of a first day."""

from __future__ import annotations

import json
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
    found = counted(compose.url, API, 1600)
    assert 0.75 < found["200 api v1"] / 1600 < 0.85
    compose.consul("config", "write", "-", stdin=EVEN)
    eventually(lambda: 0.4 < counted(compose.url, API, 300)["200 api v2"] / 300 < 0.6)


def test_an_intention_denies_and_allows(compose: Compose) -> None:
    compose.consul("intention", "delete", "edge", "web")
    compose.consul("intention", "create", "-deny", "edge", "web")
    eventually(lambda: curl(compose.url, WEB) == ["403 RBAC: access denied"])
    compose.consul("intention", "delete", "edge", "web")
    compose.consul("intention", "create", "-allow", "edge", "web")
    eventually(lambda: curl(compose.url, WEB)[0].startswith("200"))


def test_the_gateway_speaks_tls_with_a_certificate_from_vault(compose: Compose, edge_ca: str) -> None:
    assert curl(compose.tls_url, "localhost", "--cacert", edge_ca)[0].startswith("200 web v1 -> api: api v")


def test_web_reaches_the_partner_through_egress_as_its_intention_says(compose: Compose, edge_ca: str) -> None:
    def offers() -> str:
        return curl(f"{compose.tls_url}offers", "localhost", "--cacert", edge_ca)[0]

    eventually(lambda: offers().startswith("200 web v1 -> partner: /offers of partner"), 20)
    compose.consul("config", "delete", "-kind", "service-intentions", "-name", "partner")
    eventually(lambda: offers() == "200 web v1 -> 403 RBAC: access denied")
    compose.consul("intention", "create", "-allow", "web", "partner")
    eventually(lambda: offers().startswith("200 web v1 -> partner: /offers"))


def test_nothing_is_published_but_the_gateway_and_the_uis_on_loopback(compose: Compose) -> None:
    published: dict[str, Any] = {}
    for service in ("consul", "vault", "web", "api-v1", "api-v2", "edge", "egress", "partner"):
        ports = compose.container(service)["HostConfig"]["PortBindings"] or {}
        for bindings in ports.values():
            published[service] = {binding["HostIp"] for binding in bindings}
    assert published == {"consul": {"127.0.0.1"}, "vault": {"127.0.0.1"}, "edge": {"127.0.0.1"}}


def test_every_container_is_nobody_without_a_capability_and_can_write_nowhere(compose: Compose) -> None:
    containers = compose.containers()
    assert len(containers) == 16
    for service, container in containers.items():
        host = container["HostConfig"]
        first = service == "volumes-init"  # gives the volumes to the others, without a network, and is gone
        users = {"root"} if first else {"100:1000"} if service in {"consul", "vault"} else {"10001:10001"}
        assert container["Config"]["User"] in users, service
        assert host["ReadonlyRootfs"] is True, service
        assert host["CapDrop"] == ["ALL"], service
        assert (host["CapAdd"] or []) == (["CHOWN"] if first else []), service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Privileged"] is False, service
        assert (host["NetworkMode"] == "none") is first, service
        assert ("Health" in container["State"]) is not service.endswith("-init"), service


def test_the_operators_container_is_as_locked(compose: Compose) -> None:
    question = "id -u; grep CapEff /proc/self/status; touch /here 2>&1 || true"
    said = compose("run", "--rm", "-T", "--entrypoint", "sh", "operator", "-c", question)
    assert said.split()[:3] == ["10001", "CapEff:", "0000000000000000"]
    assert "Read-only file system" in said


def test_the_orchestrator_may_hand_out_secret_ids_and_nothing_else(compose: Compose) -> None:
    token = "export VAULT_TOKEN=$(cat /orchestrator/token) BAO_TOKEN=$(cat /orchestrator/token); "

    def says(command: str) -> str:
        return compose("exec", "-T", "orchestrator", "sh", "-c", f"{token}{command} 2>&1 || true")

    found = json.loads(says("vault token lookup -format=json"))["data"]
    assert found["policies"] == [f"lictor-orchestrator-{service}" for service in ("api", "edge", "egress", "web")]
    assert found["period"] > 0
    assert "permission denied" in says("vault policy list")
    assert "permission denied" in says("vault write -f auth/approle/role/web/secret-id")  # not wrapped
    mounts = {
        mount["Name"].partition("_")[2] for mount in compose.container("orchestrator")["Mounts"] if "Name" in mount
    }
    assert mounts == {
        "orchestrator-token",
        "secrets-web",
        "secrets-api-v1",
        "secrets-api-v2",
        "secrets-edge",
        "secrets-egress",
    }
    holders = {
        service: mount["RW"]
        for service, container in compose.containers().items()
        for mount in container["Mounts"]
        if mount.get("Name", "").endswith("_orchestrator-token")
    }
    assert holders == {"volumes-init": True, "mesh-init": True, "orchestrator": False}


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
    compose("up", "-d", "--no-build", "--force-recreate", "vault-init", "consul-init", "mesh-init")
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
