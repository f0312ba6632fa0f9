"""tcp through a pair: bytes, ends of direction, denials, revocations."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from harness.certificates import Authority, client_context
from harness.halves import Pair, pair
from harness.meshes import chain, instance, intention
from harness.servers import eventually
from harness.wire import Wire, echo_server
from lictor.up.ports import free_ports
from policies.watches import EndpointsWatch, IntentionsWatch, RegistrationWatch


async def test_bytes_go_both_ways_and_each_end_of_direction_is_passed_on(authority: Authority) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p, await Wire.open(p.port) as wire:
        await wire.send(b"hello")
        assert await wire.read() == b"hello"
        wire.writer.write_eof()
        assert await wire.rest() == b"bye"
    counts = p.api.metrics.for_listener("inbound")
    assert (counts.bytes_in, counts.bytes_out) == (5, 8)


async def test_a_lot_of_bytes_arrive_whole(authority: Authority) -> None:
    block = bytes(range(256)) * 256
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p, await Wire.open(p.port) as wire:

        async def pour() -> None:
            for _ in range(200):
                await wire.send(block)
            wire.writer.write_eof()

        pouring = asyncio.create_task(pour())
        assert await wire.rest() == block * 200 + b"bye"
        await pouring


async def test_a_server_that_speaks_first_is_heard(authority: Authority) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with pair(authority, port, protocol="tcp") as p, await Wire.open(p.port) as wire:
        assert await wire.read() == b"220 ready\r\n"
    server.close()


async def test_a_denied_caller_is_closed_without_a_byte(authority: Authority) -> None:
    rows = [intention("web", "api", "deny")]
    async with echo_server() as port, pair(authority, port, protocol="tcp", intentions=rows) as p:
        async with await Wire.open(p.port) as wire:
            await wire.send(b"hello")
            assert await wire.rest() == b""
        assert p.api.metrics.for_listener("inbound").denied == 1


async def test_a_caller_that_is_denied_again_and_again_fills_no_log(authority: Authority) -> None:
    rows = [intention("web", "api", "deny")]
    async with pair(authority, 9, protocol="tcp", intentions=rows) as p:
        with capture_logs() as logs:
            for _ in range(5):
                async with await Wire.open(p.port) as wire:
                    assert await wire.rest() == b""
        assert p.api.metrics.for_listener("inbound").denied == 5
        assert [(one["source"], one["untold"]) for one in logs if one["event"] == "tcp_denied"] == [("web", 0)]


async def test_http_permissions_never_allow_tcp(authority: Authority) -> None:
    rows = [intention("web", "api", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}])]
    async with echo_server() as port, pair(authority, port, protocol="tcp", intentions=rows) as p:
        async with await Wire.open(p.port) as wire:
            assert await wire.rest() == b""


async def test_a_revoked_intention_closes_live_connections_of_that_source_and_no_others(authority: Authority) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p:
        web = await Wire.open(p.port)
        other = await Wire.open(p.api.port("inbound"), client_context(authority, "other"))
        for wire in (web, other):
            await wire.send(b"x")
            assert await wire.read() == b"x"
        p.api.member.hear(IntentionsWatch("api"), [intention("web", "api", "deny"), intention("*", "api", "allow")])
        p.api.follow()
        assert await web.rest() == b""
        await other.send(b"y")
        assert await other.read() == b"y"
        assert p.api.metrics.for_listener("inbound").revoked == {"connection": 1}
        await web.close()
        await other.close()


async def test_a_revoked_intention_closes_connections_of_a_listener_that_is_being_drained_too(
    authority: Authority,
) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p, await Wire.open(p.port) as wire:
        await wire.send(b"x")
        assert await wire.read() == b"x"
        member = p.api.member
        watch = RegistrationWatch(member.proxy_id)
        member.hear(watch, {**member.answers[watch], "Port": free_ports(1)[0]})
        p.api.follow(drain_seconds=60)
        await wire.send(b"y")
        assert await wire.read() == b"y"
        member.hear(IntentionsWatch("api"), [intention("web", "api", "deny")])
        p.api.follow()
        assert await wire.rest() == b""


async def test_an_app_that_is_not_there_closes_the_caller(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with pair(authority, port, protocol="tcp") as p, await Wire.open(p.port) as wire:
        assert await wire.rest() == b""


async def test_an_app_at_an_address_that_is_no_host_name_closes_the_caller(authority: Authority) -> None:
    async with pair(authority, 1, protocol="tcp") as p:
        own = RegistrationWatch(p.api.member.proxy_id)
        answer = p.api.member.answers[own]
        p.api.member.hear(own, {**answer, "Proxy": {**answer["Proxy"], "LocalServiceAddress": "a..b"}})
        p.api.follow()
        async with await Wire.open(p.port) as wire:
            assert await wire.rest() == b""


async def test_a_dead_endpoint_is_passed_over(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p:
        rows = [instance("api", dead, 1), instance("api", p.api.port("inbound"), 2)]
        p.web.member.hear(EndpointsWatch("api"), rows)
        p.web.follow()
        for _ in range(4):
            async with await Wire.open(p.port) as wire:
                await wire.send(b"x")
                assert await wire.read() == b"x"


async def test_with_nobody_there_the_caller_is_closed(authority: Authority) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp", chain=chain("api", "tcp")) as p:
        p.web.member.hear(EndpointsWatch("api"), [])
        p.web.follow()
        async with await Wire.open(p.port) as wire:
            assert await wire.rest() == b""


async def test_a_caller_that_leaves_ends_the_other_side_too(authority: Authority) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p:
        wire = await Wire.open(p.port)
        await wire.send(b"x")
        assert await wire.read() == b"x"
        wire.writer.transport.abort()
        await wire.close()
        counts = p.api.metrics.for_listener("inbound")
        await eventually(lambda: counts.closed == 1)


async def _hold(p: Pair) -> Wire:
    wire = await Wire.open(p.port)
    await wire.send(b"x")
    assert await wire.read() == b"x"
    return wire


@pytest.mark.parametrize(("seconds", "whole"), [(5.0, True), (0.1, False)])
async def test_a_drain_waits_for_connections_as_long_as_it_is_told(
    authority: Authority,
    seconds: float,
    whole: bool,  # noqa: FBT001
) -> None:
    async with echo_server() as port, pair(authority, port, protocol="tcp") as p:
        wire = await _hold(p)
        draining = asyncio.create_task(p.web.dataplane.drain(seconds))
        await asyncio.sleep(0)
        if whole:
            await wire.send(b"y")
            assert await wire.read() == b"y"
            wire.writer.write_eof()
            assert await wire.rest() == b"bye"
        assert await draining is whole
        await wire.close()
