"""The egress policy on a real Consul: real clients, a sidecar as their proxy, the gateway, hosts outside by name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from harness.certificates import Authority
from harness.outside import server_context, write_leaf, write_root
from harness.peers import Peers, peers
from harness.servers import ConsulServer, consul_server, http_json
from harness.wire import App, Wire, serving
from lictor.up.ports import free_ports

HOST = "localhost"  # a name that needs no DNS


@dataclass
class Outside:
    """What is running, and where web's sidecar listens as a proxy. The apps outside run while a test does."""

    consul: ConsulServer
    proxies: Peers
    folder: Path
    ports: dict[str, int]  # of the apps outside, by service
    proxy: int
    gateway: int
    gateway_admin: int
    tls: App = field(default_factory=App)
    plain: App = field(default_factory=App)

    @property
    def ca(self) -> str:
        """Return the file of the CA outside."""
        return str(self.folder / "ca.pem")

    def allow(self, *services: str) -> None:
        """Let web call these and nobody else."""
        for service in ("secure", "clear", "raw"):
            action = "allow" if service in services else "deny"
            sources = [{"Name": "web", "Action": action}]
            self.consul.write({"Kind": "service-intentions", "Name": service, "Sources": sources})

    def curl(self, url: str, *options: str) -> tuple[int, str]:
        """Return curl's exit code, and what it printed: the body, and the status (of the proxy's answer to CONNECT)."""
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "", "-x", f"http://127.0.0.1:{self.proxy}", "--cacert", self.ca, "-m", "10",
             "-w", " %{http_code} %{http_connect}", *options, url],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    authority = Authority("outside")
    write_leaf(folder, authority, "server", dns=(HOST,))
    write_root(folder, authority)
    with consul_server(settings={"default_intention_policy": "deny"}) as consul, peers(consul, folder) as proxies:
        ports = dict(zip(("secure", "clear", "raw"), free_ports(3), strict=True))
        _write(consul, ports, str(folder / "ca.pem"))
        proxy, gateway = _register(consul, proxies)
        program = proxies._lictor("lictor-egress", "gateway", "-gateway=terminating", "-proxy-id", "egress")
        proxies.lictor_sidecar("web-1")
        made = Outside(consul, proxies, folder, ports, proxy, gateway, program.admin_port)
        made.allow("secure", "clear", "raw")
        yield made


@pytest.fixture
async def outside(running: Outside) -> AsyncIterator[Outside]:
    files = (str(running.folder / "server.pem"), str(running.folder / "server.key"))
    context, _ = server_context(files, alpn=["http/1.1"])
    running.tls, running.plain = App(), App()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running.tls.running(running.ports["secure"], context))
        await stack.enter_async_context(running.plain.running(running.ports["clear"]))
        await stack.enter_async_context(serving(echo, running.ports["raw"]))
        yield running


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


def _write(consul: ConsulServer, ports: dict[str, int], ca: str) -> None:
    for name, port in ports.items():
        row = {"ID": name, "Service": name, "Port": port}
        consul.api("catalog/register", "PUT", {"Node": f"{name}-node", "Address": HOST, "Service": row})
    consul.write(
        {"Kind": "service-defaults", "Name": "secure", "Protocol": "http"},
        {"Kind": "service-defaults", "Name": "clear", "Protocol": "http"},
        {
            "Kind": "terminating-gateway",
            "Name": "egress",
            "Services": [{"Name": "secure", "CAFile": ca, "SNI": HOST}, {"Name": "clear"}, {"Name": "raw"}],
        },
    )


def _register(consul: ConsulServer, proxies: Peers) -> tuple[int, int]:
    """Register the gateway and web's sidecar; return the ports of web's proxy and of the gateway."""
    proxy, port = free_ports(2)
    config = {"forward_proxy": True}
    gateway = {"Kind": "terminating-gateway", "Name": "egress", "ID": "egress", "Address": "127.0.0.1", "Port": port}
    consul.api("agent/service/register", "PUT", {**gateway, "Proxy": {"Config": config}})
    proxies.register("web", 1)
    web = consul.api("agent/service/web-1-sidecar-proxy")
    upstream = {"DestinationName": "egress", "LocalBindPort": proxy, "Config": config}
    definition = {
        **{key: web[key] for key in ("Kind", "ID", "Address", "Port")},
        "Name": web["Service"],
        "Proxy": {**web["Proxy"], "Upstreams": [upstream]},
    }
    consul.api("agent/service/register", "PUT", definition)
    return proxy, port


def counted(outside: Outside) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{outside.gateway_admin}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


async def test_curl_reaches_linked_hosts_by_tunnel_and_in_the_clear_and_no_others(outside: Outside) -> None:
    def story() -> None:
        secure, clear = f"https://{HOST}:{outside.ports['secure']}/a", f"http://{HOST}:{outside.ports['clear']}/b?c=d"
        eventually_curl(outside, secure, (0, "hello 200 200"))
        assert outside.curl(clear) == (0, "hello 200 000")
        assert outside.curl(clear, "-d", "x" * 100_000) == (0, "hello 200 000")
        assert outside.curl(f"http://{HOST}:{outside.ports['secure']}/c") == (0, "hello 200 000"), "TLS by the gateway"
        assert outside.curl(f"http://{HOST.upper()}.:{outside.ports['clear']}/") == (0, "hello 200 000")
        for url in (
            f"https://127.0.0.1:{outside.ports['secure']}/",
            "https://169.254.169.254/",
            "https://evil.example.com/",
        ):
            assert outside.curl(url) == (56, " 000 403"), url
        agent = f"http://127.0.0.1:{outside.consul.http_port}/v1/agent/self"
        for url in (f"http://127.0.0.1:{outside.ports['clear']}/", "http://169.254.169.254/latest/meta-data/", agent):
            assert outside.curl(url) == (0, "RBAC: access denied 403 000"), url
        assert outside.curl(clear, "-H", f"Host: {HOST}:{outside.ports['secure']}")[1].endswith(" 400 000")
        # Straight at the gateway, without an identity of the mesh, there is nothing at all.
        assert outside.curl(clear, "-x", f"http://127.0.0.1:{outside.gateway}")[0] == 56

    await asyncio.to_thread(story)
    assert [one.target for one in outside.tls.requests] == ["/a", "/c"]
    assert {one.get("host") for one in outside.plain.requests} == {HOST}
    assert 'lictor_local_answers_total{listener="egress",reason="host_not_linked"}' in counted(outside)


def eventually_curl(outside: Outside, url: str, expected: tuple[int, str]) -> None:
    """Ask until the intentions have come through."""
    ends = time.monotonic() + 15
    while (said := outside.curl(url)) != expected:
        assert time.monotonic() < ends, said
        time.sleep(0.1)


async def test_requests_and_aiohttp_go_through_as_through_any_proxy(outside: Outside) -> None:
    proxy = f"http://127.0.0.1:{outside.proxy}"
    secure, clear = f"https://{HOST}:{outside.ports['secure']}/", f"http://{HOST}:{outside.ports['clear']}/"

    def with_requests() -> list[int]:
        session = requests.Session()
        session.trust_env = False
        proxies = {"http": proxy, "https": proxy}
        urls = (secure, clear, clear, "http://evil.example.com/")
        return [session.get(url, proxies=proxies, verify=outside.ca, timeout=10).status_code for url in urls]

    assert await asyncio.to_thread(with_requests) == [200, 200, 200, 403]
    context = ssl.create_default_context(cafile=outside.ca)
    async with aiohttp.ClientSession() as session:
        for url in (secure, clear):
            async with session.get(url, proxy=proxy, ssl=context) as answer:
                assert (answer.status, await answer.text()) == (200, "hello")
        with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
            await session.get("https://evil.example.com/", proxy=proxy, ssl=context)
        assert caught.value.status == 403
    await asyncio.sleep(0)


async def test_an_intention_of_consul_opens_closes_and_cuts(outside: Outside) -> None:
    authority = f"{HOST}:{outside.ports['raw']}"
    connect = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    async with await Wire.open(outside.proxy) as wire:
        await wire.send(connect)
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        await wire.send(b"ping")
        assert await wire.read() == b"ping"
        await asyncio.to_thread(outside.allow, "secure", "clear")
        assert await wire.rest() == b""
    assert 'lictor_revoked_total{listener="egress",what="tunnel"} 1' in counted(outside)
    async with await Wire.open(outside.proxy) as wire:
        assert (await wire.ask(connect)).status == 403
        clear = f"{HOST}:{outside.ports['clear']}"
        asked = f"GET http://{clear}/ HTTP/1.1\r\nHost: {clear}\r\n\r\n".encode()
        async with await Wire.open(outside.proxy) as other:
            assert (await other.ask(asked)).status == 200
    await asyncio.to_thread(outside.allow, "secure", "clear", "raw")
    rows: Any = http_json(f"http://127.0.0.1:{outside.gateway_admin}/config_dump", timeout=5)
    assert rows["table"]["egress"]["proxy_sni"].startswith("egress.default.dc1.internal.")


def test_the_log_names_identity_and_host(running: Outside) -> None:
    log = next(one.log for one in running.proxies._programs if one.name.startswith("lictor-egress"))
    denied = [line for line in log.splitlines() if "egress_denied" in line]
    assert any("web" in line and "evil.example.com:443" in line for line in denied), log[-2000:]
