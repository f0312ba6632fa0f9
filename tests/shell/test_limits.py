"""Timeouts and limits. The clock is moved by hand: what it says is an attribute."""

from __future__ import annotations

import asyncio

import pytest

from dataplane import pool
from dataplane.downstream import Downstream
from harness.certificates import Authority, client_context
from harness.halves import Half, pair
from harness.meshes import chain
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire
from policies.protection import INSIDE
from policies.watches import RegistrationWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"


def later(half: Half, seconds: float) -> None:
    """Let every deadline within the next `seconds` pass."""
    for listener in half.dataplane.listeners.values():
        for connection in tuple(listener.connections):
            if isinstance(connection, Downstream) and connection.deadline <= half.dataplane.clock.now + seconds:
                connection.expire()


async def test_a_head_that_does_not_end_is_a_408(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost:")
        counts = p.web.metrics.for_listener("upstream:api")
        await eventually(lambda: counts.accepted and _deadlines(p.web))
        later(p.web, INSIDE.head_timeout)
        answer = await wire.answer()
        assert (answer.status, answer.get("x-lictor-reason")) == (408, "head_timeout")
        assert await wire.rest() == b""


async def test_dripping_bytes_do_not_put_off_the_end(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(b"GET / HTTP/1.1\r\n")
        await eventually(lambda: _deadlines(p.web))
        first = _deadlines(p.web)
        for byte in b"Host: a":
            await wire.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert _deadlines(p.web) == first


def _deadlines(half: Half) -> list[float]:
    limit = half.dataplane.clock.now + INSIDE.head_timeout + 1
    found = [
        connection.deadline
        for listener in half.dataplane.listeners.values()
        for connection in listener.connections
        if isinstance(connection, Downstream)
    ]
    return [deadline for deadline in found if deadline < limit]


async def test_an_idle_connection_is_closed(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(GET)).status == 200
        later(p.web, INSIDE.idle_timeout + 1)
        assert await wire.rest() == b""


async def test_an_idle_upstream_connection_is_closed_and_replaced(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(GET)).status == 200
        (idle,) = [one for made in p.web.dataplane.pools._pools.values() for one in made.idle]
        assert idle.deadline <= p.web.dataplane.clock.now + pool.IDLE_SECONDS
        idle.expire()
        await eventually(lambda: p.api.metrics.for_listener("inbound").closed == 1)
        assert (await wire.ask(GET)).status == 200


async def test_a_routes_request_timeout_is_a_504_of_the_caller(authority: Authority) -> None:
    async def never(side: Side, message: Message) -> bytes:
        await asyncio.sleep(30)
        return b""

    answer = chain("api")
    resolver = answer["Nodes"]["resolver:api.default.default.dc1"]["Resolver"]
    resolver["RequestTimeout"] = "300ms"
    async with App(never).running() as app, pair(authority, app.port, chain=answer) as p:
        async with await Wire.open(p.port) as wire:
            got = await wire.ask(GET)
            assert (got.status, got.body) == (504, b"upstream request timeout")
            assert p.web.reasons() == {"request_timeout": 1}


async def test_a_timeout_in_the_middle_of_an_answer_cuts_it(authority: Authority) -> None:
    async def half_an_answer(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await asyncio.sleep(30)
        return b""

    async with App(half_an_answer).running() as app:
        config = {"local_request_timeout_ms": 300}
        async with pair(authority, app.port, config=config) as p, await Wire.open(p.port) as wire:
            await wire.send(GET)
            assert (await wire.rest()).endswith(b"\r\n\r\nhalf")
            assert p.api.reasons() == {"cut_answer": 1}


async def test_an_app_that_stays_idle_is_given_up_where_a_limit_is_set(authority: Authority) -> None:
    async def never(side: Side, message: Message) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with App(never).running() as app, pair(authority, app.port, config={"local_idle_timeout_ms": 300}) as p:
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 504
            assert p.api.reasons() == {"stream_timeout": 1}


async def test_connections_beyond_the_limit_are_closed_at_once_and_others_after_one_ended(
    authority: Authority,
) -> None:
    config = {"max_inbound_connections": 1}
    context = client_context(authority, "web")
    async with App().running() as app, pair(authority, app.port, config=config) as p:
        inbound = p.api.port("inbound")
        async with await Wire.open(inbound, context) as first:
            assert (await first.ask(GET)).status == 200
            with pytest.raises(OSError):  # noqa: PT011 - reset or ended, as the handshake goes
                await Wire.open(inbound, context)
            async with await Wire.open(p.port) as wire:
                refused = await wire.ask(GET)
                assert (refused.status, refused.get("x-lictor-reason")) == (503, "remote_connection_failure")
            assert p.api.refused()["max_connections"] >= 2
            assert (await first.ask(GET)).status == 200
        async with await Wire.open(p.port) as wire:
            await eventually(lambda: _served(wire))


async def _served(wire: Wire) -> bool:
    return (await wire.ask(GET)).status == 200


async def test_a_limit_that_is_raised_is_in_force_at_once(authority: Authority) -> None:
    context = client_context(authority, "web")
    async with App().running() as app, pair(authority, app.port, config={"max_inbound_connections": 1}) as p:
        async with await Wire.open(p.api.port("inbound"), context) as first:
            assert (await first.ask(GET)).status == 200
            member = p.api.member
            watch = RegistrationWatch(member.proxy_id)
            proxy = {**member.answers[watch]["Proxy"], "Config": {"protocol": "http", "max_inbound_connections": 2}}
            member.hear(watch, {**member.answers[watch], "Proxy": proxy})
            p.api.follow()
            async with await Wire.open(p.api.port("inbound"), context) as second:
                assert (await second.ask(GET)).status == 200
