"""The same request again: what is remembered of the first one changes nothing but the time it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.certificates import Authority, client_context
from harness.halves import half, pair
from harness.meshes import Json, chain, ingress, intention, sidecar, target_row, upstream
from harness.wire import App, Message, Side, Wire, say
from lictor.up.ports import free_ports
from policies.intentions import Decision, SourcePolicy
from policies.matching import Headers
from policies.watches import IntentionsWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"


async def test_a_request_that_was_allowed_is_denied_by_the_next_rules(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert [(await wire.ask(GET)).status for _ in range(3)] == [200, 200, 200]
        assert len(p.api.live.plans.known) == len(p.web.live.plans.known) == 1
        p.api.member.hear(IntentionsWatch("api"), [intention("web", "api", "deny")])
        p.api.follow()
        assert [(await wire.ask(GET)).status for _ in range(2)] == [403, 403]
        assert not p.api.live.plans.known
        p.api.member.hear(IntentionsWatch("api"), [intention("web", "api", "allow")])
        p.api.follow()
        assert (await wire.ask(GET)).status == 200
    assert len({tuple(request.headers) for request in app.requests}) == 1


async def test_a_session_that_never_was_judged_is_closed_like_any_other(authority: Authority) -> None:
    rules = [intention("web", "api", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}])]
    context = client_context(authority, "web")
    async with App().running() as app, half(sidecar("api", authority, local_port=app.port, intentions=rules)) as api:
        async with (
            await Wire.open(api.port("inbound"), context) as first,
            await Wire.open(api.port("inbound"), context) as second,
        ):
            assert (await first.ask(GET)).status == (await second.ask(GET)).status == 200
            # It is busy while the rules change: its next request says so, and is the last one.
            started, go = asyncio.Event(), asyncio.Event()

            async def late(side: Side, message: Message) -> bytes:
                started.set()
                await go.wait()
                return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

            app.behaviour = late
            await second.send(GET)
            await started.wait()
            api.member.hear(IntentionsWatch("api"), [intention("*", "api", "deny")])
            api.follow()
            go.set()
            assert (await second.answer()).status == 200
            denied = await second.ask(GET)
            assert (denied.status, denied.get("connection")) == (403, "close")
            assert await second.read() == b""


async def test_every_caller_is_judged_and_told_of_by_its_own_certificate(authority: Authority) -> None:
    permit = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
    rules = [intention("web", "api", permissions=permit), intention("other", "api", permissions=permit)]
    async with App().running() as app, half(sidecar("api", authority, local_port=app.port, intentions=rules)) as api:
        port = api.port("inbound")
        for _ in range(2):
            for name, status in (("web", 200), ("other", 200), ("third", 403)):
                async with await Wire.open(port, client_context(authority, name)) as wire:
                    assert [(await wire.ask(GET)).status for _ in range(2)] == [status] * 2
    told = Counter((request.get("x-forwarded-client-cert") or "").rpartition("/")[2] for request in app.requests)
    assert told == {"web": 4, "other": 4}


async def test_a_gateway_tells_every_address_as_it_is(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]}]
    async with App().running() as app, contextlib.AsyncExitStack() as stack:
        allowed = [intention("edge", "web", "allow")]
        side = await stack.enter_async_context(half(sidecar("web", authority, local_port=app.port, intentions=allowed)))
        member = ingress("edge", authority, listeners)
        upstream(member, "web", [side.port("inbound")], chain("web"))
        await stack.enter_async_context(half(member))
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            async with Wire(reader, writer) as wire:
                assert [(await wire.ask(GET)).status for _ in range(2)] == [200, 200]
    told = [request.get("x-forwarded-for") for request in app.requests]
    assert told == ["127.0.0.2"] * 2 + ["127.0.0.3"] * 2 + ["127.0.0.2"] * 2


@contextlib.asynccontextmanager
async def routed(authority: Authority, routes: list[Json], answer: bytes) -> AsyncIterator[tuple[App, Wire]]:
    """Run a caller whose upstream has these routes, before one app that always gives the same answer."""
    (port,) = free_ports(1)
    target = target_row("api")
    nodes = {
        "router:api": {
            "Type": "router",
            "Name": "api",
            "Routes": [{**one, "NextNode": f"resolver:{target['ID']}"} for one in routes],
        },
        f"resolver:{target['ID']}": {
            "Type": "resolver",
            "Name": target["ID"],
            "Resolver": {"ConnectTimeout": "5s", "Target": target["ID"]},
        },
    }
    async with App(say(answer, lines=b"X-App: 1\r\n")).running() as app:
        allowed = [intention("*", "api", "allow")]
        async with half(sidecar("api", authority, local_port=app.port, intentions=allowed)) as api:
            web = sidecar("web", authority, upstreams={"api": port})
            upstream(web, "api", [api.port("inbound")], chain("api", StartNode="router:api", Nodes=nodes))
            async with half(web), await Wire.open(port) as wire:
                yield app, wire


def route(path: str, **destination: Any) -> Json:
    return {
        "Definition": {
            "Match": {"HTTP": {"PathPrefix": path}},
            "Destination": {"Service": "api", **destination},
        }
    }


async def test_answers_that_are_alike_are_changed_by_their_own_route_alone(authority: Authority) -> None:
    routes = [
        route("/a", ResponseHeaders={"Add": {"x-route": "a"}, "Remove": ["x-app"]}),
        route("/b", ResponseHeaders={"Add": {"x-route": "%REQ(:path)%"}, "Remove": ["x-app"]}),
        route("/"),
    ]
    async with routed(authority, routes, b"same") as (_, wire):
        for _ in range(2):
            for path, changed, kept in (("/a", ["a"], []), ("/b", ["/b"], []), ("/c", [], ["1"])):
                answer = await wire.ask(b"GET %b HTTP/1.1\r\nHost: api\r\n\r\n" % path.encode())
                assert (path, answer.all("x-route"), answer.all("x-app")) == (path, changed, kept)


async def test_what_varies_is_not_remembered(authority: Authority) -> None:
    headers = {"Add": {"x-fixed": "yes"}, "Set": {"x-port": "%DOWNSTREAM_REMOTE_PORT%"}}
    async with routed(authority, [route("/a", RequestHeaders=headers), route("/")], b"") as (app, wire):
        port = int(wire.writer.get_extra_info("peername")[1])
        own = []
        for _ in range(3):
            async with await Wire.open(port) as other:
                own.append(str(other.writer.get_extra_info("sockname")[1]))
                await other.ask(b"GET /a HTTP/1.1\r\nHost: api\r\n\r\n")
    assert [request.get("x-port") for request in app.requests] == own
    assert {request.get("x-fixed") for request in app.requests} == {"yes"}


async def test_it_is_judged_twice_and_then_known(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    ask = SourcePolicy.request

    def request(policy: SourcePolicy, method: str, path: str, head: Headers) -> Decision:
        judged.append(path)
        return ask(policy, method, path, head)

    monkeypatch.setattr(SourcePolicy, "request", request)
    rules = [intention("web", "api", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}])]
    async with App().running() as app, pair(authority, app.port, intentions=rules) as p:
        for _ in range(2):
            async with await Wire.open(p.port) as wire:
                assert [(await wire.ask(GET)).status for _ in range(5)] == [200] * 5
    assert judged == ["/", "/"]
