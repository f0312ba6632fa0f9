"""`lictor sidecar -sidecar-for` and `lictor gateway -register`, where one would type `consul connect envoy`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.load import load
from harness.peers import Peers, peers
from harness.servers import REPOSITORY, ConsulServer, consul_server, eventually, http_json
from harness.wire import App, Wire
from lictor.cli import build_parser
from lictor.up.ports import free_ports

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
        async with await Wire.open(registered) as wire:  # where Consul's check of the gateway connects
            assert (await wire.ask(GET)).status == 404
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


def maintenance(server: ConsulServer, service_id: str) -> str | None:
    check = server.api("agent/checks").get(f"_service_maintenance:{service_id}")
    return None if check is None else str(check["Notes"])


async def test_a_registration_that_is_not_ours_is_left_as_it_was_found(server: ConsulServer, proxies: Peers) -> None:
    """The Envoy or `connect proxy` that is started next gets traffic."""
    async with App().running() as app:
        (upstream,) = free_ports(1)
        proxies.register("di-next", app.port, upstreams={"di-next": upstream})
        sidecar = await asyncio.to_thread(proxies.lictor_sidecar, "di-next-1")
        stopping = asyncio.create_task(asyncio.to_thread(sidecar.stop, signal.SIGTERM))
        await eventually(lambda: maintenance(server, "di-next-1-sidecar-proxy") == "lictor is draining", every=0.05)
        assert await stopping == 0
        assert maintenance(server, "di-next-1-sidecar-proxy") is None
        await asyncio.to_thread(proxies.envoy_sidecar, "di-next-1")
        await eventually(lambda: _answers(upstream), 20)


async def _answers(port: int) -> bool:
    async with await Wire.open(port) as wire:
        return (await wire.ask(GET)).status == 200


async def test_the_maintenance_of_an_operator_is_not_ours_to_end(server: ConsulServer, proxies: Peers) -> None:
    proxy = "di-away-1-sidecar-proxy"
    async with App().running() as app:
        proxies.register("di-away", app.port)
        server.api(f"agent/service/maintenance/{proxy}?enable=true&reason=the+disk+is+new", "PUT")
        sidecar = await asyncio.to_thread(proxies.lictor_sidecar, "di-away-1")
        assert maintenance(server, proxy) == "the disk is new"
        assert await asyncio.to_thread(sidecar.stop, signal.SIGTERM) == 0
        assert maintenance(server, proxy) == "the disk is new"


async def test_a_second_instance_takes_over_without_a_failed_request(server: ConsulServer, proxies: Peers) -> None:
    """Both listen on the port for a while; the first one leaves without putting the registration into maintenance."""
    async with App().running() as app:
        (upstream,) = free_ports(1)
        proxies.register("di-old", app.port)
        proxies.register("di-caller", 1, upstreams={"di-old": upstream})
        first = await asyncio.to_thread(proxies.lictor_sidecar, "di-old-1")
        await asyncio.to_thread(proxies.lictor_sidecar, "di-caller-1")
        await eventually(lambda: _answers(upstream), 20)
        async with load(upstream, "di-old", rate=50, connections=4) as running:
            second = await asyncio.to_thread(proxies.lictor_sidecar, "di-old-1")
            stopping = asyncio.create_task(asyncio.to_thread(first.stop, signal.SIGTERM))
            while not stopping.done():
                assert maintenance(server, "di-old-1-sidecar-proxy") is None
                await asyncio.sleep(0.05)
            assert await stopping == 0
            done = running.sent
            await eventually(lambda: running.sent > done + 50)
        assert running.failures == []
        assert '"relieved": true' in first.log
        assert await asyncio.to_thread(second.stop, signal.SIGTERM) == 0
        assert '"relieved": false' in second.log


async def test_a_gateway_that_is_relieved_leaves_its_registration_to_its_successor(
    server: ConsulServer, proxies: Peers
) -> None:
    port, registered = free_ports(2)
    listener = {"Port": port, "Protocol": "http", "Services": [{"Name": "di-behind"}]}
    server.write({"Kind": "ingress-gateway", "Name": "di-twice", "Listeners": [listener]})
    first, second = [await asyncio.to_thread(proxies.lictor_gateway, "di-twice", registered) for _ in range(2)]
    assert await asyncio.to_thread(first.stop, signal.SIGTERM) == 0
    assert "left_to_successor" in first.log
    assert "di-twice" in server.api("agent/services")
    assert await asyncio.to_thread(second.stop, signal.SIGTERM) == 0
    assert "di-twice" not in server.api("agent/services")


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


def test_every_flag_of_consul_connect_envoy_is_known(server: ConsulServer) -> None:
    """Its meaning is taken, said to be none here, or refused with a reason: never "not known"."""
    told = server.cli("connect", "envoy", "-h", check=False)
    flags = re.findall(r"^  -([a-z-]+)(=<)?", told.stdout + told.stderr, re.MULTILINE)
    assert len(flags) > 30
    known: set[str] = set()
    for word in ("sidecar", "gateway"):
        parser = build_parser(word)._subparsers._group_actions[0].choices[word]  # type: ignore[union-attr,index]
        known |= {flag.lstrip("-") for action in parser._actions for flag in action.option_strings}
    assert {name for name, _ in flags} - known == set()
