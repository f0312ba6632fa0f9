"""What a gateway believes of its callers, and how much it takes from one: addresses, forwarded fields, limits."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from dataclasses import replace

import pytest

from dataplane.downstream import Downstream
from harness.certificates import Authority
from harness.halves import Half, edge
from harness.meshes import Json
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, echo_server, say
from lictor.up.ports import free_ports
from policies.edge.forwarding import Forwarding
from policies.edge.proxy_protocol import ProxyProtocol, parse_proxy_header, render_proxy_header
from policies.edge.rate_limit import Rate
from policies.edge.settings import EdgeSettings
from policies.protection import Protection

HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"),)
CALLER, ADDRESSED = ("198.51.100.7", 4711), ("192.0.2.80", 443)


def web(port: int) -> list[Json]:
    return [{"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]}]


def get(more: str = "", host: str = "shop.example") -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


# --- PROXY protocol ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_header_says_whom_a_connection_is_for(authority: Authority, version: int, size: int) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(HERE, (port,)))
    sent = render_proxy_header(version, CALLER, ADDRESSED) + get()
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            for at in range(0, len(sent), size):
                await wire.send(sent[at : at + size])
            assert (await wire.answer()).status == 200
            assert (await wire.ask(get())).status == 200
    assert [request.all("x-forwarded-for") for request in app.requests] == [[CALLER[0]]] * 2


async def test_variables_tell_of_the_caller_that_a_header_names_and_not_of_the_balancer(authority: Authority) -> None:
    (port,) = free_ports(1)
    told = {
        "x-caller": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "x-peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    }
    listeners = web(port)
    listeners[0]["Services"][0]["RequestHeaders"] = {"Set": told}
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(HERE, (port,)))
    async with App().running() as app, edge(authority, listeners, {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            assert (await wire.ask(render_proxy_header(2, CALLER, ADDRESSED) + get())).status == 200
    assert app.requests[0].all("x-caller") == ["198.51.100.7:4711"]
    assert app.requests[0].all("x-peer") == ["127.0.0.1"]


async def test_a_balancer_that_speaks_for_itself_is_its_own_caller(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(HERE, (port,)))
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        for header in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"):
            async with await Wire.open(port) as wire:
                assert (await wire.ask(header + get())).status == 200
    assert [request.get("x-forwarded-for") for request in app.requests] == ["127.0.0.1"] * 2


@pytest.mark.parametrize(
    ("trusted", "sent", "reason"),
    [
        (HERE, get(), "no_proxy_header"),
        (HERE, b"PROXY TCP4 1.2.3.4\r\n", "bad_proxy_header"),
        (HERE, b"PROXY ", "closed"),
        (ELSEWHERE, render_proxy_header(1, CALLER, ADDRESSED) + get(), "proxy_untrusted"),
        (ELSEWHERE, render_proxy_header(2, CALLER, ADDRESSED) + get(), "proxy_untrusted"),
    ],
)
async def test_who_sends_what_it_should_not_is_closed_and_counted(
    authority: Authority, trusted: tuple[ipaddress.IPv4Network, ...], sent: bytes, reason: str
) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(trusted, (port,)))
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings) as gateway:
        async with await Wire.open(port) as wire:
            await wire.send(sent)
            wire.writer.write_eof()
            assert await wire.rest() == b""
        await eventually(lambda: gateway.refused() == {reason: 1})
    assert app.requests == []


async def test_other_addresses_and_other_ports_are_as_ever(authority: Authority) -> None:
    port, other = free_ports(2)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(ELSEWHERE, (port,)))
    async with (
        App().running() as app,
        edge(authority, web(port) + web(other), {"web": app.port}, settings=settings),
        await Wire.open(port) as wire,
        await Wire.open(other) as second,
    ):
        assert (await wire.ask(get())).status == 200
        assert (await second.ask(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get())).status == 400
    assert len(app.requests) == 1


async def test_a_tcp_service_is_told_whom_it_talks_to(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(HERE, (port,), ("db",), 1))
    listeners: list[Json] = [{"Port": port, "Protocol": "tcp", "Services": [{"Name": "db"}]}]
    async with (
        echo_server() as db,
        edge(authority, listeners, {"db": db}, "tcp", settings),
        await Wire.open(port) as wire,
    ):
        await wire.send(render_proxy_header(2, CALLER, ADDRESSED) + b"select")
        told = f"PROXY TCP4 {CALLER[0]} 127.0.0.1 {CALLER[1]} {port}\r\n".encode()
        assert await wire.reader.readexactly(len(told) + 6) == told + b"select"


async def test_a_tcp_listener_that_awaits_headers_takes_nobody_else(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(ELSEWHERE, (port,)))
    listeners: list[Json] = [{"Port": port, "Protocol": "tcp", "Services": [{"Name": "db"}]}]
    async with (
        echo_server() as db,
        edge(authority, listeners, {"db": db}, "tcp", settings) as gateway,
        await Wire.open(port) as wire,
    ):
        assert await wire.read() == b""
        assert gateway.refused() == {"proxy_untrusted": 1}


# --- forwarded fields ----------------------------------------------------------------------------------------------

FORGED = (
    "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
    "X-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Envoy-External-Address: 6.6.6.6\r\n"
    "X-Request-Id: forged\r\ntracestate: a=b\r\n"
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
)
TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_nothing_that_a_caller_claims_is_believed(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(forwarding=Forwarding(forwarded=True))
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            await wire.ask(get(FORGED))
            await wire.ask(get())
    first, second = app.requests
    assert "6.6.6.6" not in str(first.headers)
    assert "evil" not in str(first.headers)
    for request in (first, second):
        assert request.all("x-forwarded-for") == ["127.0.0.1"]
        assert request.all("x-forwarded-proto") == ["http"]
        assert request.all("x-forwarded-host") == ["shop.example"]
        assert request.all("forwarded") == ['for=127.0.0.1;host="shop.example";proto=http']
        (request_id,), (trace,) = request.all("x-request-id"), request.all("traceparent")
        assert UUID.fullmatch(request_id)
        assert TRACE.fullmatch(trace)
        assert request.all("tracestate") == []
    assert first.get("traceparent") != second.get("traceparent")
    assert first.get("x-request-id") != second.get("x-request-id")


async def test_a_trusted_proxy_is_believed_as_far_as_it_knows(authority: Authority) -> None:
    (port,) = free_ports(1)
    networks = (*HERE, ipaddress.ip_network("10.0.0.0/8"))
    settings = EdgeSettings(forwarding=Forwarding(networks, forwarded=True))
    said = (
        "X-Forwarded-For: 6.6.6.6, 198.51.100.7\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\n"
        "X-Forwarded-Host: www.example\r\nX-Request-Id: mine\r\n"
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\ntracestate: a=b\r\n"
    )
    broken = (
        "X-Forwarded-Proto: gopher\r\nX-Request-Id: a\r\nX-Request-Id: b\r\ntraceparent: 00-0\r\ntracestate: a=b\r\n"
    )
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            await wire.ask(get(said))
            await wire.ask(get(broken))
    first, second = app.requests
    assert first.all("x-forwarded-for") == ["198.51.100.7, 10.1.1.1, 127.0.0.1"]
    assert (first.get("x-forwarded-proto"), first.get("x-forwarded-host")) == ("https", "www.example")
    assert first.all("forwarded") == ['for=198.51.100.7, for=10.1.1.1, for=127.0.0.1;host="www.example";proto=https']
    assert (first.all("x-request-id"), first.all("tracestate")) == (["mine"], ["a=b"])
    assert first.all("traceparent") == ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"]
    assert second.all("x-forwarded-for") == ["127.0.0.1"]
    assert second.all("x-forwarded-proto") == ["http"]
    assert UUID.fullmatch(" ".join(second.all("x-request-id")))
    assert TRACE.fullmatch(" ".join(second.all("traceparent")))
    assert second.all("tracestate") == []


async def test_ids_and_traces_can_be_left_to_others(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = EdgeSettings(forwarding=Forwarding(request_id=False, traceparent=False))
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            await wire.ask(get())
    assert (app.requests[0].get("x-request-id"), app.requests[0].get("traceparent")) == (None, None)


# --- protection ----------------------------------------------------------------------------------------------------


def protected(**limits: object) -> EdgeSettings:
    return EdgeSettings(protection=replace(Protection(), **limits))  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["max_connections", "max_connections_per_address"])
async def test_one_connection_too_many_is_closed_and_makes_room_when_another_ends(
    authority: Authority, reason: str
) -> None:
    (port,) = free_ports(1)
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected(**{reason: 2})) as gateway,
    ):
        async with await Wire.open(port) as first, await Wire.open(port) as second:
            assert (await first.ask(get())).status == (await second.ask(get())).status == 200
            async with await Wire.open(port) as third:
                assert await third.rest() == b""
            assert gateway.refused() == {reason: 1}
        await eventually(lambda: not gateway.dataplane.listeners[_only(gateway)].connections)
        async with await Wire.open(port) as wire:
            assert (await wire.ask(get())).status == 200


def _only(gateway: Half):  # type: ignore[no-untyped-def]
    (key,) = gateway.dataplane.listeners
    return key


async def test_trusted_proxies_may_have_more_connections_than_one_caller(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = replace(protected(max_connections_per_address=1), forwarding=Forwarding(HERE))
    async with App().running() as app, edge(authority, web(port), {"web": app.port}, settings=settings):
        async with await Wire.open(port) as first, await Wire.open(port) as second:
            assert (await first.ask(get())).status == (await second.ask(get())).status == 200


async def test_an_address_has_its_rate(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = protected(per_address=Rate(0.01, 2))
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=settings) as gateway,
        await Wire.open(port) as wire,
        await Wire.open(port) as other,
    ):
        assert (await wire.ask(get())).status == (await other.ask(get())).status == 200
        refused = await wire.ask(get())
        assert (refused.status, refused.get("x-lictor-reason")) == (429, "rate_limit_address")
        assert 1 <= int(refused.get("retry-after") or 0) <= 100
        assert gateway.reasons() == {"rate_limit_address": 1}
    assert len(app.requests) == 2


async def test_behind_a_trusted_proxy_each_caller_has_its_own_rate(authority: Authority) -> None:
    (port,) = free_ports(1)
    settings = replace(protected(per_address=Rate(0.01, 1)), forwarding=Forwarding(HERE))
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=settings),
        await Wire.open(port) as wire,
    ):
        statuses = [(await wire.ask(get(f"X-Forwarded-For: 198.51.100.{n}\r\n"))).status for n in (1, 2, 1)]
        assert statuses == [200, 200, 429]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_a_413(authority: Authority, chunked: bool) -> None:  # noqa: FBT001
    (port,) = free_ports(1)
    body = b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n" if chunked else b""
    body = body or b"Content-Length: 11\r\n\r\nabcdefabcde"
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected(max_body=10)) as gateway,
        await Wire.open(port) as wire,
    ):
        answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: shop\r\n" + body)
        assert (answer.status, answer.get("x-lictor-reason")) == (413, "body_too_large")
        async with await Wire.open(port) as second:
            exact = b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
            assert (await second.ask(exact)).status == 200
        assert gateway.reasons() == {"body_too_large": 1}


async def test_a_connection_has_so_many_requests(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected(max_requests_per_connection=2)),
        await Wire.open(port) as wire,
    ):
        assert (await wire.ask(get())).get("connection") is None
        assert (await wire.ask(get())).get("connection") == "close"
        assert await wire.rest() == b""


# --- slow callers: time goes by by being told to ---------------------------------------------------------------------


def later(gateway: Half, seconds: float) -> None:
    """Let the gateway's slow callers be looked at, and that much later again."""
    reception, clock = gateway.dataplane.edge.reception, gateway.dataplane.clock
    assert reception is not None
    clock.now += 10  # past the last look
    reception.slow.expire()
    clock.now += seconds
    reception.slow.expire()


async def test_a_body_that_hardly_comes_is_a_408(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected()) as gateway,
        await Wire.open(port) as wire,
    ):
        await wire.send(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\nabc")
        await eventually(lambda: _downstream(gateway).receiving)
        later(gateway, 21)
        answer = await wire.answer()
        assert (answer.status, answer.get("x-lictor-reason")) == (408, "slow_body")
        assert await wire.rest() == b""


async def test_a_body_that_comes_steadily_is_taken(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        App().running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected()) as gateway,
        await Wire.open(port) as wire,
    ):
        await wire.send(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 30000\r\n\r\n")
        await eventually(lambda: _downstream(gateway).receiving)
        later(gateway, 0)
        await wire.send(bytes(25000))
        await asyncio.sleep(0.05)
        later(gateway, 21)
        await wire.send(bytes(5000))
        assert (await wire.answer()).status == 200


def _downstream(gateway: Half) -> Downstream:
    (listener,) = gateway.dataplane.listeners.values()
    connections = [one for one in listener.connections if isinstance(one, Downstream)]
    assert len(connections) == 1
    return connections[0]


async def test_an_answer_that_is_not_read_is_cut_and_holds_little(authority: Authority) -> None:
    (port,) = free_ports(1)
    sent = 0

    async def endless(side: Side, message: Message) -> None:
        nonlocal sent
        del message
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await side.send(bytes(65536))
                sent += 65536

    async with (
        App(endless).running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected()) as gateway,
    ):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        with sock:
            sock.sendall(get())
            (listener,) = gateway.dataplane.listeners.values()
            await eventually(
                lambda: any(one.transport.get_write_buffer_size() for one in listener.connections)  # type: ignore[attr-defined]
            )
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)
            later(gateway, 21)
            counts = gateway.metrics.for_listener(f"ingress:{port}")
            await eventually(lambda: counts.cut == {"slow_read": 1})
            await eventually(lambda: counts.closed == 1)
        assert sent < 20_000_000


async def test_who_takes_nothing_of_a_tcp_stream_is_cut(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners: list[Json] = [{"Port": port, "Protocol": "tcp", "Services": [{"Name": "db"}]}]
    async with echo_server() as db, edge(authority, listeners, {"db": db}, "tcp", protected()) as gateway:
        async with await Wire.open(port) as wire:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            wire.writer.write(bytes(30_000_000))
            (listener,) = gateway.dataplane.listeners.values()
            await eventually(
                lambda: any(one.transport.get_write_buffer_size() for one in listener.connections)  # type: ignore[attr-defined]
            )
            later(gateway, 21)
            await eventually(lambda: gateway.metrics.for_listener(f"ingress:{port}").cut == {"slow_read": 1})
            wire.writer.transport.abort()


async def test_a_flood_of_refusals_is_a_line_of_the_log(
    authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    async with (
        App(say(b"")).running() as app,
        edge(authority, web(port), {"web": app.port}, settings=protected(per_address=Rate(0.01, 1))),
        await Wire.open(port) as wire,
    ):
        for _ in range(20):
            await wire.ask(get())
    written = capsys.readouterr()  # where to depends on whether a test before has configured the log
    assert (written.out + written.err).count("rate_limit_address") == 1


def test_what_is_sent_to_services_can_be_read_by_anybody() -> None:
    header = parse_proxy_header(render_proxy_header(2, CALLER, ADDRESSED, "db.example.com"))
    assert not isinstance(header, int)
    assert (header.source, header.destination) == (CALLER, ADDRESSED)


async def test_nobody_takes_away_what_the_gateway_adds_by_naming_it_in_connection(authority: Authority) -> None:
    (port,) = free_ports(1)
    headers = {"Set": {"x-from-outside": "1"}, "Add": {"x-zone": "dmz"}}
    listeners = [
        {"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"], "RequestHeaders": headers}]}
    ]
    settings = EdgeSettings(forwarding=Forwarding(forwarded=True))
    names = "x-from-outside, X-Zone, forwarded, x-request-id, traceparent, x-mine"
    async with App().running() as app, edge(authority, listeners, {"web": app.port}, settings=settings):
        async with await Wire.open(port) as wire:
            for _ in range(3):  # planned or not
                assert (await wire.ask(get(f"Connection: {names}\r\nX-Mine: 1\r\nX-Zone: lan\r\n"))).status == 200
    for asked in app.requests:
        assert (asked.all("x-from-outside"), asked.all("x-zone"), asked.all("x-mine")) == (["1"], ["dmz"], [])
        assert asked.all("forwarded") == ['for=127.0.0.1;host="shop.example";proto=http']
        assert len(asked.all("x-request-id")) == len(asked.all("traceparent")) == 1
