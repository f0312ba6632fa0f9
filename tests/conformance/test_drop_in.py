"""`lictor sidecar -sidecar-for` and `lictor gateway -register`, where one would type `consul connect envoy`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.peers import Peers, peers
from harness.servers import REPOSITORY, ConsulServer, consul_server, free_ports, http_json
from harness.wire import App, Wire

GET = b"GET / HTTP/1.1\r\nHost: di-web.ingress.test\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    """ACLs on: the token comes from the environment or a file."""
    with consul_server(acl=True, settings={"default_intention_policy": "allow"}) as running:
        running.write(
            {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}},
        )
        yield running


@pytest.fixture
def proxies(server: ConsulServer, tmp_path: Path) -> Iterator[Peers]:
    with peers(server, tmp_path) as running:
        yield running


def admin(program: Any, page: str) -> Any:
    return http_json(f"http://127.0.0.1:{program.admin_port}/{page}")


async def test_a_registered_sidecar_and_a_gateway_that_registers_itself_serve(
    server: ConsulServer, proxies: Peers
) -> None:
    port, registered, upstream = free_ports(3)
    server.write(
        {
            "Kind": "ingress-gateway",
            "Name": "di-edge",
            "Listeners": [{"Port": port, "Protocol": "http", "Services": [{"Name": "di-web"}]}],
        }
    )
    async with App().running() as app:
        proxies.register("di-web", app.port, upstreams={"di-web": upstream})
        sidecar = proxies.lictor_sidecar("di-web-1")
        gateway = proxies.lictor_gateway("di-edge", registered)
        async with await Wire.open(port) as wire:
            assert (await wire.ask(GET)).status == 200
        async with await Wire.open(upstream) as wire:
            assert (await wire.ask(GET)).status == 200
    health = server.api("health/service/di-edge")
    assert [check["Status"] for row in health for check in row["Checks"] if check["ServiceID"]] == ["passing"]

    ready = admin(sidecar, "ready")
    assert ready
    assert admin(sidecar, "live")
    metrics = admin(sidecar, "metrics")
    for name in ("lictor_requests_total", "lictor_leaf_seconds_left", "lictor_ready 1.0", "lictor_leaves_issued"):
        assert name in metrics
    dump = json.dumps(admin(sidecar, "config_dump"))
    assert "di-web.default.default.dc1" in dump
    certificates = json.dumps(admin(sidecar, "certs"))
    assert "/svc/di-web" in certificates
    for text in (dump, certificates, metrics, sidecar.log, gateway.log):
        assert "PRIVATE KEY" not in text
        assert server.token not in text
    with pytest.raises(urllib.error.HTTPError):
        admin(sidecar, "nothing")

    assert gateway.stop(signal.SIGTERM) == 0
    assert "di-edge" not in server.api("agent/services")
    assert sidecar.stop(signal.SIGTERM) == 0
    assert "di-web-1-sidecar-proxy" in server.api("agent/services"), "who did not register it does not deregister it"


def lictor(
    server: ConsulServer, *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lictor", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=REPOSITORY,
        env={**server.environment, **(environment or {}), "PATH": "/usr/bin:/bin"},
    )


def test_an_instance_that_is_not_there_is_told_with_those_that_are(server: ConsulServer) -> None:
    server.api("agent/service/register", "PUT", {"Name": "di-lonely", "Port": 1})
    done = lictor(server, "sidecar", "-sidecar-for", "nothing", "-admin-bind", "off")
    assert done.returncode == 2
    assert "No sidecar proxy registered for nothing" in done.stderr
    assert "di-lonely" in done.stderr
    done = lictor(server, "sidecar", "-sidecar-for", "di-lonely", "-admin-bind", "off")
    assert "register it with" in done.stderr


def test_a_proxy_of_another_kind_is_told(server: ConsulServer) -> None:
    server.api("agent/service/register", "PUT", {"Name": "di-app", "Port": 1})
    done = lictor(server, "sidecar", "-proxy-id", "di-app", "-admin-bind", "off")
    assert done.returncode == 2
    assert "di-app is of kind 'typical', expected connect-proxy" in done.stderr
    done = lictor(server, "sidecar", "-proxy-id", "di-none", "-admin-bind", "off")
    assert "this agent has no service di-none" in done.stderr


def test_a_wrong_token_is_told(server: ConsulServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("11111111-0000-0000-0000-000000000000")
    words = ("sidecar", "-proxy-id", "di-app", "-admin-bind", "off", "-token-file", str(file))
    done = lictor(server, *words, environment={"CONSUL_HTTP_TOKEN": ""})
    assert done.returncode != 0
    assert (
        "403" in done.stdout + done.stderr
        or "ermission" in done.stdout + done.stderr
        or "ACL" in done.stdout + done.stderr
    )
    assert "11111111-0000" not in done.stdout + done.stderr
