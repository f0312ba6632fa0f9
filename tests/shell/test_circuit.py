"""The circuit breaker: what is over a limit of the upstream is refused or waits, as under Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from harness.certificates import Authority
from harness.halves import Half, Pair, pair
from harness.meshes import Json, chain, instance
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, echo_server
from lictor.up.ports import free_ports
from policies.watches import EndpointsWatch, RegistrationWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
TARGET = "api.default.default.dc1"
OVERFLOW = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"


class Slow:
    """An app that answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.app = App(self._answer)

    async def _answer(self, side: Side, message: Message) -> bytes:
        del side, message
        await self.gate.wait()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def limited(
    authority: Authority, app_port: int, limits: Json, answer: Json | None = None, protocol: str = "http"
) -> AsyncIterator[Pair]:
    """Run a pair whose caller has limits for its upstream."""
    async with pair(authority, app_port, chain=answer, protocol=protocol) as p:
        limit(p.web, limits)
        yield p


def limit(web: Half, limits: Json) -> None:
    """Write other limits."""
    watch = RegistrationWatch(web.member.proxy_id)
    registration = web.member.answers[watch]
    registration["Proxy"]["Upstreams"][0]["Config"] = {"limits": limits}
    web.member.hear(watch, registration)
    web.follow()


def overflows(web: Half) -> dict[str, int]:
    return dict(web.metrics.for_upstream(TARGET).overflows)


def settled(web: Half) -> bool:
    """Return whether nothing is counted that is not there."""
    target = web.dataplane.pools._targets[TARGET]
    pools = [pool for (name, _), pool in web.dataplane.pools._pools.items() if name == TARGET]
    circuit = target.circuit
    return (circuit.pending, circuit.active, sum(pool.active for pool in pools)) == (0, 0, 0) and (
        circuit.connections == sum(pool.connections for pool in pools) == sum(len(pool.idle) for pool in pools)
    )


async def test_a_request_over_max_concurrent_requests_is_refused_at_once(authority: Authority) -> None:
    slow = Slow()
    async with slow.app.running(), limited(authority, slow.app.port, {"max_concurrent_requests": 1}) as p:
        async with await Wire.open(p.port) as first, await Wire.open(p.port) as second:
            await first.send(GET)
            await eventually(lambda: slow.app.requests)
            answer = await second.ask(GET)
            assert (answer.status, answer.body, answer.get("x-lictor-reason")) == (503, OVERFLOW, "overflow")
            slow.gate.set()
            assert (await first.answer()).status == 200
            assert (await second.ask(GET)).status == 200
        assert overflows(p.web) == {"concurrent_requests": 1}
        assert settled(p.web)


async def test_a_request_over_max_connections_waits_for_one_and_more_than_may_wait_are_refused(
    authority: Authority,
) -> None:
    slow = Slow()
    limits = {"max_connections": 1, "max_pending_requests": 1}
    async with slow.app.running(), limited(authority, slow.app.port, limits) as p:
        async with await Wire.open(p.port) as one, await Wire.open(p.port) as two, await Wire.open(p.port) as three:
            await one.send(GET)
            await eventually(lambda: slow.app.requests)
            await two.send(GET)
            circuit = p.web.dataplane.pools._targets[TARGET].circuit
            await eventually(lambda: circuit.pending == 1)
            assert (await three.ask(GET)).body == OVERFLOW
            slow.gate.set()
            assert [(await wire.answer()).status for wire in (one, two)] == [200, 200]
            assert (await three.ask(GET)).status == 200
        assert p.web.metrics.for_upstream(TARGET).connections == 1
        assert overflows(p.web) == {"pending_requests": 1}
        assert settled(p.web)


async def test_who_waits_for_a_connection_waits_no_longer_than_for_an_answer_and_leaves_no_trace(
    authority: Authority,
) -> None:
    answer = chain("api")
    answer["Nodes"][f"resolver:{TARGET}"]["Resolver"]["RequestTimeout"] = "1s"
    slow = Slow()
    async with slow.app.running(), limited(authority, slow.app.port, {"max_connections": 1}, answer) as p:
        circuit = p.web.dataplane.pools._targets[TARGET].circuit
        async with await Wire.open(p.port) as one:
            await one.send(GET)
            await eventually(lambda: slow.app.requests)
            async with await Wire.open(p.port) as two:
                await two.send(GET)
                await eventually(lambda: circuit.pending == 1)
            await eventually(lambda: circuit.pending == 0)  # the second caller has left
            async with await Wire.open(p.port) as three:
                assert (await three.ask(GET)).status == 504
            assert (await one.answer()).status == 504
        await eventually(lambda: settled(p.web))
        slow.gate.set()
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 200
        assert settled(p.web)


async def test_a_connection_that_ends_makes_place_for_who_waits(authority: Authority) -> None:
    gate = asyncio.Event()

    async def once(side: Side, message: Message) -> bytes | None:
        if len(side.app.requests) == 1:
            await gate.wait()
            return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with App(once).running() as app, limited(authority, app.port, {"max_connections": 1}) as p:
        async with await Wire.open(p.port) as one, await Wire.open(p.port) as two:
            await one.send(GET)
            await eventually(lambda: app.requests)
            await two.send(GET)
            circuit = p.web.dataplane.pools._targets[TARGET].circuit
            await eventually(lambda: circuit.pending == 1)
            for listener in p.api.dataplane.listeners.values():
                for connection in tuple(listener.connections):
                    connection.drain()  # the called sidecar closes after this answer
            gate.set()
            assert [(await wire.answer()).status for wire in (one, two)] == [200, 200]
        assert p.web.metrics.for_upstream(TARGET).connections == 2
        await eventually(lambda: settled(p.web))


async def test_who_waits_for_an_endpoint_that_is_dying_does_not_wait_on(authority: Authority) -> None:
    slow = Slow()
    async with slow.app.running(), limited(authority, slow.app.port, {"max_connections": 1}) as p:
        async with await Wire.open(p.port) as one, await Wire.open(p.port) as two, await Wire.open(p.port) as three:
            await one.send(GET)
            await eventually(lambda: slow.app.requests)
            circuit = p.web.dataplane.pools._targets[TARGET].circuit
            for number, wire in enumerate((two, three), 1):
                await wire.send(GET)
                await eventually(lambda number=number: circuit.pending == number)
            await p.api.dataplane.drain(0.05)
            assert {(await wire.answer()).status for wire in (one, two, three)} == {503}
        await eventually(lambda: settled(p.web))


async def test_zero_pending_lets_nobody_wait_not_even_for_a_new_connection(authority: Authority) -> None:
    async with App().running() as app, limited(authority, app.port, {"max_pending_requests": 0}) as p:
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).body == OVERFLOW
            limit(p.web, {})
            assert (await wire.ask(GET)).status == 200
            limit(p.web, {"max_pending_requests": 0})
            assert (await wire.ask(GET)).status == 200, "over the warm connection, which outlives a change of limits"


async def test_zero_connections_leave_each_endpoint_one_and_zero_requests_none(authority: Authority) -> None:
    async with App().running() as app, limited(authority, app.port, {"max_connections": 0}) as p:
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 200
            limit(p.web, {"max_concurrent_requests": 0})
            assert (await wire.ask(GET)).body == OVERFLOW
        assert settled(p.web)


async def test_a_limit_is_that_of_the_upstream_not_of_an_endpoint(authority: Authority) -> None:
    slow = Slow()
    async with slow.app.running(), limited(authority, slow.app.port, {"max_concurrent_requests": 1}) as p:
        port = p.api.port("inbound")
        rows = [instance("api", port, 1), instance("api", port, 2, Address="127.0.0.2")]
        p.web.member.hear(EndpointsWatch("api"), rows)
        p.web.follow()
        async with await Wire.open(p.port) as one, await Wire.open(p.port) as two:
            await one.send(GET)
            await eventually(lambda: slow.app.requests)
            assert (await two.ask(GET)).body == OVERFLOW
            slow.gate.set()
            await one.answer()


async def test_over_max_concurrent_requests_nobody_waits_while_a_connection_is_idle(authority: Authority) -> None:
    slow = Slow()
    limits = {"max_connections": 2, "max_concurrent_requests": 1}
    async with slow.app.running(), limited(authority, slow.app.port, limits) as p:
        port = p.api.port("inbound")
        rows = [instance("api", port, 1), instance("api", port, 2, Address="localhost")]
        p.web.member.hear(EndpointsWatch("api"), rows)
        p.web.follow()
        async with await Wire.open(p.port) as one, await Wire.open(p.port) as two:
            slow.gate.set()
            for _ in range(2):
                assert (await one.ask(GET)).status == 200
            slow.gate.clear()
            await one.send(GET)
            await eventually(lambda: len(slow.app.requests) == 3)
            assert (await two.ask(GET)).body == OVERFLOW, "by the connection to the other endpoint, which is idle"
            slow.gate.set()
            await one.answer()
        assert settled(p.web)


async def test_who_is_refused_at_one_endpoint_takes_the_idle_connection_to_another(authority: Authority) -> None:
    async with App().running() as app, limited(authority, app.port, {"max_connections": 1}) as p:
        rows = [instance("api", p.api.port("inbound"), 1), instance("api", free_ports(1)[0], 2)]
        p.web.member.hear(EndpointsWatch("api"), rows)
        p.web.follow()
        async with await Wire.open(p.port) as wire:
            for _ in range(4):
                assert (await wire.ask(GET)).status == 200
        assert p.web.metrics.for_upstream(TARGET).connections == 1
        assert settled(p.web)


async def test_tcp_connections_over_the_limit_are_closed(authority: Authority) -> None:
    async with echo_server() as app, limited(authority, app, {"max_connections": 1}, protocol="tcp") as p:
        async with await Wire.open(p.port) as one:
            await one.send(b"x")
            assert await one.read() == b"x"
            async with await Wire.open(p.port) as two:
                assert await two.rest() == b""
        assert overflows(p.web) == {"connections": 1}
        await eventually(lambda: settled(p.web))
        async with await Wire.open(p.port) as wire:
            await wire.send(b"y")
            assert await wire.read() == b"y"
        await eventually(lambda: settled(p.web))


async def test_tcp_places_are_given_back_when_nobody_answers(authority: Authority) -> None:
    async with echo_server() as app, limited(authority, app, {"max_connections": 1}, protocol="tcp") as p:
        p.web.member.hear(EndpointsWatch("api"), [instance("api", free_ports(1)[0])])
        p.web.follow()
        for _ in range(2):
            async with await Wire.open(p.port) as wire:
                assert await wire.rest() == b""
        assert overflows(p.web) == {}
        assert settled(p.web)
