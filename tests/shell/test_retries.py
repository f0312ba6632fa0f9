"""Retries of a route, through a caller's sidecar and those of several instances: what reaches the apps is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from dataplane import attempts
from dataplane.attempts import MAX_KEPT
from dataplane.downstream import Downstream
from dataplane.metrics import UpstreamCounts
from dataplane.pool import Pool
from harness.certificates import Authority
from harness.halves import Half, half
from harness.load import load
from harness.meshes import Json, chain, instance, sidecar, split_chain, target_row
from harness.servers import eventually
from harness.wire import App, Behaviour, Message, Side, Wire, raw_and_close, say
from lictor.up.ports import free_ports
from policies.watches import ChainWatch, EndpointsWatch, RegistrationWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
TARGET = "api.default.default.dc1"
BUSY = say(b"busy", b"503 Service Unavailable")


def routed(**destination: Any) -> Json:
    """Return a chain with one route that takes everything."""
    answer = chain("api")
    answer["StartNode"] = "router:api.default.default"
    answer["Nodes"]["router:api.default.default"] = {
        "Type": "router",
        "Name": "api.default.default",
        "Routes": [{"Definition": {"Destination": destination}, "NextNode": f"resolver:{TARGET}"}],
    }
    return answer


@dataclass(slots=True)
class Mesh:
    """A caller, and the instances that it calls."""

    web: Half
    apis: list[Half]
    apps: list[App]
    port: int

    @property
    def requests(self) -> list[int]:
        return [len(app.requests) for app in self.apps]

    @property
    def counts(self) -> UpstreamCounts:
        return self.web.metrics.for_upstream(TARGET)

    @property
    def retries(self) -> int:
        return self.counts.retries

    @property
    def pools(self) -> list[Pool]:
        """Return those that have had a turn."""
        return list(self.web.dataplane.pools._pools.values())

    async def asked(self) -> int:
        """Return which instance the first request has reached."""
        await eventually(lambda: sum(self.requests))
        return next(number for number, count in enumerate(self.requests) if count)


@contextlib.asynccontextmanager
async def calling(
    authority: Authority, ports: Sequence[int], config: Json | None = None, answer: Json | None = None, **route: Any
) -> AsyncIterator[tuple[Half, int]]:
    """Run a caller of instances that stand at these ports."""
    (port,) = free_ports(1)
    web = sidecar("web", authority, upstreams={"api": port}, config=config)
    web.hear(ChainWatch("api", "api"), answer or routed(**route)).hear(EndpointsWatch("api"), rows(ports))
    async with half(web) as running:
        yield running, port


def rows(ports: Sequence[int]) -> list[Json]:
    return [instance("api", port, number) for number, port in enumerate(ports, 1)]


@contextlib.asynccontextmanager
async def mesh(
    authority: Authority, behaviours: Sequence[Behaviour], config: Json | None = None, **route: Any
) -> AsyncIterator[Mesh]:
    async with contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(App(behaviour).running()) for behaviour in behaviours]
        apis = [await stack.enter_async_context(called(authority, app.port)) for app in apps]
        caller = calling(authority, [api.port("inbound") for api in apis], config, **route)
        web, port = await stack.enter_async_context(caller)
        yield Mesh(web, apis, apps, port)


def called(authority: Authority, app_port: int, service: str = "api") -> contextlib.AbstractAsyncContextManager[Half]:
    allow = {"SourceName": "*", "DestinationName": service, "Action": "allow"}
    return half(sidecar(service, authority, local_port=app_port, intentions=[allow]))


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def cut(api: Half) -> None:
    """End the connections of an instance's sidecar as a killed process does."""
    for listener in api.dataplane.listeners.values():
        for connection in tuple(listener.connections):
            connection.abort()


async def slowly(side: Side, message: Message) -> bytes:
    await asyncio.sleep(30)
    return b""


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_status_that_the_route_names_is_asked_again_at_another_instance(authority: Authority) -> None:
    async with mesh(authority, [BUSY, say(b"good")], NumRetries=1, RetryOnStatusCodes=[503]) as m:
        async with await Wire.open(m.port) as wire:
            for _ in range(6):
                answer = await wire.ask(GET)
                assert (answer.status, answer.body) == (200, b"good")
    assert 1 <= m.requests[0] == m.retries == m.counts.retries_succeeded <= 3
    assert m.requests[1] == 6


async def test_a_number_without_a_condition_is_no_retry_and_a_condition_without_a_number_is_one(
    authority: Authority,
) -> None:
    async with mesh(authority, [BUSY, BUSY], NumRetries=5) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(GET)).status == 503
        assert (sum(m.requests), m.retries) == (1, 0)
    async with mesh(authority, [BUSY, BUSY], RetryOn=["5xx"]) as m, await Wire.open(m.port) as wire:
        answer = await wire.ask(GET)
        assert (answer.status, answer.body, answer.get("x-lictor-reason")) == (503, b"busy", None)
        assert (m.requests, m.retries, m.counts.retries_succeeded) == ([1, 1], 1, 0)


async def test_a_post_is_asked_again_with_its_body_where_the_user_names_the_status(authority: Authority) -> None:
    async with mesh(authority, [BUSY, BUSY, BUSY], NumRetries=2, RetryOnStatusCodes=[503]) as m:
        async with await Wire.open(m.port) as wire:
            assert (await wire.ask(post(b"a body"), "POST")).status == 503
    assert [[request.body for request in app.requests] for app in m.apps] == [[b"a body"]] * 3


@pytest.mark.parametrize(("size", "tries"), [(MAX_KEPT, 2), (MAX_KEPT + 1, 1)])
async def test_a_body_is_kept_up_to_a_bound(authority: Authority, size: int, tries: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    async with mesh(authority, [BUSY], RetryOnStatusCodes=[503]) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(post(body[:size]), "POST")).status == 503
    assert [request.body == body[:size] for request in m.apps[0].requests] == [True] * tries


async def test_a_body_that_is_still_coming_goes_whole_to_the_next_instance(authority: Authority) -> None:
    refused = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not refused.is_set():
            writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")
            await writer.drain()
            refused.set()
        else:
            body = await reader.readexactly(6)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        called(authority, port) as api,
        calling(authority, [api.port("inbound")], RetryOnStatusCodes=[503]) as (web, port),
    ):
        async with await Wire.open(port) as wire:
            await wire.send(post(b"abcdef")[:-3])
            await eventually(lambda: web.metrics.for_upstream(TARGET).retries)
            await wire.send(b"def")
            answer = await wire.answer("POST")
            assert (answer.status, answer.body) == (200, b"abcdef")
    server.close()


async def test_a_long_refused_answer_is_not_read_to_its_end(authority: Authority) -> None:
    async def endless(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n")
        await asyncio.sleep(30)
        return b""

    async with mesh(authority, [endless, say(b"good")], RetryOn=["gateway-error"]) as m:
        async with await Wire.open(m.port) as wire:
            for _ in range(2):
                assert (await wire.ask(GET)).body == b"good"
    assert m.retries >= 1


async def test_the_connection_of_a_short_refused_answer_is_kept(authority: Authority) -> None:
    async def in_two(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbu")
        await asyncio.sleep(0.05)  # so that its head is refused before its end is there
        return b"sy"

    async with mesh(authority, [in_two], NumRetries=1, RetryOn=["5xx"]) as m, await Wire.open(m.port) as wire:
        for _ in range(3):
            assert (await wire.ask(GET)).body == b"busy"
            await eventually(lambda: all(len(pool.idle) == pool.connections for pool in m.pools))
        assert m.retries == 3
        assert m.counts.connections <= 2


async def test_a_refused_answer_that_is_still_read_takes_no_place_of_a_request(authority: Authority) -> None:
    async def drag(side: Side, message: Message) -> bytes:
        del message
        answered = m.requests[1]
        await side.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbu")
        await eventually(lambda: m.requests[1] > answered)
        return b"sy"

    config = {"limits": {"max_concurrent_requests": 1}}
    async with mesh(authority, [drag, say(b"good")], NumRetries=1, RetryOn=["5xx"]) as m:
        registration = m.web.member.answers[RegistrationWatch(m.web.member.proxy_id)]
        registration["Proxy"]["Upstreams"][0]["Config"] = config
        m.web.member.hear(RegistrationWatch(m.web.member.proxy_id), registration)
        m.web.follow()
        async with await Wire.open(m.port) as wire:
            for _ in range(2):
                assert (await wire.ask(GET)).body == b"good"
        assert m.retries == 1
        await eventually(lambda: all(len(pool.idle) == pool.connections == 1 for pool in m.pools))
        assert all(pool.active == pool.circuit.active == 0 for pool in m.pools)


async def test_a_grpc_status_in_the_head_is_a_condition(authority: Authority) -> None:
    unavailable = say(b"", lines=b"content-type: application/grpc\r\nGrpc-Status: 14\r\n")
    async with mesh(authority, [unavailable], NumRetries=2, RetryOn=["unavailable"]) as m:
        async with await Wire.open(m.port) as wire:
            assert (await wire.ask(GET)).get("grpc-status") == "14"
            assert m.requests == [3]
            m.apps[0].behaviour = say(b"", lines=b"content-type: application/grpc\r\nGrpc-Status: 5\r\n")
            assert (await wire.ask(GET)).get("grpc-status") == "5"
            assert m.requests == [4]


async def test_nothing_is_asked_again_once_an_answer_was_passed_on(authority: Authority) -> None:
    broken = raw_and_close(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    async with mesh(authority, [broken, broken], NumRetries=3, RetryOn=["5xx", "reset"]) as m:
        async with await Wire.open(m.port) as wire:
            await wire.send(GET)
            assert (await wire.rest()).endswith(b"half")
    assert (sum(m.requests), m.retries) == (1, 0)


# --- no answer --------------------------------------------------------------------------------------------------------


async def test_only_the_users_word_repeats_a_post_whose_connection_was_lost(authority: Authority) -> None:
    async with mesh(authority, [slowly, slowly], RetryOn=["reset"]) as m, await Wire.open(m.port) as wire:
        await wire.send(post(b"x"))
        first = await m.asked()
        m.apps[1 - first].behaviour = say(b"good")
        cut(m.apis[first])
        assert (await wire.answer("POST")).body == b"good"
    async with mesh(authority, [slowly, slowly], RetryOnConnectFailure=True) as m, await Wire.open(m.port) as wire:
        await wire.send(post(b"x"))
        cut(m.apis[await m.asked()])
        answer = await wire.answer("POST")
        assert (answer.status, answer.get("x-lictor-reason")) == (503, "connection_termination")
        assert (sum(m.requests), m.retries) == (1, 0)


async def test_when_nobody_takes_a_connection_the_last_failure_is_told_in_envoys_words(authority: Authority) -> None:
    dead = free_ports(2)
    async with calling(authority, dead, NumRetries=2, RetryOnConnectFailure=True) as (web, port):
        async with await Wire.open(port) as wire:
            answer = await wire.ask(GET)
            assert (answer.status, answer.get("x-lictor-reason")) == (503, "remote_connection_failure")
            assert answer.body == (
                b"upstream connect error or disconnect/reset before headers. "
                b"retried and the latest reset reason: remote connection failure"
            )
            assert web.metrics.for_upstream(TARGET).retries == 2


async def test_an_app_that_refuses_is_a_connect_failure_between_two_sidecars(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with App(say(b"good")).running() as app, called(authority, dead) as one, called(authority, app.port) as two:
        ports = [one.port("inbound"), two.port("inbound")]
        async with calling(authority, ports, RetryOnConnectFailure=True) as (web, port):
            async with await Wire.open(port) as wire:
                for _ in range(2):
                    assert (await wire.ask(post(b"once"), "POST")).body == b"good"
            assert [request.body for request in app.requests] == [b"once"] * 2
            assert web.metrics.for_upstream(TARGET).retries >= 1


async def test_an_app_cannot_make_believe_that_it_was_not_reached(authority: Authority) -> None:
    forged = say(b"done", b"503 Service Unavailable", b"X-LICTOR-Reason: remote_connection_failure\r\n")
    async with mesh(authority, [forged, forged], RetryOnConnectFailure=True) as m, await Wire.open(m.port) as wire:
        answer = await wire.ask(post(b"x"), "POST")
        assert (answer.status, answer.body, answer.get("x-lictor-reason")) == (503, b"done", None)
        assert (sum(m.requests), m.retries) == (1, 0)


async def test_a_warm_connection_that_died_is_no_retry_of_the_policy(authority: Authority) -> None:
    async with mesh(authority, [say(b"good")], RetryOn=["retriable-4xx"]) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(GET)).body == b"good"
        m.apps[0].behaviour = slowly
        await wire.send(GET)
        await eventually(lambda: len(m.apps[0].requests) == 2)
        m.apps[0].behaviour = say(b"again")
        cut(m.apis[0])
        assert (await wire.answer()).body == b"again"


# --- time -------------------------------------------------------------------------------------------------------------


async def test_a_try_that_takes_too_long_is_a_failure_of_its_instance(authority: Authority) -> None:
    async def slow_at_first(side: Side, message: Message) -> bytes:
        return await (slowly if sum(m.requests) == 1 else say(b"good"))(side, message) or b""

    config = {"per_try_timeout_ms": 1000}
    async with mesh(authority, [slow_at_first, slow_at_first], config, RetryOn=["gateway-error"]) as m:
        async with await Wire.open(m.port) as wire:
            await wire.send(GET)
            first = await m.asked()
            assert (await wire.answer()).body == b"good"
        troubled = [pool.route.port for pool in m.pools if pool.troubled]
        assert troubled == [m.apis[first].port("inbound")]
    assert m.retries == 1


async def test_no_try_in_time_is_a_504(authority: Authority) -> None:
    config = {"per_try_timeout_ms": 50}
    async with mesh(authority, [slowly], config, NumRetries=2, RetryOn=["reset"]) as m:
        async with await Wire.open(m.port) as wire:
            answer = await wire.ask(GET)
            assert (answer.status, answer.body) == (504, b"upstream request timeout")
            assert answer.get("x-lictor-reason") == "per_try_timeout"
            assert m.retries == 2
    async with mesh(authority, [slowly], config, NumRetries=2, RetryOnStatusCodes=[504]) as m:
        async with await Wire.open(m.port) as wire:
            assert (await wire.ask(GET)).status == 504
            assert m.retries == 0


async def test_the_requests_own_timeout_bounds_all_tries(authority: Authority) -> None:
    config = {"per_try_timeout_ms": 100, "retry_budget_percent": 100}
    async with mesh(authority, [slowly], config, RequestTimeout="800ms", NumRetries=1000, RetryOn=["5xx"]) as m:
        async with await Wire.open(m.port) as wire:
            answer = await wire.ask(GET)
            assert (answer.status, answer.get("x-lictor-reason")) == (504, "request_timeout")
            assert sum(m.requests) >= 2
            retries = m.retries  # the last one may still be on its way to the app
            await asyncio.sleep(0.3)  # longer than a try and the wait before it
            assert m.retries == retries >= sum(m.requests) - 1


async def test_a_client_that_leaves_between_two_tries_ends_them(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "back_off", lambda *_: 0.5)
    async with mesh(authority, [BUSY], NumRetries=5, RetryOn=["5xx"]) as m:
        wire = await Wire.open(m.port)
        await wire.send(GET)
        await eventually(lambda: m.retries)
        await wire.close()
        await eventually(lambda: m.web.metrics.for_listener("upstream:api").closed)
        tries = sum(m.requests)
        await asyncio.sleep(0.7)
        assert sum(m.requests) == tries


async def test_a_drain_lets_the_tries_under_way_finish(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "back_off", lambda *_: 0.5)
    async with mesh(authority, [BUSY], RetryOn=["5xx"]) as m, await Wire.open(m.port) as wire:
        await wire.send(GET)
        await eventually(lambda: m.retries)
        m.apps[0].behaviour = say(b"good")
        draining = asyncio.create_task(m.web.dataplane.drain(5))
        answer = await wire.answer()
        assert (answer.body, answer.get("connection")) == (b"good", "close")
        assert await draining is True


async def test_an_instance_that_is_gone_meanwhile_is_not_tried(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "back_off", lambda *_: 0.5)
    async with mesh(authority, [BUSY, BUSY], RetryOn=["5xx"]) as m, await Wire.open(m.port) as wire:
        await wire.send(GET)
        await eventually(lambda: m.retries)
        first = await m.asked()
        m.web.member.hear(EndpointsWatch("api"), rows([m.apis[first].port("inbound")]))
        m.web.follow()
        assert (await wire.answer()).status == 503
        assert m.requests[1 - first] == 0
        assert m.requests[first] == 2
        await wire.send(GET)
        await eventually(lambda: m.retries == 2)
        m.web.member.hear(EndpointsWatch("api"), [])
        m.web.follow()
        assert (await wire.answer()).get("x-lictor-reason") == "no_healthy_upstream"


async def test_the_time_of_a_try_ends_with_the_answers_head(authority: Authority) -> None:
    async def slow_body(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await asyncio.sleep(1.2)
        return b"ok"

    async def slow_echo(socket: ServerConnection) -> None:
        async for message in socket:
            await asyncio.sleep(1.2)
            await socket.send(message)

    config = {"per_try_timeout_ms": 1000}
    async with mesh(authority, [slow_body], config, RetryOn=["5xx"]) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(GET)).body == b"ok"
        assert m.retries == 0
    async with serve(slow_echo, "127.0.0.1", 0) as server:
        app_port = next(iter(server.sockets)).getsockname()[1]
        async with (
            called(authority, app_port) as api,
            calling(authority, [api.port("inbound")], config, RetryOn=["5xx"]) as (_, port),
            connect(f"ws://127.0.0.1:{port}/") as socket,
        ):
            await socket.send("late")
            assert await socket.recv() == "late"


@pytest.mark.parametrize(("request_", "blamed"), [(GET, True), (post(b"whole")[:-1], False)])
async def test_a_timeout_is_the_failure_of_who_was_waited_for(
    authority: Authority,
    request_: bytes,
    blamed: bool,  # noqa: FBT001 - a column of the table
) -> None:
    async with mesh(authority, [slowly], RequestTimeout="300ms") as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(request_)).status == 504
        assert [pool.troubled for pool in m.pools] == [blamed]


# --- where to, and how many -------------------------------------------------------------------------------------------


async def test_retries_stay_in_the_arm_that_was_drawn(authority: Authority) -> None:
    answer: Any = split_chain("api", {"v1": 50, "v2": 50})
    answer["StartNode"] = "router:api"
    split = "splitter:api.default.default"
    route = {"Definition": {"Destination": {"NumRetries": 2, "RetryOn": ["5xx"]}}, "NextNode": split}
    answer["Nodes"]["router:api"] = {"Type": "router", "Name": "api", "Routes": [route]}
    async with contextlib.AsyncExitStack() as stack:
        bad = [await stack.enter_async_context(App(BUSY).running()) for _ in range(2)]
        good = await stack.enter_async_context(App(say(b"good")).running())
        apis = [await stack.enter_async_context(called(authority, app.port)) for app in (*bad, good)]
        web, port = await stack.enter_async_context(calling(authority, [], {"retry_budget_percent": 300}, answer))
        versions = ["v1", "v1", "v2"]
        found = [
            instance("api", api.port("inbound"), number, Meta={"version": version})
            for number, (api, version) in enumerate(zip(apis, versions, strict=True), 1)
        ]
        web.member.hear(EndpointsWatch("api"), found)
        web.follow()
        wire = await stack.enter_async_context(await Wire.open(port))
        statuses = Counter([(await wire.ask(GET)).status for _ in range(24)])
        assert statuses[200] == len(good.requests)
        assert 3 * statuses[503] == sum(len(app.requests) for app in bad)
        assert min(statuses[200], statuses[503]) > 0


async def test_retries_go_over_to_the_next_target_when_the_first_has_no_other(authority: Authority) -> None:
    backup = target_row("backup")
    answer = routed(RetryOn=["5xx"])
    answer["Targets"][backup["ID"]] = backup
    answer["Nodes"][f"resolver:{TARGET}"]["Resolver"]["Failover"] = {"Targets": [backup["ID"]]}
    async with App(BUSY).running() as bad, App(say(b"backup")).running() as good:
        async with called(authority, bad.port) as one, called(authority, good.port, "backup") as two:
            async with calling(authority, [one.port("inbound")], answer=answer) as (web, port):
                web.member.hear(EndpointsWatch("backup"), [instance("backup", two.port("inbound"))])
                web.follow()
                async with await Wire.open(port) as wire:
                    assert (await wire.ask(GET)).body == b"backup"
    assert len(bad.requests) == 1


async def test_an_ejected_instance_is_not_what_a_retry_is_for(authority: Authority) -> None:
    (dead,) = free_ports(1)
    turns = 0

    async def every_other(side: Side, message: Message) -> bytes:
        nonlocal turns
        turns += 1
        return await (BUSY if turns % 2 else say(b"good"))(side, message) or b""

    async with App(every_other).running() as app, called(authority, app.port) as api:
        config = {"retry_budget_percent": 100}
        async with calling(authority, [api.port("inbound"), dead], config, RetryOnStatusCodes=[503]) as (web, port):
            async with await Wire.open(port) as wire:
                for _ in range(20):
                    if web.metrics.for_upstream(TARGET).ejected:
                        break
                    await wire.ask(GET)
                assert web.metrics.for_upstream(TARGET).ejected == 1
                turns = 0
                for _ in range(5):
                    assert (await wire.ask(GET)).body == b"good"


async def test_when_all_fail_the_load_grows_by_a_fifth_and_the_floor(authority: Authority) -> None:
    loop = asyncio.get_running_loop()
    async with mesh(authority, [BUSY, BUSY, BUSY], NumRetries=5, RetryOn=["5xx"]) as m:
        began = loop.time()
        async with await Wire.open(m.port) as wire:
            for _ in range(60):
                assert (await wire.ask(GET)).status == 503
        seconds = loop.time() - began
        extra = sum(m.requests) - 60
        assert 12 <= extra <= 12 + 10 + seconds
        assert m.counts.retry_budget_exhausted > 0


async def test_a_spent_budget_is_told_where_the_answer_is_made_here(authority: Authority) -> None:
    dead = free_ports(1)
    config = {"retry_budget_percent": 0}
    async with calling(authority, dead, config, RetryOnConnectFailure=True) as (web, port):
        async with await Wire.open(port) as wire:
            answer = await wire.ask(GET)
            assert answer.get("x-lictor-reason") == "retry_budget_exhausted"
            assert answer.body.endswith(b". reset reason: remote connection failure")
            assert web.metrics.for_upstream(TARGET).retry_budget_exhausted == 1


async def test_killing_one_of_three_under_load_fails_no_request(authority: Authority) -> None:
    async def work(side: Side, message: Message) -> bytes:
        await asyncio.sleep(0.03)  # so that some are under way at any time
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with mesh(authority, [work, work, work], NumRetries=2, RetryOn=["5xx"]) as m:
        async with load(m.port, "api", rate=200) as running:
            running.request = post(b"x")  # a GET would be sent again without any policy
            await eventually(lambda: running.sent >= 40)
            await m.apis[0].dataplane.drain(0)
            dead = len(m.apps[0].requests)
            await eventually(lambda: running.sent >= 150)
        assert running.failures == []
        assert dead > 0


async def test_a_route_without_a_policy_takes_no_further_tries_into_account(authority: Authority) -> None:
    async with mesh(authority, [say(b"good")]) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(GET)).body == b"good"
        m.apps[0].behaviour = slowly
        await wire.send(GET)
        await eventually(lambda: len(m.apps[0].requests) == 2)
        (listener,) = (one for key, one in m.web.dataplane.listeners.items() if key.purpose == "upstream")
        (connection,) = listener.connections
        assert isinstance(connection, Downstream)
        assert connection._attempts is None
