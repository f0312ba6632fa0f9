"""TLS at the edge: which certificate a caller is shown, and that a change of it costs nobody a connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from harness.certificates import Authority, Mistakes
from harness.halves import Half, edge
from harness.meshes import Json
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, echo_server, say
from lictor.up.ports import free_ports
from policies.compiler import compile_table
from policies.edge.forwarding import Forwarding
from policies.edge.proxy_protocol import ProxyProtocol, render_proxy_header
from policies.edge.rate_limit import Rate
from policies.edge.server_certificates import (
    CertificateReference,
    CertificateUpdate,
    ClientCaUpdate,
    ServerCertificate,
    read_server_certificate,
)
from policies.edge.settings import EdgeSettings
from policies.edge.tls import EdgeTls, FileCertificate, Hsts, PortWords, RedirectToTls
from policies.protection import Protection
from policies.updates import Update
from policies.watches import IngressWatch

OUTSIDE = Authority("the outside")
GET = b"GET / HTTP/1.1\r\nHost: web.com\r\n\r\n"


def caller(name: str = "web.com", authority: Authority = OUTSIDE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.pem)
    return context


async def call(port: int, name: str = "web.com", context: ssl.SSLContext | None = None) -> Wire:
    context = context or caller()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    return Wire(reader, writer)


def shown(wire: Wire) -> str:
    certificate = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return read_server_certificate(ssl.DER_cert_to_PEM_cert(certificate), b"", "the gateway").serial


def update(name: str, certificate: ServerCertificate | None) -> CertificateUpdate:
    return CertificateUpdate(CertificateReference("own", name), certificate)


def yaml(
    *names: str, everywhere: PortWords = PortWords(), ports: Mapping[int, PortWords] | None = None
) -> EdgeSettings:
    files = {name: FileCertificate(f"{name}.pem", f"{name}.key") for name in names}
    return EdgeSettings(tls=EdgeTls(files, everywhere, ports or {}))


def listener(port: int, *services: Json, protocol: str = "http", tls: Json | None = None) -> Json:
    rows = services or ({"Name": "web", "Hosts": ["web.com", "*.web.com"]},)
    return {"Port": port, "Protocol": protocol, "Services": list(rows), "TLS": tls or {"Enabled": True}}


@contextlib.asynccontextmanager
async def gateway(
    authority: Authority, listeners: list[Json], settings: EdgeSettings, updates: Iterable[Update]
) -> AsyncIterator[Half]:
    async with (
        App(say(b"web")).running() as web,
        edge(authority, listeners, {"web": web.port}, settings=settings, updates=updates) as running,
    ):
        yield running


async def test_a_caller_is_shown_the_certificate_of_the_name_it_asks_for(authority: Authority) -> None:
    (port,) = free_ports(1)
    web, api = OUTSIDE.server("web.com"), OUTSIDE.server("*.web.com")
    listeners = [listener(port)]
    updates = [update("web", web), update("api", api)]
    async with gateway(authority, listeners, yaml("web", "api"), updates):
        for name, certificate in (("web.com", web), ("v1.web.com", api)):
            async with await call(port, name) as wire:
                answer = await wire.ask(GET)
                assert (shown(wire), answer.status, answer.body) == (certificate.serial, 200, b"web")
        nobody = caller()
        nobody.check_hostname = False
        async with await call(port, "elsewhere.org", nobody) as wire:
            assert shown(wire) == web.serial


async def test_plaintext_where_tls_is_spoken_is_closed_and_counted(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        gateway(authority, [listener(port)], yaml("web"), [update("web", OUTSIDE.server("web.com"))]) as running,
        await Wire.open(port) as wire,
    ):
        await wire.send(GET)
        assert await wire.rest() == b""
        assert running.refused() == {"plaintext": 1}


async def test_a_strict_listener_closes_on_names_that_it_does_not_have(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = yaml("web", ports={port: PortWords(strict_sni=True)})
    async with gateway(authority, [listener(port)], settings, [update("web", OUTSIDE.server("web.com"))]) as running:
        async with await call(port) as wire:
            assert (await wire.ask(GET)).status == 200
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await call(port, "elsewhere.org")
        assert running.refused() == {"unknown_name": 1}


async def test_the_certificate_of_a_service_is_shown_for_its_hosts(authority: Authority) -> None:
    (port,) = free_ports(1)
    web, pin = OUTSIDE.server("web.com"), OUTSIDE.server("deep.a.shop.com")
    service = {
        "Name": "web",
        "Hosts": ["web.com", "*.shop.com"],
        "TLS": {"SDS": {"ClusterName": "sds", "CertResource": "shop"}},
    }
    tls = {"SDS": {"ClusterName": "sds", "CertResource": "main"}}
    updates = [update("shop", pin), update("main", web)]
    async with gateway(authority, [listener(port, service, tls=tls)], yaml("shop", "main"), updates):
        async with await call(port, "deep.a.shop.com") as wire:
            assert shown(wire) == pin.serial
        trusting = caller()
        trusting.check_hostname = False
        async with await call(port, "other.org", trusting) as wire:
            assert shown(wire) == web.serial


async def test_a_tcp_listener_ends_tls_too(authority: Authority) -> None:
    (port,) = free_ports(1)
    rows = [listener(port, {"Name": "db"}, protocol="tcp")]
    updates = [update("db", OUTSIDE.server("db.com"))]
    async with echo_server() as echo:
        async with edge(authority, rows, {"db": echo}, "tcp", yaml("db"), updates):
            async with await call(port, "db.com") as wire:
                await wire.send(b"ping")
                assert await wire.until(b"ping") == b"ping"


async def test_a_listener_opens_when_its_certificate_comes_and_goes_on_with_the_last_good_one(
    authority: Authority,
) -> None:
    (port,) = free_ports(1)
    async with gateway(authority, [listener(port)], yaml("web"), []) as running:
        assert not running.dataplane.listeners
        first = OUTSIDE.server("web.com")
        running.member.take(update("web", first))
        running.follow()
        broken = replace(OUTSIDE.server("web.com"), key_pem=first.key_pem)
        running.member.take(update("web", broken))
        running.follow()
        assert running.live.current is not None
        assert [problem.fix for problem in running.live.current.problems] == ["what was shown before stays"]
        async with await call(port) as wire:
            assert shown(wire) == first.serial


async def test_a_hundred_swaps_under_load_cost_nobody_a_request_or_a_connection(authority: Authority) -> None:
    (port,) = free_ports(1)
    certificates = [OUTSIDE.server("web.com") for _ in range(100)]
    seen: set[str] = set()
    done = asyncio.Event()
    context = caller()

    async def keep_asking() -> int:
        async with await call(port, context=context) as wire:
            asked = 0
            while not done.is_set():
                assert (await wire.ask(GET)).status == 200
                asked += 1
            return asked

    async def keep_coming() -> int:
        came = 0
        while not done.is_set():
            async with await call(port, context=context) as wire:
                assert (await wire.ask(GET)).status == 200
                seen.add(shown(wire))
                came += 1
        return came

    async with gateway(authority, [listener(port)], yaml("web"), [update("web", OUTSIDE.server("web.com"))]) as running:
        working = [asyncio.create_task(one()) for one in (keep_asking, keep_asking, keep_coming, keep_coming)]
        for number, certificate in enumerate(certificates):
            running.member.take(update("web", certificate))
            running.follow()
            await asyncio.sleep(0.01)
            if number % 8 == 0:  # on a slow machine they might all be swapped before anybody comes
                await eventually(lambda one=certificate: one.serial in seen)
        async with await call(port) as wire:
            assert shown(wire) == certificates[-1].serial
        done.set()
        assert all(await asyncio.gather(*working))
        assert len(seen) > 10
        assert running.refused() == {}
        assert len(running.dataplane.listeners) == 1


async def test_turning_tls_on_and_off_leaves_other_listeners_alone(authority: Authority) -> None:
    port, other = free_ports(2)
    plain = {**listener(port), "TLS": None}
    async with gateway(
        authority, [plain, listener(other)], yaml("web"), [update("web", OUTSIDE.server("web.com"))]
    ) as running:
        async with await call(other) as kept, await Wire.open(port) as wire:
            assert (await wire.ask(GET)).status == 200
            for row, context in ((listener(port), caller()), (plain, None)):
                entry = {"Kind": "ingress-gateway", "Name": "edge", "Listeners": [row, listener(other)]}
                running.member.hear(IngressWatch("edge"), entry)
                running.follow()
                async with await (call(port) if context else Wire.open(port)) as now:
                    assert (await now.ask(GET)).status == 200
                assert (await kept.ask(GET)).status == 200


async def test_tls_without_a_certificate_in_the_yaml_stays_closed_and_says_why(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with gateway(authority, [listener(port)], EdgeSettings(), []) as running:
        assert not running.dataplane.listeners
        _, problems = compile_table(running.member.snapshot)
        assert [problem.message for problem in problems] == [
            "TLS is enabled, but Consul's leaf has no DNS names for a proxy outside of the agent"
        ]


# --- what the YAML adds --------------------------------------------------------------------------------------------

FORGED = (
    b"GET / HTTP/1.1\r\nHost: web.com\r\nX-Forwarded-Client-Cert: URI=spiffe://admin\r\nClient-Cert: :AAAA:\r\n"
    b"x_forwarded-client_cert: forged\r\nclient_cert_chain: forged\r\n\r\n"
)


def of_certificates(app: App) -> dict[str, str]:
    """Return what an app was last told of certificates."""
    return {name: value for name, value in app.requests[-1].headers if "cert" in name}


async def test_a_callers_certificate_is_told_to_the_service_and_nobody_can_forge_it(authority: Authority) -> None:
    port, plain = free_ports(2)
    callers = Authority("callers")
    words = PortWords(client_ca_file="callers.pem")
    updates: list[Update] = [update("web", OUTSIDE.server("web.com")), ClientCaUpdate("callers.pem", callers.pem)]
    listeners = [listener(port), {**listener(plain), "TLS": None}]
    async with (
        App(say(b"web")).running() as app,
        edge(authority, listeners, {"web": app.port}, settings=yaml("web", ports={port: words}), updates=updates),
    ):
        known = caller()
        with_certificate(known, callers.server("ann.example.com", mistakes=Mistakes(common_name="ann")))
        async with await call(port, context=known) as wire:
            assert (await wire.ask(FORGED)).status == 200
        told = of_certificates(app)
        der = base64.b64decode(told.pop("client-cert").strip(":"), validate=True)
        assert x509.load_der_x509_certificate(der).subject.rfc4514_string() == "CN=ann"
        # The sidecar of the called service says who called it; the gateway's own word ends there.
        assert "edge" in told.pop("x-forwarded-client-cert")
        assert told == {}
        for wire in (await call(port), await Wire.open(plain)):
            async with wire:
                assert (await wire.ask(FORGED)).status == 200
            assert set(of_certificates(app)) == {"x-forwarded-client-cert"}
            assert "admin" not in of_certificates(app)["x-forwarded-client-cert"]


async def test_a_caller_without_the_certificate_that_is_required_is_refused(authority: Authority) -> None:
    (port,) = free_ports(1)
    callers, strangers = Authority("callers"), Authority("strangers")
    words = PortWords(client_ca_file="callers.pem", require_client_certificate=True)
    settings = yaml("web", everywhere=words)
    async with gateway(authority, [listener(port)], settings, [update("web", OUTSIDE.server("web.com"))]) as running:
        assert not running.dataplane.listeners  # who may sign is not known yet
        running.member.take(ClientCaUpdate("callers.pem", callers.pem))
        running.follow()
        good, bad, none = caller(), caller(), caller()
        with_certificate(good, callers.server("ann"))
        with_certificate(bad, strangers.server("ann"))
        async with await call(port, context=good) as wire:
            assert (await wire.ask(GET)).status == 200
        for context in (bad, none):
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # under TLS 1.3 it is told after the handshake
                async with await call(port, context=context) as wire:
                    await wire.send(GET)
                    assert await wire.rest() == b""
        assert running.refused() == {"foreign_ca": 1, "no_certificate": 1}


async def answer_some(side: Side, message: Message) -> None:
    """Answer without end where `/endless` is asked for."""
    await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
    if message.target == "/endless":
        await side.read()
    await side.send(b"0\r\n\r\n")


async def test_a_connection_ends_with_its_callers_certificate(authority: Authority) -> None:
    port, of_tcp = free_ports(2)
    callers = Authority("callers")
    settings = yaml("web", everywhere=PortWords(client_ca_file="callers.pem"))
    updates: list[Update] = [update("web", OUTSIDE.server("web.com")), ClientCaUpdate("callers.pem", callers.pem)]
    rows = [listener(of_tcp, {"Name": "db"}, protocol="tcp")]
    async with (
        App(answer_some).running() as app,
        echo_server() as echo,
        edge(authority, [listener(port)], {"web": app.port}, settings=settings, updates=updates) as running,
        edge(authority, rows, {"db": echo}, "tcp", settings, updates) as of_db,
        await call(port) as nobody,
    ):
        known = caller()
        with_certificate(known, callers.server("ann", mistakes=Mistakes(ends=timedelta(seconds=40))))
        silent, idle, endless, db = [await call(one, context=known) for one in (port, port, port, of_tcp)]
        assert (await idle.ask(GET)).body == b"hi"
        await endless.send(GET.replace(b"/", b"/endless", 1))
        await endless.until(b"hi")
        await db.send(b"ping")
        assert await db.until(b"ping") == b"ping"
        for gateway_ in (running, of_db):
            gateway_.later(41)  # others may be idle for longer
        async with asyncio.timeout(5):
            assert [await wire.rest() for wire in (silent, idle, db)] == [b"", b"", b""]
            await endless.rest()
        assert running.reasons() == {"certificate_ended": 1}
        for wire in (silent, idle, endless, db):
            await wire.close()
        assert (await nobody.ask(GET)).body == b"hi"


def with_certificate(context: ssl.SSLContext, certificate: ServerCertificate) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(certificate.chain_pem + certificate.key_pem.decode())
        file.flush()
        context.load_cert_chain(file.name)


async def test_plaintext_is_sent_to_tls_and_tls_says_to_stay_there(authority: Authority) -> None:
    port, plain = free_ports(2)
    words = PortWords(redirect=RedirectToTls(port), hsts=Hsts(3600))
    listeners = [listener(port), {**listener(plain), "TLS": None}]
    updates = [update("web", OUTSIDE.server("web.com"))]
    async with gateway(authority, listeners, yaml("web", everywhere=words), updates):
        async with await Wire.open(plain) as wire:
            body = b"POST /a/b?c=d HTTP/1.1\r\nHost: web.com:80\r\nContent-Length: 3\r\n\r\nxyz"
            for _ in range(2):
                answer = await wire.ask(body, "POST")
                assert (answer.status, answer.get("location")) == (308, f"https://web.com:{port}/a/b?c=d")
                assert answer.get("strict-transport-security") is None
        async with await call(port) as wire:
            for host, status in ((b"web.com", 200), (b"elsewhere", 404)):
                answer = await wire.ask(GET.replace(b"web.com", host))
                assert (answer.status, answer.get("strict-transport-security")) == (status, "max-age=3600")


async def test_a_proxy_header_comes_before_tls_and_the_service_hears_of_both(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = replace(yaml("web"), proxy_protocol=ProxyProtocol((ipaddress.ip_network("127.0.0.0/8"),), (port,)))
    updates: list[Update] = [update("web", OUTSIDE.server("web.com"))]
    header = render_proxy_header(2, ("198.51.100.7", 4711), ("192.0.2.80", 443))
    async with (
        App(say(b"web")).running() as app,
        edge(authority, [listener(port)], {"web": app.port}, settings=settings, updates=updates) as gate,
    ):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(header)
        sock.setblocking(False)
        async with Wire(*await asyncio.open_connection(sock=sock, ssl=caller(), server_hostname="web.com")) as wire:
            assert (await wire.ask(GET)).status == 200
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await call(port)
        assert gate.refused() == {"no_proxy_header": 1}
    (request,) = app.requests
    assert request.all("x-forwarded-for") == ["198.51.100.7"]
    assert request.all("x-forwarded-proto") == ["https"]


async def test_a_certificate_has_its_rate_wherever_it_comes_from(authority: Authority) -> None:
    (port,) = free_ports(1)
    callers = Authority("callers")
    settings = replace(
        yaml("web", everywhere=PortWords(client_ca_file="callers.pem")),
        protection=Protection(per_identity=Rate(0.01, 2)),
    )
    updates: list[Update] = [update("web", OUTSIDE.server("web.com")), ClientCaUpdate("callers.pem", callers.pem)]
    ann, bob = caller(), caller()
    with_certificate(ann, callers.server("ann"))
    with_certificate(bob, callers.server("bob"))
    async with gateway(authority, [listener(port)], settings, updates):
        statuses = []
        for context in (ann, ann, ann, bob, None, None, None):
            async with await call(port, context=context) as wire:
                statuses.append((await wire.ask(GET)).status)
        assert statuses == [200, 200, 429, 200, 200, 200, 200]


async def test_a_trusted_proxy_that_has_ended_tls_is_not_redirected(authority: Authority) -> None:
    port, plain = free_ports(2)
    listeners = [listener(port), {**listener(plain), "TLS": None}]
    updates = [update("web", OUTSIDE.server("web.com"))]
    words = PortWords(redirect=RedirectToTls(port))
    said = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Proto: https\r\n\r\n")
    for trusted, status in (((), 308), ((ipaddress.ip_network("127.0.0.0/8"),), 200)):
        settings = replace(yaml("web", everywhere=words), forwarding=Forwarding(trusted_proxies=trusted))
        async with gateway(authority, listeners, settings, updates), await Wire.open(plain) as wire:
            assert (await wire.ask(said)).status == status
            assert (await wire.ask(GET)).status == 308
