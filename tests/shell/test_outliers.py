"""Ejection, half-open re-admission and failover, seen from a caller whose endpoints die, fail and return."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from dataplane.live import Generation
from harness.certificates import Authority
from harness.halves import Half, half
from harness.meshes import Json, Member, chain, instance, sidecar, target_row
from harness.wire import App, Message, Side, Wire, echo_server, raw, say
from lictor.up.ports import free_ports
from policies.watches import ChainWatch, EndpointsWatch, IntentionsWatch, RegistrationWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
TARGET = "api.default.default.dc1"
ANY = {"max_ejection_percent": 100}


@contextlib.asynccontextmanager
async def endpoint(authority: Authority, app_port: int, port: int = 0, protocol: str = "http") -> AsyncIterator[Half]:
    """Run a sidecar of api; `port` 0 is any."""
    member = sidecar("api", authority, port=port, local_port=app_port, protocol=protocol)
    member.hear(IntentionsWatch("api"), [{"SourceName": "*", "DestinationName": "api", "Action": "allow"}])
    async with half(member) as running:
        yield running


@contextlib.asynccontextmanager
async def caller(
    authority: Authority, ports: list[int], health: Json | None = None, answer: Json | None = None
) -> AsyncIterator[Half]:
    (port,) = free_ports(1)
    web: Member = sidecar("web", authority, upstreams={"api": port})
    registration = web.answers[RegistrationWatch(web.proxy_id)]
    registration["Proxy"]["Upstreams"][0]["Config"] = {"passive_health_check": health or {}}
    web.hear(RegistrationWatch(web.proxy_id), registration)
    web.hear(ChainWatch("api", "api"), answer or chain("api"))
    web.hear(EndpointsWatch("api"), [instance("api", one, number) for number, one in enumerate(ports, 1)])
    async with half(web) as running:
        yield running


async def ask(web: Half, rounds: int, request: bytes = GET) -> Counter[Any]:
    """Return the bodies of good answers and the statuses of others."""
    found: Counter[Any] = Counter()
    async with await Wire.open(web.port("upstream")) as wire:
        for _ in range(rounds):
            answer = await wire.ask(request)
            found[answer.body.decode() if answer.status == 200 else answer.status] += 1
    return found


def out(web: Half) -> dict[str, str]:
    """Return the ejected endpoints and why."""
    rows: Any = web.dataplane.pools.describe()
    return {row["endpoint"]: row["ejected"]["because"] for row in rows if "ejected" in row}


def time_is_over(web: Half) -> None:
    """Let every ejected endpoint have its trial with the next request that falls to it."""
    for target in web.dataplane.pools._targets.values():
        for pool in target.outliers.out:
            target.outliers._put(pool, replace(target.outliers.of(pool), until=0.0))
        target.outliers._next_trial()


async def test_an_endpoint_that_takes_no_connection_is_left_out_and_found_again(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with App(say(b"one")).running() as one, App(say(b"two")).running() as two:
        async with endpoint(authority, one.port) as first:
            async with caller(authority, [first.port("inbound"), dead]) as web:
                counts = web.metrics.for_upstream(TARGET)
                assert await ask(web, 40) == {"one": 40}
                assert counts.connect_failures == 5, "nobody asks it before its time"
                assert out(web) == {f"127.0.0.1:{dead}": "connect_failures"}
                assert (counts.ejected, dict(counts.ejections)) == (1, {"connect_failures": 1})
                time_is_over(web)
                assert await ask(web, 4) == {"one": 4}, "a trial that fails harms no request"
                assert (counts.ejections["connect_failures"], counts.connect_failures) == (2, 6)
                async with endpoint(authority, two.port, dead):
                    assert await ask(web, 4) == {"one": 4}
                    time_is_over(web)
                    assert await ask(web, 4) == {"one": 2, "two": 2}
                    assert out(web) == {}
                    assert counts.ejected == 0
    text = web.metrics.render().decode()
    assert f'lictor_upstream_ejections_total{{cause="connect_failures",target="{TARGET}"}} 2.0\n' in text
    assert f'lictor_upstream_ejected{{target="{TARGET}"}} 0.0\n' in text


async def test_answers_of_5xx_eject_within_the_percentage_and_a_failed_trial_for_longer(authority: Authority) -> None:
    async with App(say(b"", b"500 Oops")).running() as bad, App(say(b"good")).running() as good:
        async with endpoint(authority, bad.port) as one, endpoint(authority, good.port) as two:
            ports = [one.port("inbound"), two.port("inbound")]
            async with caller(authority, ports, {"max_ejection_percent": 50}) as web:
                assert await ask(web, 10) == {"good": 5, 500: 5}
                assert out(web) == {f"127.0.0.1:{ports[0]}": "consecutive_5xx"}
                assert await ask(web, 6) == {"good": 6}
                time_is_over(web)
                assert await ask(web, 6) == {"good": 5, 500: 1}, "one trial"
                bad.behaviour = say(b"well")
                time_is_over(web)
                assert await ask(web, 6) == {"good": 3, "well": 3}
                assert out(web) == {}
            async with caller(authority, ports) as web:  # ten percent of two
                bad.behaviour = say(b"", b"500 Oops")
                assert await ask(web, 20) == {"good": 10, 500: 10}


async def test_an_app_that_is_gone_counts_like_an_endpoint_that_is(authority: Authority) -> None:
    (gone,) = free_ports(1)
    async with App(say(b"good")).running() as good:
        async with endpoint(authority, gone) as one, endpoint(authority, good.port) as two:
            async with caller(authority, [one.port("inbound"), two.port("inbound")]) as web:
                assert (await ask(web, 10))["good"] >= 5
                assert out(web) == {f"127.0.0.1:{one.port('inbound')}": "connect_failures"}
                assert await ask(web, 6) == {"good": 6}


async def test_a_connection_that_ends_without_an_answer_is_a_failure(authority: Authority) -> None:
    async def hang_up(side: Side, message: Message) -> None:
        del side, message

    async with App(hang_up).running() as bad, App(say(b"good")).running() as good:
        async with endpoint(authority, bad.port) as one, endpoint(authority, good.port) as two:
            async with caller(authority, [one.port("inbound"), two.port("inbound")], ANY) as web:
                await ask(web, 10)
                assert out(web) == {f"127.0.0.1:{one.port('inbound')}": "consecutive_5xx"}


async def test_an_answer_that_is_not_http_is_a_failure_too(authority: Authority) -> None:
    async with App(raw(b"garbage\r\n\r\n")).running() as bad, endpoint(authority, bad.port) as one:
        async with caller(authority, [one.port("inbound")], ANY) as web:
            assert await ask(web, 3) == {502: 3}
            assert failures(web, TARGET) == 3
        assert failures(one, "local_app") == 3


def failures(half: Half, name: str) -> int:
    """Return the length of the row of failures of a target's only endpoint."""
    outliers = half.dataplane.pools._targets[name].outliers
    (known,) = outliers._known.values()
    return known.failures


async def test_when_all_are_dead_the_answer_is_503_at_once_and_the_first_to_return_is_found(
    authority: Authority,
) -> None:
    ports = free_ports(3)
    async with App(say(b"back")).running() as app:
        async with caller(authority, ports) as web:
            assert await ask(web, 30) == {503: 30}
            assert len(out(web)) < 3, "the last one stays"
            async with endpoint(authority, app.port, ports[2]):
                # Whoever stays is not the one that returned: all that fail are taken back, and each has its turn.
                found = await ask(web, 12)
            assert found["back"] >= 6, found


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_nobody_waits_longer_than_the_connect_timeout_for_endpoints_that_say_nothing(
    authority: Authority, protocol: str
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    answer = chain("api", protocol)
    answer["Nodes"][f"resolver:{TARGET}"]["Resolver"]["ConnectTimeout"] = "300ms"
    answer["Targets"][TARGET]["ConnectTimeout"] = "300ms"
    with contextlib.closing(await asyncio.start_server(say_nothing, "127.0.0.1", 0)) as server:
        port = server.sockets[0].getsockname()[1]
        async with caller(authority, [port], answer=answer) as web:
            silent = [instance("api", port, 1), instance("api", port, 2, Address="localhost")]
            web.member.hear(EndpointsWatch("api"), silent)
            web.follow()
            async with await Wire.open(web.port("upstream")) as wire:
                if protocol == "http":
                    assert (await wire.ask(GET)).body.endswith(b"reset reason: connection timeout")
                else:
                    assert await wire.rest() == b""
            assert web.metrics.for_upstream(TARGET).connect_failures == 1, "one wait, not one for each"


async def test_failover_at_run_time_and_back(authority: Authority) -> None:
    (primary,) = free_ports(1)
    backup_row, answer = target_row("backup"), chain("api")
    answer["Targets"][backup_row["ID"]] = backup_row
    answer["Nodes"][f"resolver:{TARGET}"]["Resolver"]["Failover"] = {"Targets": [backup_row["ID"]]}
    async with contextlib.AsyncExitStack() as stack:
        main = await stack.enter_async_context(App(say(b"main")).running())
        spare = await stack.enter_async_context(App(say(b"spare")).running())
        (spare_port,) = free_ports(1)
        member = sidecar("backup", authority, port=spare_port, local_port=spare.port)
        member.hear(IntentionsWatch("backup"), [{"SourceName": "*", "DestinationName": "backup", "Action": "allow"}])
        second = await stack.enter_async_context(half(member))
        web = await stack.enter_async_context(caller(authority, [primary], None, answer))
        web.member.hear(EndpointsWatch("backup"), [instance("backup", second.port("inbound"))])
        web.follow()
        assert await ask(web, 6) == {"spare": 6}
        assert out(web) == {f"127.0.0.1:{primary}": "connect_failures"}, "the last one goes: another stands in"
        async with endpoint(authority, main.port, primary):
            assert await ask(web, 2) == {"spare": 2}
            time_is_over(web)
            assert await ask(web, 3) == {"main": 3}
            await second.dataplane.drain(0.05)  # the backup is gone, and nobody minds
            assert await ask(web, 5) == {"main": 5}
        assert await ask(web, 8) == {503: 8}
        counts = web.metrics.for_upstream(TARGET)
        member = sidecar("backup", authority, port=spare_port, local_port=spare.port)
        member.hear(IntentionsWatch("backup"), [{"SourceName": "*", "DestinationName": "backup", "Action": "allow"}])
        async with half(member):
            assert await ask(web, 4) == {"spare": 4}, "nobody is left: those ejected are asked, and the backup returned"
            assert f"127.0.0.1:{spare_port}" not in out(web)
        assert counts.ejected <= 1
        async with endpoint(authority, main.port, primary):
            assert (await ask(web, 3))["main"] >= 2


async def test_a_hash_leads_past_an_ejected_endpoint_and_others_keep_theirs(authority: Authority) -> None:
    (dead,) = free_ports(1)
    answer: Any = chain("api")
    answer["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = {
        "Policy": "maglev",
        "HashPolicies": [{"Field": "header", "FieldValue": "X-User"}],
    }

    def of(user: int) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: api\r\nX-User: u%d\r\n\r\n" % user

    async with App(say(b"one")).running() as one, App(say(b"two")).running() as two:
        async with endpoint(authority, one.port) as first, endpoint(authority, two.port) as second:
            ports = [first.port("inbound"), second.port("inbound"), dead]
            async with caller(authority, ports, answer=answer) as web:
                for user in range(300):  # whose home is the dead one depends on its port: a third, more or less
                    await ask(web, 1, of(user))
                    if out(web):
                        break
                assert list(out(web)) == [f"127.0.0.1:{dead}"]
                homes = [await ask(web, 2, of(user)) for user in range(30)]  # all at one of two: once in 2 ** 29
                assert all(len(home) == 1 for home in homes), homes
                assert {next(iter(home)) for home in homes} == {"one", "two"}


async def test_what_is_known_outlives_a_swap_and_goes_with_the_endpoint(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with App().running() as app, endpoint(authority, app.port) as good:
        rows = [instance("api", good.port("inbound"), 1), instance("api", dead, 2)]
        async with caller(authority, [good.port("inbound"), dead]) as web:
            await ask(web, 12)
            web.member.hear(EndpointsWatch("api"), [*rows, instance("api", good.port("inbound"), 3, Weights={})])
            web.follow()
            assert list(out(web)) == [f"127.0.0.1:{dead}"]
            web.member.hear(EndpointsWatch("api"), rows[:1])
            web.follow()
            assert out(web) == {}
            assert web.metrics.for_upstream(TARGET).ejected == 0


async def test_tcp_leaves_out_an_endpoint_that_takes_no_connection(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with echo_server() as app, endpoint(authority, app, protocol="tcp") as good:
        ports = [good.port("inbound"), dead]
        async with caller(authority, ports, None, chain("api", "tcp")) as web:
            for _ in range(12):
                assert await echoed(web) == b"x"
            counts = web.metrics.for_upstream(TARGET)
            assert (counts.connect_failures, counts.ejections["connect_failures"]) == (5, 1)
            async with endpoint(authority, app, dead, "tcp") as back:
                time_is_over(web)
                for _ in range(2):
                    assert await echoed(web) == b"x"
                assert back.metrics.for_listener("inbound").accepted == 1
                assert out(web) == {}


async def echoed(web: Half) -> bytes:
    async with await Wire.open(web.port("upstream")) as wire:
        await wire.send(b"x")
        return await wire.read()


async def test_the_end_of_our_own_leaf_is_not_held_against_endpoints(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with App(say(b"one")).running() as one, App(say(b"two")).running() as two:
        async with endpoint(authority, one.port) as first, endpoint(authority, two.port) as second:
            async with caller(authority, [first.port("inbound"), second.port("inbound")]) as web:
                with monkeypatch.context() as patch:
                    patch.setattr(Generation, "leaf_ends", 0.0)
                    assert await ask(web, 12) == {503: 12}
                assert out(web) == {}
                assert await ask(web, 4) == {"one": 2, "two": 2}
                assert web.metrics.for_upstream(TARGET).connect_failures == 0


async def test_an_endpoint_on_trial_that_takes_up_a_tunnel_is_admitted(authority: Authority) -> None:
    async def upgrade(side: Side, message: Message) -> None:
        del message
        await side.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await side.read()

    async with App(say(b"", b"500 Oops")).running() as app, endpoint(authority, app.port) as only:
        async with App(say(b"good")).running() as good, endpoint(authority, good.port) as other:
            ports = [only.port("inbound"), other.port("inbound")]
            async with caller(authority, ports, ANY) as web:
                await ask(web, 10)
                assert len(out(web)) == 1
                app.behaviour = good.behaviour = upgrade
                time_is_over(web)
                for _ in range(2):
                    async with await Wire.open(web.port("upstream")) as wire:
                        request = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                        await wire.send(request)
                        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                assert out(web) == {}
