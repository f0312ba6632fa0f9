"""Towards the outside: TLS by the operator's files, host names by whichever address answers, and what stays closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.clock import NEVER, Clock
from dataplane.dialling import Dialler
from dataplane.egress import names
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.pool import Route
from dataplane.pools import Pools
from harness.certificates import TRUST_DOMAIN, Authority, client_context
from harness.dns import Names
from harness.halves import half
from harness.meshes import intention, link, outside, terminating
from harness.outside import Seen, server_context, write_leaf, write_root
from harness.wire import App, Wire, serving
from lictor.up.ports import free_ports
from policies.balance import Endpoint, LoadBalancer, build
from policies.egress.host_names import dialled
from policies.egress.links import Origination
from policies.errors import ConnectFailed, ConnectTimedOut
from policies.table import Cluster
from policies.watches import OutsideWatch


class Taker(asyncio.Protocol):
    """Takes a connection and closes it."""

    def __init__(self) -> None:
        self.alpn = self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.alpn = transport.get_extra_info("alpn") or ""
        self.address = transport.get_extra_info("peername")[0]
        asyncio.get_running_loop().call_soon(transport.close)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(names, "MIN_SECONDS", 0.02)
    monkeypatch.setattr(names, "RETRY_SECONDS", (0.02,))
    return Names()


@pytest.fixture
async def pools(dns: Names) -> AsyncIterator[Pools]:
    clock = Clock(asyncio.get_running_loop())
    clock.start()
    made = Pools(Live(), clock, Metrics(), dns)
    yield made
    made.close()
    clock.stop()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def tls_app(files: tuple[str, str], app: App | None = None, **how: str) -> AsyncIterator[tuple[App, Seen]]:
    context, seen = server_context(files, alpn=["http/1.1"], **how)
    async with (app or App()).running(context=context) as running:
        yield running, seen


async def dial(pools: Pools, route: Route, timeout: float = 5.0) -> Taker:
    taker = Taker()
    await pools._dialler.connect(route, timeout, lambda *_: taker)
    return taker


def route(port: int, origination: Origination | None, host: str = "") -> Route:
    return Route(host or "127.0.0.1", port, origination=origination, host=host)


# --- TLS -----------------------------------------------------------------------------------------------------------


async def test_a_server_of_the_ca_with_the_name_is_spoken_to(
    pools: Pools, tmp_path: Path, authority: Authority
) -> None:
    files = write_leaf(tmp_path, authority, "server", dns=("api.example.com",))
    ca = write_root(tmp_path, authority)
    async with tls_app(files) as (app, seen):
        taken = await dial(pools, route(app.port, Origination(ca, sni="api.example.com", alpn="http/1.1")))
        assert (taken.alpn, seen.names) == ("http/1.1", ["api.example.com"])
        taken = await dial(pools, route(app.port, Origination(ca, sni="api.example.com")))
        assert taken.alpn == "", "a service of tcp offers none"


async def test_another_ca_and_another_name_are_refused(pools: Pools, tmp_path: Path, authority: Authority) -> None:
    files = write_leaf(tmp_path, authority, "server", dns=("api.example.com",))
    ca, foreign = write_root(tmp_path, authority), write_root(tmp_path, Authority("foreign"), "foreign")
    async with tls_app(files) as (app, _):
        with pytest.raises(ConnectFailed, match="not for other.example.com"):
            await dial(pools, route(app.port, Origination(ca, sni="other.example.com")))
        with pytest.raises(ConnectFailed, match="certificate verify failed"):
            await dial(pools, route(app.port, Origination(foreign, sni="api.example.com")))
        assert app.requests == []


async def test_without_sni_no_name_is_checked_and_none_sent_unless_the_endpoint_has_one(
    pools: Pools, dns: Names, tmp_path: Path, authority: Authority
) -> None:
    files = write_leaf(tmp_path, authority, "server", dns=("whoever.example.com",))
    origination = Origination(write_root(tmp_path, authority))
    dns.names["api.example.com"] = ("127.0.0.1",)
    pools._dialler.outside.names.follow({"api.example.com"})
    await until(lambda: pools.settled)
    async with tls_app(files) as (app, seen):
        await dial(pools, route(app.port, origination))
        await dial(pools, route(app.port, origination, "api.example.com"))
        assert seen.names == [None, "api.example.com"]


async def test_a_client_certificate_is_shown_to_who_demands_one(
    pools: Pools, tmp_path: Path, authority: Authority
) -> None:
    ours = Authority("of our clients")
    files, ca = write_leaf(tmp_path, authority, "server"), write_root(tmp_path, authority)
    cert, key = write_leaf(tmp_path, ours, "client")
    async with tls_app(files, clients=write_root(tmp_path, ours, "clients")) as (app, _):
        pool = pools._pool("ext", route(app.port, Origination(ca, cert, key)))
        connection = await pool.dial(5.0)
        assert connection.expires == NEVER
        connection.transport.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: bool(app.requests))
        pool.spent(connection)
        await until(lambda: pool.connections == 0)


async def test_a_server_that_speaks_no_tls_or_nothing_does_not_hold_a_caller(
    pools: Pools, tmp_path: Path, authority: Authority
) -> None:
    origination = Origination(write_root(tmp_path, authority))

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.read()

    async with serving(mute) as port:
        with pytest.raises(ConnectTimedOut):
            await dial(pools, route(port, origination), 0.2)
    async with serving(plain) as port:
        with pytest.raises(ConnectFailed):
            await dial(pools, route(port, origination))


# --- names ---------------------------------------------------------------------------------------------------------


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what happens tells nobody
            await asyncio.sleep(0.01)


async def test_of_the_addresses_of_a_name_the_first_that_answers_is_taken(pools: Pools, dns: Names) -> None:
    """Nobody listens at ::1 there, and 127.0.0.3 is not asked when 127.0.0.2 has answered."""
    dns.names["api.example.com"] = ("::1", "127.0.0.2", "127.0.0.3")
    pools._dialler.outside.names.follow({"api.example.com"})
    await until(lambda: pools.settled)
    async with App().running(host="127.0.0.2") as app:
        assert (await dial(pools, route(app.port, None, "api.example.com"))).address == "127.0.0.2"


async def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second(pools: Pools, dns: Names) -> None:
    dns.names["api.example.com"] = ("127.0.0.2", "127.0.0.1")
    pools._dialler.outside.names.follow({"api.example.com"})
    await until(lambda: pools.settled)
    async with App().running() as app, silent("127.0.0.2", app.port):
        assert (await dial(pools, route(app.port, None, "api.example.com"), 4.0)).address == "127.0.0.1"


@contextlib.asynccontextmanager
async def silent(host: str, port: int) -> AsyncIterator[None]:
    """Let an address swallow connection attempts: a listening socket whose queue is full."""
    import socket

    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect((host, port))
        await asyncio.sleep(0.05)
        yield


def cluster(*endpoints: Endpoint, strict: bool = False) -> Cluster:
    chosen = dialled(endpoints, strict=strict)
    return Cluster(
        target="ext.default.default.dc1",
        service="ext",
        subset="",
        datacenter="dc1",
        sni="",
        spiffe_id=None,
        endpoints=chosen,
        balancer=LoadBalancer(),
        connect_timeout=2.0,
        chooser=build(chosen, LoadBalancer()),
        strict_dns=strict,
    )


@pytest.mark.parametrize("strict", [False, True])
async def test_a_name_without_an_address_fails_when_it_is_dialled_and_is_nobodys_failure(
    pools: Pools, dns: Names, *, strict: bool
) -> None:
    async with App().running() as app:
        named = cluster(Endpoint("n/1", "api.example.com", app.port), strict=strict)
        list(pools.steps([named]))
        assert not pools.settled
        await until(lambda: pools.settled)
        held = pools.of_cluster(named)
        with pytest.raises(ConnectFailed, match="api.example.com: no address is known"):
            await held.choose().dial(2.0)
        assert not held.choose().troubled
        assert pools.problems[0].where == "host name api.example.com"
        dns.names["api.example.com"] = ("127.0.0.1",)
        await until(lambda: pools.problems == ())
        pool = held.choose()
        assert pool.route.host == "api.example.com"
        pool.spent(await pool.dial(2.0))
        await until(lambda: pool.connections == 0)


async def test_warm_connections_to_an_address_that_left_dns_are_not_used_again(pools: Pools, dns: Names) -> None:
    dns.names["api.example.com"] = ("127.0.0.1",)
    async with App().running() as app:
        named = cluster(Endpoint("n/1", "api.example.com", app.port))
        list(pools.steps([named]))
        await until(lambda: pools.settled)
        pool = pools.of_cluster(named).choose()
        idle, busy = await pool.dial(2.0), await pool.dial(2.0)
        pool.release(idle)
        assert pool.idle == [idle]
        dns.names["api.example.com"] = ("127.0.0.2",)
        await until(lambda: pool.idle == [] and idle.closed)
        assert not busy.closed
        pool.release(busy)
        assert pool.idle == []
        await until(lambda: pool.connections == 0)


async def test_with_strict_dns_every_address_has_its_turn_and_leaves_with_dns(pools: Pools, dns: Names) -> None:
    dns.names["api.example.com"] = ("127.0.0.1", "127.0.0.2")
    named = cluster(Endpoint("n/1", "api.example.com", 80), Endpoint("n/2", "10.9.9.9", 80), strict=True)
    list(pools.steps([named]))
    await until(lambda: pools.settled)
    chosen = {pools.of_cluster(named).choose().route for _ in range(4)}
    assert {(one.address, one.host) for one in chosen} == {
        ("127.0.0.1", "api.example.com"),
        ("127.0.0.2", "api.example.com"),
    }
    list(pools.steps([replace(named, connect_timeout=3.0), named]))
    assert len(pools._pools) == 2, "another table takes nothing away"
    dns.names["api.example.com"] = ("127.0.0.2",)
    await until(lambda: len(pools._pools) == 1)
    assert pools.of_cluster(named).choose().route.address == "127.0.0.2"


async def test_a_dialler_without_a_leaf_reaches_the_outside(dns: Names) -> None:
    """The outside does not ask who in the mesh we are."""
    clock = Clock(asyncio.get_running_loop())
    async with App().running() as app:
        taker = Taker()
        await Dialler(Live(), clock, dns).connect(route(app.port, None), 2.0, lambda *_: taker)
        assert taker.address == "127.0.0.1"


async def test_each_endpoint_is_told_its_own_name_as_host(authority: Authority) -> None:
    """Of several names one is chosen before the request is written; a dead one is not replaced by another's."""
    dns = Names({"one.example.com": ("127.0.0.1",), "two.example.com": ("127.0.0.1",)})
    config = {"envoy_dns_discovery_type": "STRICT_DNS"}
    (dead,) = free_ports(1)
    async with App().running() as one, App().running() as two:
        member = terminating("egress", authority, [{"Name": "ext"}], config=config)
        link(member, "ext", intentions=[intention("web", "ext", "allow")])
        rows = [(one.port, "one"), (two.port, "two"), (dead, "two")]
        member.hear(
            OutsideWatch("ext"),
            [outside("ext", port, n, Address=f"{name}.example.com") for n, (port, name) in enumerate(rows)],
        )
        async with half(member, dns) as gate:
            await until(lambda: gate.dataplane.settled)
            name = f"ext.default.dc1.internal.{TRUST_DOMAIN}"
            async with await Wire.open(gate.port("egress"), client_context(authority, "web"), name) as wire:
                for _ in range(6):
                    assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: ext\r\n\r\n")).status == 200
        assert {asked.get("host") for asked in one.requests} == {"one.example.com"}
        assert {asked.get("host") for asked in two.requests} == {"two.example.com"}
        assert len(one.requests) + len(two.requests) == 6


async def test_tcp_goes_out_by_tls_too_and_nowhere_when_the_certificate_is_another(
    authority: Authority, tmp_path: Path
) -> None:
    others = Authority("outside")
    files, ca = write_leaf(tmp_path, others, "server", dns=("db.example.com",)), write_root(tmp_path, others)
    context, seen = server_context(files)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data)

    name = f"ext.default.dc1.internal.{TRUST_DOMAIN}"
    for sni, said in (("db.example.com", b"ping"), ("other.example.com", b"")):
        async with serving(echo, context=context) as port:
            member = terminating("egress", authority, [{"Name": "ext", "CAFile": ca, "SNI": sni}])
            link(member, "ext", [port], protocol="tcp", intentions=[intention("web", "ext", "allow")])
            async with half(member) as gate:
                async with await Wire.open(gate.port("egress"), client_context(authority, "web"), name) as wire:
                    await wire.send(b"ping")
                    assert await wire.read() == said
    assert seen.names == ["db.example.com", "other.example.com"], "and nothing in plaintext"
