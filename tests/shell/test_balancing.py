"""Splits, subsets, failover and balancing among endpoints, counted at the apps."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from harness.certificates import Authority
from harness.halves import Half, half, pair
from harness.meshes import Json, Member, chain, instance, sidecar, split_chain, target_row
from harness.wire import App, Wire, say
from lictor.up.ports import free_ports
from policies.watches import ChainWatch, EndpointsWatch, IntentionsWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
TARGET = "api.default.default.dc1"


@contextlib.asynccontextmanager
async def served(authority: Authority, *names: str) -> AsyncIterator[dict[str, int]]:
    """Run a sidecar with its app for each name (`service` or `service-version`). Yields the mTLS ports."""
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for name in names:
            app = await stack.enter_async_context(App(say(name.encode())).running())
            service = name.partition("-")[0]
            member = sidecar(service, authority, local_port=app.port)
            member.hear(IntentionsWatch(service), [{"SourceName": "*", "DestinationName": service, "Action": "allow"}])
            side = await stack.enter_async_context(half(member))
            ports[name] = side.port("inbound")
        yield ports


@contextlib.asynccontextmanager
async def caller(authority: Authority, answer: Json, rows: list[Json]) -> AsyncIterator[tuple[Half, Wire]]:
    (port,) = free_ports(1)
    web: Member = sidecar("web", authority, upstreams={"api": port})
    web.hear(ChainWatch("api", "api"), answer).hear(EndpointsWatch("api"), rows)
    async with half(web) as running, await Wire.open(port) as wire:
        yield running, wire


async def count(wire: Wire, rounds: int, request: bytes = GET) -> Counter[str]:
    return Counter([(await wire.ask(request)).body.decode() for _ in range(rounds)])


def versions(ports: dict[str, int]) -> list[Json]:
    return [
        instance("api", port, number, Meta={"version": name.partition("-")[2]})
        for number, (name, port) in enumerate(ports.items(), 1)
    ]


async def test_a_split_lands_in_proportion_and_a_change_holds_for_the_next_request(authority: Authority) -> None:
    async with served(authority, "api-v1", "api-v2") as ports:
        async with caller(authority, split_chain("api", {"v1": 80, "v2": 20}), versions(ports)) as (web, wire):
            found = await count(wire, 600)
            assert 0.72 < found["api-v1"] / 600 < 0.88
            web.member.hear(ChainWatch("api", "api"), split_chain("api", {"v1": 0, "v2": 100}))
            web.follow()
            assert await count(wire, 20) == {"api-v2": 20}


async def test_an_arm_without_instances_keeps_its_share(authority: Authority) -> None:
    async with served(authority, "api-v1") as ports:
        async with caller(authority, split_chain("api", {"v1": 50, "v2": 50}), versions(ports)) as (_, wire):
            statuses = Counter([(await wire.ask(GET)).status for _ in range(200)])
    assert 60 < statuses[503] < 140
    assert statuses[200] + statuses[503] == 200


async def test_round_robin_takes_turns_over_warm_connections(authority: Authority) -> None:
    async with served(authority, "api-1", "api-2", "api-3") as ports:
        async with caller(authority, chain("api"), versions(ports)) as (_, wire):
            assert set((await count(wire, 30)).values()) == {10}


async def test_weights_count(authority: Authority) -> None:
    async with served(authority, "api-1", "api-2") as ports:
        rows = versions(ports)
        rows[0]["Service"]["Weights"] = {"Passing": 3, "Warning": 1}
        async with caller(authority, chain("api"), rows) as (_, wire):
            assert await count(wire, 40) == {"api-1": 30, "api-2": 10}


async def test_a_dead_endpoint_is_passed_over_within_the_request(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with served(authority, "api-1") as ports:
        rows = [*versions(ports), instance("api", dead, 9)]
        async with caller(authority, chain("api"), rows) as (_, wire):
            assert await count(wire, 10) == {"api-1": 10}


async def test_failover_takes_the_next_target_only_when_nobody_is_left(authority: Authority) -> None:
    backup = target_row("backup")
    answer: Any = chain("api")
    answer["Targets"][backup["ID"]] = backup
    answer["Nodes"][f"resolver:{TARGET}"]["Resolver"]["Failover"] = {"Targets": [backup["ID"]]}
    async with served(authority, "api", "backup") as ports:
        rows = [instance("api", ports["api"])]
        async with caller(authority, answer, rows) as (web, wire):
            web.member.hear(EndpointsWatch("backup"), [instance("backup", ports["backup"])])
            web.follow()
            assert await count(wire, 5) == {"api": 5}
            web.member.hear(EndpointsWatch("api"), [instance("api", ports["api"], status="critical")])
            web.follow()
            assert await count(wire, 5) == {"backup": 5}
            web.member.hear(EndpointsWatch("api"), rows)
            web.follow()
            assert await count(wire, 5) == {"api": 5}


async def test_a_hash_of_a_header_sticks_to_one_endpoint(authority: Authority) -> None:
    answer: Any = chain("api")
    answer["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = {
        "Policy": "maglev",
        "HashPolicies": [{"Field": "header", "FieldValue": "X-User"}],
    }
    async with served(authority, "api-1", "api-2", "api-3") as ports:
        async with caller(authority, answer, versions(ports)) as (_, wire):
            homes = {}
            for user in range(20):
                request = b"GET / HTTP/1.1\r\nHost: api\r\nX-User: u%d\r\n\r\n" % user
                found = await count(wire, 3, request)
                assert len(found) == 1
                homes[user] = next(iter(found))
            assert len(set(homes.values())) > 1


async def test_cookies_query_and_source_can_be_hashed(authority: Authority) -> None:
    answer: Any = chain("api")
    for policy, request in (
        ({"Field": "cookie", "FieldValue": "id"}, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; id=7\r\n\r\n"),
        ({"Field": "query_parameter", "FieldValue": "id"}, b"GET /?x=1&id=7 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ({"SourceIP": True}, GET),
    ):
        answer["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = {"Policy": "ring_hash", "HashPolicies": [policy]}
        async with served(authority, "api-1", "api-2") as ports:
            async with caller(authority, answer, versions(ports)) as (_, wire):
                assert len(await count(wire, 8, request)) == 1


async def test_a_caller_without_the_cookie_gets_one_and_stays_where_it_is(authority: Authority) -> None:
    answer: Any = chain("api")
    answer["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = {
        "Policy": "ring_hash",
        "HashPolicies": [
            {"Field": "cookie", "FieldValue": "sid", "CookieConfig": {"TTL": 90_000_000_000, "Path": "/p"}},
            {"Field": "cookie", "FieldValue": "session", "CookieConfig": {"Session": True}},
            {"Field": "cookie", "FieldValue": "other"},
        ],
    }
    async with served(authority, "api-1", "api-2", "api-3") as ports:
        async with caller(authority, answer, versions(ports)) as (half_, wire):
            for _ in range(4):
                async with await Wire.open(half_.port("upstream")) as other:
                    first = await other.ask(GET)
                sid, session = first.all("set-cookie")
                value = sid.split('"')[1]
                assert sid == f'sid="{value}"; Max-Age=90; Path=/p; HttpOnly'
                assert session == f'session="{value}"; HttpOnly'
                again = f'GET / HTTP/1.1\r\nHost: api\r\nCookie: sid="{value}"; session={value}\r\n\r\n'
                second = await wire.ask(again.encode())
                assert (second.body, second.all("set-cookie")) == (first.body, [])
            some = await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\nCookie: session=x; sid=\r\n\r\n")
            assert [line.partition("=")[0] for line in some.all("set-cookie")] == ["sid"]


async def test_a_hash_goes_by_the_headers_that_the_route_has_set(authority: Authority) -> None:
    answer: Any = chain("api")
    answer["StartNode"] = "router:api"
    answer["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = {
        "Policy": "ring_hash",
        "HashPolicies": [{"Field": "header", "FieldValue": "X-User"}],
    }
    match = {"HTTP": {"PathPrefix": "/", "Header": [{"Name": "X-User", "Present": True}]}}  # which reads the fields
    destination = {"RequestHeaders": {"Set": {"X-User": "everybody"}}}
    answer["Nodes"]["router:api"] = {
        "Type": "router",
        "Routes": [
            {"NextNode": f"resolver:{TARGET}", "Definition": {"Match": match, "Destination": destination}},
        ],
    }
    async with served(authority, "api-1", "api-2", "api-3") as ports:
        async with caller(authority, answer, versions(ports)) as (_, wire):
            found: Counter[str] = Counter()
            for user in range(12):
                found += await count(wire, 1, b"GET / HTTP/1.1\r\nHost: api\r\nX-User: u%d\r\n\r\n" % user)
    assert len(found) == 1


async def test_each_leg_of_a_split_goes_by_its_own_hash_policy(authority: Authority) -> None:
    answer: Any = split_chain("api", {"v1": 50, "v2": 50})
    answer["Nodes"][f"resolver:v1.{TARGET}"]["LoadBalancer"] = {
        "Policy": "maglev",
        "HashPolicies": [{"Field": "header", "FieldValue": "X-User"}],
    }
    async with served(authority, "api-v1-a", "api-v1-b", "api-v1-c", "api-v2-a", "api-v2-b") as ports:
        rows = [
            instance("api", port, number, Meta={"version": name.split("-")[1]})
            for number, (name, port) in enumerate(ports.items(), 1)
        ]
        async with caller(authority, answer, rows) as (_, wire):
            found = await count(wire, 80, b"GET / HTTP/1.1\r\nHost: api\r\nX-User: u1\r\n\r\n")
    assert len([name for name in found if "-v1-" in name]) == 1
    assert len([name for name in found if "-v2-" in name]) == 2


async def test_routes_match_rewrite_and_modify(authority: Authority) -> None:
    answer: Any = chain("api")
    answer["StartNode"] = "router:api"
    answer["Nodes"]["router:api"] = {
        "Type": "router",
        "Routes": [
            {
                "NextNode": f"resolver:{TARGET}",
                "Definition": {
                    "Match": {"HTTP": {"PathPrefix": "/old"}},
                    "Destination": {
                        "PrefixRewrite": "/new",
                        "RequestHeaders": {"Set": {"x-route": "one"}},
                        "ResponseHeaders": {"Add": {"x-answer": "two"}},
                    },
                },
            },
            {
                "NextNode": f"resolver:{TARGET}",
                "Definition": {"Match": {"HTTP": {"PathExact": "/exact"}}, "Destination": {"PrefixRewrite": "/only"}},
            },
            {"NextNode": f"resolver:{TARGET}", "Definition": {"Match": {"HTTP": {"PathPrefix": "/plain"}}}},
        ],
    }
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(App().running())
        member = sidecar("api", authority, local_port=app.port)
        member.hear(IntentionsWatch("api"), [{"SourceName": "*", "DestinationName": "api", "Action": "allow"}])
        side = await stack.enter_async_context(half(member))
        rows = [instance("api", side.port("inbound"))]
        _, wire = await stack.enter_async_context(caller(authority, answer, rows))
        first = await wire.ask(b"GET /old/x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await wire.ask(b"GET /exact?q=2 HTTP/1.1\r\nHost: a\r\n\r\n")
        await wire.ask(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
        lost = await wire.ask(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [request.target for request in app.requests] == ["/new/x?q=1", "/only?q=2", "/plain"]
    assert app.requests[0].get("x-route") == "one"
    assert app.requests[0].get("x-envoy-original-path") == "/old/x?q=1"
    assert first.get("x-answer") == "two"
    assert (lost.status, lost.get("x-lictor-reason")) == (404, "no_route")


async def test_answers_made_here_get_the_changes_of_their_route_too(authority: Authority) -> None:
    """Nobody there, a refused connection, an app that hangs up: as Envoy, which changes its own answers alike."""
    changes = {"Set": {"x-answer": "set", "content-type": "text/x"}, "Add": {"x-from": "%PROTOCOL%"}}
    answer = chain("api")
    answer["StartNode"] = "router:api"
    answer["Nodes"]["router:api"] = {
        "Type": "router",
        "Routes": [{"NextNode": f"resolver:{TARGET}", "Definition": {"Destination": {"ResponseHeaders": changes}}}],
    }
    (closed,) = free_ports(1)
    for rows, reason in (([], "no_healthy_upstream"), ([instance("api", closed)], "remote_connection_failure")):
        async with caller(authority, answer, rows) as (_, wire):
            found = await wire.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (found.status, found.get("x-lictor-reason")) == (503, reason)
        assert (found.all("content-type"), found.get("x-answer"), found.get("x-from")) == (
            ["text/x"],
            "set",
            "HTTP/1.1",
        )
        assert found.body


async def test_ten_thousand_endpoints_cost_only_those_that_are_called(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        rows = [
            instance("api", p.api.port("inbound"), number, Address=f"127.0.{number // 250}.{number % 250 + 1}")
            for number in range(10_000)
        ]
        p.web.member.hear(EndpointsWatch("api"), rows)
        p.web.follow()
        pools = p.web.dataplane.pools
        async with await Wire.open(p.port) as wire:
            for _ in range(3):
                await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")
        assert len(pools._pools) < 50, "an endpoint has a pool when it has had its turn"
        assert len([row for row in pools.describe() if row["target"] != "local_app"]) == 10_000
        before, named = tuple(pools._clusters.values()), pools._named
        p.web.follow()
        assert pools._named is named, "nothing is looked through when no cluster changed"
        assert tuple(pools._clusters.values()) == before, "what did not change is kept as it is"
        p.web.member.hear(EndpointsWatch("api"), rows[:1])
        p.web.follow()
        assert len(pools.describe()) <= 2
