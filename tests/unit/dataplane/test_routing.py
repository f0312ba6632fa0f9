from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from dataplane.exchange import Reply
from dataplane.heads import RequestHead, parse_request
from dataplane.routing import NO_UPSTREAM, PreparedOutbound
from policies.routes import parse_match
from policies.table import Leg, Outbound, Route


def head(target: str = "/", *lines: str) -> RequestHead:
    return parse_request("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode())


def route(http: dict[str, Any], rewrite: str = "", weights: tuple[float, ...] = (100,)) -> Route:
    return Route(parse_match(http), tuple(Leg(weight, ()) for weight in weights), prefix_rewrite=rewrite)


def prepared(*routes: Route, asked: list[str] | None = None) -> PreparedOutbound:
    """Return an outbound whose decisions name their route and arm."""

    def decide(route: Route, leg: Leg) -> Reply:
        name = f"{routes.index(route)}.{[id(one) for one in route.legs].index(id(leg))}"
        if asked is not None:
            asked.append(name)
        return Reply(200, name)

    return PreparedOutbound(Outbound("api", "http", routes), decide)


def decide(outbound: PreparedOutbound, request: RequestHead) -> str:
    decision = outbound.decide(request)
    assert isinstance(decision, Reply)
    return decision.reason


def test_the_first_route_decides_and_none_is_a_404() -> None:
    outbound = prepared(route({"PathPrefix": "/a"}), route({"PathPrefix": "/a/b"}), route({"PathExact": "/c"}))
    assert [decide(outbound, head(path)) for path in ("/a/b", "/c?q", "/d")] == ["0.0", "2.0", "no_route"]


def test_a_route_is_made_ready_when_it_is_first_taken() -> None:
    asked: list[str] = []
    outbound = prepared(*(route({"PathExact": f"/{number}"}) for number in range(50)), asked=asked)
    assert asked == []
    for path in ("/7", "/7", "/8"):
        decide(outbound, head(path))
    assert asked == ["7.0", "8.0"]


def test_arms_are_drawn_by_weight_and_one_of_weight_0_never() -> None:
    outbound = prepared(route({}, weights=(75, 25, 0)))
    found = Counter(decide(outbound, head()) for _ in range(2000))
    assert set(found) == {"0.0", "0.1"}
    assert 0.68 < found["0.0"] / 2000 < 0.82


def test_a_lone_arm_without_weight_takes_nothing() -> None:
    assert prepared(route({}, weights=(0,))).decide(head()) is NO_UPSTREAM


@pytest.mark.parametrize(
    ("http", "rewrite", "target", "expected"),
    [
        ({"PathPrefix": "/old"}, "/new", "/old/x?q=1", "/new/x?q=1"),
        ({"PathPrefix": "/tree"}, "/", "/tree/x", "//x"),
        ({"PathPrefix": "/trail"}, "/t/", "/trail/x", "/t//x"),
        ({"PathPrefix": "/t/"}, "/", "/t/x", "/x"),
        ({"PathPrefix": "/a"}, "/q?x=1", "/a/x", "/q?x=1/x"),
        ({"PathPrefix": "/a"}, "new", "/a/x", "new/x"),
        ({"PathPrefix": "/OLD", "CaseInsensitive": True}, "/new", "/oLd/X", "/new/X"),
        ({"PathExact": "/old"}, "/new", "/old?q=1", "/new?q=1"),
        ({"PathExact": "/old"}, "/", "/old", "/"),
        ({}, "/all/", "/x", "/all/x"),
        ({"PathPrefix": "/"}, "/all", "/x", "/allx"),
        ({"PathPrefix": "/a"}, "/x y\r\nX-Evil: 1", "/a", "/x%20y%0D%0AX-Evil:%201"),
        ({"PathPrefix": "/a"}, "/é", "/a", "/\xc3\xa9"),
    ],
)
def test_rewrites_are_those_of_envoy(http: dict[str, Any], rewrite: str, target: str, expected: str) -> None:
    request = head(target)
    decide(prepared(route(http, rewrite)), request)
    assert request.target == expected.encode("latin-1")
    assert f"x-envoy-original-path: {target}\r\n".encode() in request.lines


def test_a_prefix_is_measured_in_bytes() -> None:
    request = head()
    request.target = "/é/x".encode()
    decide(prepared(route({"PathPrefix": "/é"}, "/e")), request)
    assert request.target == b"/e/x"


def test_the_original_path_is_ours_to_tell() -> None:
    request = head("/old", "X-Envoy-Original-Path: /forged")
    decide(prepared(route({"PathPrefix": "/old"}, "/new")), request)
    assert request.lines.lower().count(b"x-envoy-original-path") == 1
    assert b"x-envoy-original-path: /old\r\n" in request.lines


def test_nobody_takes_the_original_path_away_by_naming_it_in_connection() -> None:
    request = head("/old", "Connection: X-Envoy-Original-Path, X-A", "X-A: 1")
    decide(prepared(route({"PathPrefix": "/old"}, "/new")), request)
    assert request.render() == b"GET /new HTTP/1.1\r\nHost: a\r\nx-envoy-original-path: /old\r\n\r\n"


def test_without_a_rewrite_nothing_is_told() -> None:
    request = head("/old")
    decide(prepared(route({"PathPrefix": "/old"})), request)
    assert (request.target, b"original" in request.lines) == (b"/old", False)


def test_an_arm_may_have_a_rewrite_of_its_own_in_the_place_of_the_routes() -> None:
    match = parse_match({"PathPrefix": "/a"})
    legs = (Leg(100, (), prefix_rewrite="/arm"), Leg(0, ()))
    for arms, target in ((legs, b"/arm/x"), (legs[:1], b"/arm/x"), ((Leg(100, ()),), b"/route/x")):
        request = head("/a/x")
        decide(prepared(Route(match, arms, prefix_rewrite="/route")), request)
        assert request.target == target


def test_a_refused_route_takes_its_requests_and_answers_403() -> None:
    refused = Route(parse_match({"PathPrefix": "/a"}), (Leg(100, ()),), refused="it cannot be had")
    outbound = prepared(refused, route({}))
    assert decide(outbound, head("/b")) == "1.0"
    decision = outbound.decide(head("/a"))
    assert isinstance(decision, Reply)
    assert (decision.status, decision.reason) == (403, "route_refused")
