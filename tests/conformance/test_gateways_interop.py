"""Our terminating gateway in front of somebody else's TLS server: Envoy, with a static file, outside of the mesh.

The other direction, Envoy's ingress gateway in front of our sidecars, is one of the four of test_gateways_envoy.py. And
everyday clients at our ingress gateway: those that are here anyway, `scripts/callers` has more of them.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.callers import CASES, PYTHON, gateway, table
from harness.certificates import Authority
from harness.outside import write_leaf, write_root
from harness.peers import Peers, peers
from harness.servers import ConsulServer, consul_server, eventually
from harness.wire import App, Message, Side, Wire
from lictor.up.ports import free_ports

NAME = "partner.example.com"  # in the server's certificate and in the link; nothing resolves it
EXTENSIONS = "type.googleapis.com/envoy.extensions"
LARGE = bytes(range(256)) * 16384  # 4 MB, more than any buffer on the way


@dataclass
class Running:
    """What runs for the whole module: a port for each way in, and of the app that Envoy stands in front of."""

    folder: Path
    upstream: int  # of web's sidecar, to `partner`
    proxy: int  # of web's sidecar, for CONNECT
    server: int  # Envoy's
    app: int
    admin: int  # Envoy's

    @property
    def connections(self) -> int:
        """Return how many connections Envoy has accepted."""
        told = run("curl", "-sS", f"http://127.0.0.1:{self.admin}/stats?filter=^http.outside.downstream_cx_total$")
        return int(told.rpartition(":")[2])


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout[-300:], done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("partner")
    authority = Authority("outside")
    files = write_leaf(folder, authority, "server", dns=(NAME,))
    ca = write_root(folder, authority)
    upstream, proxy, gateway, server, app, admin = free_ports(6)
    with consul_server(settings={"default_intention_policy": "deny"}) as consul, peers(consul, folder) as proxies:
        tell(consul, ca, server)
        register(consul, proxies, (upstream, proxy, gateway))
        gate = ("lictor-egress", "gateway", "-gateway=terminating", "-proxy-id", "egress")
        with ThreadPoolExecutor() as threads:  # a program ends with the thread that started it
            starts = (
                threads.submit(proxies.envoy, "envoy-outside", bootstrap(server, app, admin, files), admin),
                threads.submit(proxies._lictor, *gate),
                threads.submit(proxies.lictor_sidecar, "web-1"),
            )
            for start in starts:
                start.result()
            yield Running(folder, upstream, proxy, server, app, admin)


def tell(consul: ConsulServer, ca: str, port: int) -> None:
    row = {"ID": "partner", "Service": "partner", "Port": port}
    consul.api("catalog/register", "PUT", {"Node": "outside", "Address": "127.0.0.1", "Service": row})
    consul.write(
        {"Kind": "service-defaults", "Name": "partner", "Protocol": "http"},
        {"Kind": "service-intentions", "Name": "partner", "Sources": [{"Name": "web", "Action": "allow"}]},
        {
            "Kind": "terminating-gateway",
            "Name": "egress",
            "Services": [{"Name": "partner", "CAFile": ca, "SNI": NAME}],
        },
    )


def register(consul: ConsulServer, proxies: Peers, ports: tuple[int, int, int]) -> None:
    """Register the gateway and web's sidecar, which has an upstream and a proxy port through it."""
    upstream, proxy, gateway = ports
    forwards = {"forward_proxy": True}
    row = {"Kind": "terminating-gateway", "Name": "egress", "ID": "egress", "Address": "127.0.0.1", "Port": gateway}
    consul.api("agent/service/register", "PUT", {**row, "Proxy": {"Config": forwards}})
    proxies.register("web", 1, upstreams={"partner": upstream})
    web = consul.api("agent/service/web-1-sidecar-proxy")
    upstreams = [
        *web["Proxy"]["Upstreams"],
        {"DestinationName": "egress", "LocalBindPort": proxy, "Config": forwards},
    ]
    definition = {
        **{key: web[key] for key in ("Kind", "ID", "Address", "Port")},
        "Name": web["Service"],
        "Proxy": {**web["Proxy"], "Upstreams": upstreams},
    }
    consul.api("agent/service/register", "PUT", definition)


def bootstrap(port: int, app: int, admin: int, files: tuple[str, str]) -> dict[str, Any]:
    """Return an Envoy that ends TLS, refuses hellos without the name, and passes on to the app."""

    def address(of: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": of}}

    certificate = {"certificate_chain": {"filename": files[0]}, "private_key": {"filename": files[1]}}
    tls = {
        "@type": f"{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [certificate], "alpn_protocols": ["h2", "http/1.1"]},
    }
    router = {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"}
    http = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outside",
        "route_config": {
            "virtual_hosts": [
                {"name": "app", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    inspector = {"@type": f"{EXTENSIONS}.filters.listener.tls_inspector.v3.TlsInspector"}
    listener = {
        "name": "outside",
        "address": address(port),
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "filter_chains": [
            {
                "filter_chain_match": {"server_names": [NAME]},
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}],
            }
        ],
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(app)}}]}]
    cluster = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": endpoints},
    }
    return {"admin": {"address": address(admin)}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


async def tell_back(side: Side, message: Message) -> bytes:
    """Answer a body with itself, /large with much, and anything else with what it was asked."""
    head = b"HTTP/1.1 200 OK\r\n"
    if message.first[0] == "HEAD":
        return head + b"content-length: %d\r\n\r\n" % len(LARGE)
    if message.target == "/chunked":
        return head + b"transfer-encoding: chunked\r\n\r\n5\r\nparts\r\n6\r\n of it\r\n0\r\n\r\n"
    if message.target == "/empty":
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    body = LARGE if message.target == "/large" else message.body or message.target.encode()
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def ask(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: partner", *lines, "", ""]).encode() + body


async def test_an_upstream_through_the_terminating_gateway_reaches_an_envoy_over_tls(running: Running) -> None:
    async with App(tell_back).running(running.app) as app:
        await eventually(lambda: works(running.upstream), 20, every=0.1)
        app.requests.clear()
        before = await asyncio.to_thread(lambda: running.connections)
        async with await Wire.open(running.upstream) as wire:
            found = await wire.ask(ask("GET", "/a?b=c"))
            assert (found.status, found.get("server"), found.body) == (200, "envoy", b"/a?b=c")
            found = await wire.ask(ask("POST", "/echo", f"Content-Length: {len(LARGE)}", body=LARGE))
            assert (found.status, found.body == LARGE) == (200, True)
            chunks = b"4\r\nbody\r\n8\r\n in bits\r\n0\r\n\r\n"
            found = await wire.ask(ask("PUT", "/echo", "Transfer-Encoding: chunked", body=chunks))
            assert (found.status, found.body) == (200, b"body in bits")
            found = await wire.ask(ask("GET", "/large"))
            assert (found.status, found.body == LARGE) == (200, True)
            found = await wire.ask(ask("HEAD", "/large"), "HEAD")
            assert (found.status, found.get("content-length"), found.body) == (200, str(len(LARGE)), b"")
            assert (await wire.ask(ask("GET", "/chunked"))).body == b"parts of it"
            assert (await wire.ask(ask("GET", "/empty"))).status == 204
            for number in range(20):
                assert (await wire.ask(ask("GET", f"/{number}"))).body == f"/{number}".encode()
        assert await asyncio.to_thread(lambda: running.connections) == before, "one TLS connection, kept, for all"
        assert len(app.requests) == 27
        assert {one.get("host") for one in app.requests} == {"partner"}


async def works(port: int) -> bool:
    async with await Wire.open(port) as wire:
        return (await wire.ask(ask("GET", "/"))).status == 200


async def test_curl_speaks_tls_with_that_envoy_by_connect(running: Running) -> None:
    """End to end: the certificate that curl checks is Envoy's, and h2 is a matter of those two."""

    def curl(*words: str, ca: str = "ca.pem") -> subprocess.CompletedProcess[str]:
        options = ("-sS", "-m", "10", "--noproxy", "", "-x", f"http://127.0.0.1:{running.proxy}")
        return subprocess.run(
            ["curl", *options, "--cacert", str(running.folder / ca), *words],
            capture_output=True,
            text=True,
            check=False,
        )

    def story() -> None:
        url = f"https://{NAME}:{running.server}"
        told = "%{stderr}%{http_connect} %{http_code} %{http_version} %{num_connects}\n"
        done = curl("--http1.1", "-w", told, f"{url}/a", f"{url}/b")
        assert done.stderr == "200 200 1.1 1\n000 200 1.1 0\n", "the second goes through the same tunnel"
        assert done.stdout == "/a/b"
        done = curl("-w", told, "--data-binary", "x" * 100_000, f"{url}/echo")
        assert (done.stdout, done.stderr) == ("x" * 100_000, "200 200 2 1\n")
        done = curl("-o", str(running.folder / "large"), f"{url}/large")
        assert ((running.folder / "large").read_bytes() == LARGE, done.stderr) == (True, "")
        other = Authority("somebody else")
        write_root(running.folder, other, "other")
        assert curl(f"{url}/", ca="other.pem").returncode == 60, "it was not this certificate's CA"
        assert curl(f"https://evil.example.com:{running.server}/").returncode == 56

    async with App(tell_back).running(running.app):
        await asyncio.to_thread(story)


async def test_that_envoy_takes_nobody_without_the_name(running: Running) -> None:
    """So that what is above is a proof that the gateway sends it."""
    context = ssl.create_default_context(cafile=running.folder / "ca.pem")
    context.check_hostname = False
    for name in ("", "partner"):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await Wire.open(running.server, context, name)
    async with App(tell_back).running(running.app), await Wire.open(running.server, context, NAME) as wire:
        assert (await wire.ask(ask("GET", "/"))).status == 200


async def test_curl_and_the_clients_of_python_can_call_an_ingress_gateway(tmp_path: Path) -> None:
    async with gateway(tmp_path) as made:
        found = await table(made, ["curl"]) | await table(made, PYTHON, ["TLS"])
    asked = [("curl", "plaintext"), ("curl", "TLS"), *((client, "TLS") for client in PYTHON)]
    unable = {(client, "TLS", "expect") for client in ("http.client", "requests")}
    everything = {(*one, case) for one in asked for case in CASES} - unable
    assert found == dict.fromkeys(everything, "ok")
