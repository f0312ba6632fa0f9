from __future__ import annotations

from typing import Any

import pytest

from policies.edge.http_routes import (
    MatchedRule,
    RoutedService,
    Rule,
    parse_http_routes,
    parse_routes,
    parse_tcp_routes,
    precedence,
)
from policies.routes import HeaderModifiers

Json = dict[str, Any]
PARENT = {"Kind": "api-gateway", "Name": "gw", "SectionName": ""}


class Fields:
    """Headers of a request."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def get_all(self, name: str) -> tuple[str, ...]:
        return (self.values[name],) if name in self.values else ()


def route(*rules: Json, **more: Any) -> Json:
    return {"Kind": "http-route", "Name": "r", "Parents": [PARENT], "Rules": list(rules), **more}


def parsed(*rules: Json) -> tuple[MatchedRule, ...]:
    (found,), problems = parse_http_routes([route(*rules)], "gw")
    assert problems == ()
    return found.rules


def rule_of(**fields: Any) -> Rule:
    return parsed({"Services": [{"Name": "api"}], **fields})[0].rule


def test_routes_of_other_gateways_are_not_ours_and_the_oldest_comes_first() -> None:
    rows = [
        route(Name="young", CreateIndex=9),
        route(Name="old", CreateIndex=3, Parents=[PARENT | {"SectionName": "a"}, PARENT | {"SectionName": "b"}]),
        route(Name="other", Parents=[PARENT | {"Name": "else"}]),
        route(Name="orphan", Parents=None),
        route(Name="kind", Parents=[PARENT | {"Kind": "ingress-gateway"}]),
        route(Name="short", CreateIndex=3, Parents=[{"Name": "gw"}]),
    ]
    routes, _ = parse_http_routes(rows, "gw")
    assert [(one.name, sorted(one.sections)) for one in routes] == [
        ("old", ["a", "b"]),
        ("short", [""]),
        ("young", [""]),
    ]


def test_a_rule_without_matches_and_an_empty_match_take_everything() -> None:
    everything = {"Path": {"Match": "prefix", "Value": "/"}, "Headers": None, "Query": None, "Method": ""}
    written: tuple[Any, ...] = (None, [], [{}], [everything])
    for matches in written:
        assert [matched.match for matched in parsed({"Matches": matches})] == [None]


@pytest.mark.parametrize(
    ("match", "path", "query", "headers", "taken"),
    [
        ({"Path": {"Match": "exact", "Value": "/a"}}, "/a", "", {}, True),
        ({"Path": {"Match": "exact", "Value": "/a"}}, "/a/", "", {}, False),
        ({"Path": {"Match": "prefix", "Value": "/a"}}, "/ab", "", {}, True),
        ({"Path": {"Match": "regex", "Value": "/a[0-9]"}}, "/a1", "", {}, True),
        ({"Path": {"Match": "regex", "Value": "/a[0-9]"}}, "/a12", "", {}, False),
        ({"Method": "get"}, "/", "", {}, True),
        ({"Method": "POST"}, "/", "", {}, False),
        ({"Headers": [{"Match": "exact", "Name": "X", "Value": "1"}]}, "/", "", {"x": "1"}, True),
        ({"Headers": [{"Match": "prefix", "Name": "X", "Value": "1"}]}, "/", "", {"x": "12"}, True),
        ({"Headers": [{"Match": "suffix", "Name": "X", "Value": "2"}]}, "/", "", {"x": "12"}, True),
        ({"Headers": [{"Match": "regex", "Name": "X", "Value": "[12]+"}]}, "/", "", {"x": "12"}, True),
        ({"Headers": [{"Match": "present", "Name": "X", "Value": ""}]}, "/", "", {}, False),
        ({"Query": [{"Match": "exact", "Name": "q", "Value": "1"}]}, "/", "q=1", {}, True),
        ({"Query": [{"Match": "present", "Name": "q"}]}, "/", "q", {}, True),
        ({"Query": [{"Match": "regex", "Name": "q", "Value": "[0-9]+"}]}, "/", "q=x", {}, False),
        ({"Method": "GET", "Query": [{"Match": "present", "Name": "q"}]}, "/", "", {}, False),
    ],
)
def test_every_field_of_a_match_must_be_met(
    match: Json, path: str, query: str, headers: dict[str, str], *, taken: bool
) -> None:
    found = parsed({"Matches": [match]})[0].match
    assert found is not None
    assert found.matches("GET", path, query, Fields(**headers)) is taken


@pytest.mark.parametrize(
    "match",
    [
        {"Path": {"Match": "glob", "Value": "/a"}},
        {"Path": {"Match": "regex", "Value": ""}},
        {"Path": {"Match": "regex", "Value": "("}},
        {"Headers": [{"Match": "exact", "Name": "x", "Value": ""}]},
        {"Headers": [{"Match": "absent", "Name": "x", "Value": ""}]},
        {"Query": [{"Match": "prefix", "Name": "x", "Value": "1"}]},
        {"Headers": [{"Match": "exact", "Name": "x", "Value": "1", "Invert": True}]},
        {"Cookies": ["x"]},
    ],
)
def test_a_match_that_is_not_understood_takes_nothing_and_is_told(match: Json) -> None:
    (found,), problems = parse_http_routes([route({"Matches": [match], "Services": [{"Name": "api"}]})], "gw")
    broken = found.rules[0].match
    assert broken is not None
    assert not broken.matches("GET", "/a", "x=1", Fields(x="1"))
    assert [(problem.where, problem.fix) for problem in problems] == [("http-route r", "it takes no request")]


def test_filters_become_what_a_router_has() -> None:
    rule = rule_of(
        Filters={
            "Headers": [{"Add": {"X-A": "1"}, "Set": {"x-s": "1"}, "Remove": ["X-R"]}, {"Set": {"X-S": "2"}}],
            "URLRewrite": {"Path": "/new"},
            "TimeoutFilter": {"RequestTimeout": 2_000_000_000, "IdleTimeout": "-1s"},
            "RetryFilter": {"NumRetries": 3, "RetryOnStatusCodes": [503], "RetryOn": ["5xx"]},
            "JWT": None,
        },
        ResponseFilters={"Headers": [{"Remove": ["server"]}]},
    )
    assert rule.request_headers == HeaderModifiers((("x-a", "1"),), (("x-s", "2"),), ("x-r",))
    assert rule.response_headers == HeaderModifiers(remove=("server",))
    assert (rule.prefix_rewrite, rule.request_timeout, rule.idle_timeout) == ("/new", 2.0, -1.0)
    assert rule.retry is not None
    assert (rule.retry.count, rule.retry.status_codes) == (3, frozenset({503}))
    assert rule.refused == ""


def test_a_service_has_filters_of_its_own_and_no_weight_is_one() -> None:
    filters = {"Headers": [{"Set": {"x": "1"}}], "URLRewrite": {"Path": "/s"}}
    answers = {"Headers": [{"Set": {"y": "1"}}]}
    rows = [{"Name": "a", "Weight": 3, "Filters": filters, "ResponseFilters": answers}, {"Name": "b", "Weight": 0}]
    assert rule_of(Services=rows).services == (
        RoutedService("a", 3, "/s", HeaderModifiers(set=(("x", "1"),)), HeaderModifiers(set=(("y", "1"),))),
        RoutedService("b"),
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Filters": {"JWT": {}}}, "JWT"),
        ({"Filters": {"Mirror": {"Name": "b"}}}, "Mirror"),
        ({"ResponseFilters": {"Cache": {"TTL": 1}}}, "Cache"),
        ({"Services": [{"Name": "api", "Filters": {"Mirror": {"Name": "b"}}}]}, "Mirror"),
    ],
)
def test_a_filter_that_cannot_be_applied_refuses_what_the_rule_takes(fields: Json, said: str) -> None:
    (found,), problems = parse_http_routes([route({"Services": [{"Name": "api"}], **fields})], "gw")
    assert said in found.rules[0].rule.refused
    assert [(problem.where, problem.fix) for problem in problems] == [
        ("http-route r", "what such a rule takes is answered 403")
    ]


def test_a_route_that_cannot_be_read_costs_itself_alone_and_stays_as_it_was() -> None:
    good = route({"Services": [{"Name": "api"}]})
    before, _ = parse_http_routes([good], "gw")
    bad = route({"Filters": {"TimeoutFilter": {"RequestTimeout": "soon"}}})
    other = route({"Services": [{"Name": "web"}]}, Name="other")
    after, problems = parse_http_routes([bad, other], "gw", before)
    assert [one.name for one in after] == ["other", "r"]
    assert after[1] == before[0]
    assert [(problem.where, problem.fix) for problem in problems] == [("http-route r", "its last good state stays")]
    assert [one.name for one in parse_http_routes([bad, other], "gw")[0]] == ["other"]


def test_longer_paths_come_first_then_exact_ones_then_more_headers_then_more_parameters() -> None:
    def path(kind: str, value: str, **more: Any) -> Json:
        return {"Path": {"Match": kind, "Value": value}, **more}

    header, parameter = {"Match": "present", "Name": "x"}, {"Match": "present", "Name": "q"}
    ordered = [
        path("prefix", "/long/path"),
        path("regex", "/[a-z]+"),
        path("exact", "/a"),
        path("prefix", "/a", Headers=[header, header]),
        path("prefix", "/a", Headers=[header], Query=[parameter]),
        path("prefix", "/b", Headers=[header]),
        path("prefix", "/b", Query=[parameter]),
        path("prefix", "/b", Method="GET"),
        path("prefix", "/b"),
        {},
    ]
    rules = parsed(*({"Matches": [match]} for match in ordered))
    for shift in range(1, len(rules)):
        shifted = (*rules[shift:], *rules[:shift])
        found = sorted(shifted, key=precedence)
        equal = {7: 8, 8: 7}  # as they were written: nothing but the method tells them apart
        positions = [rules.index(one) for one in found]
        assert positions in (list(range(10)), [equal.get(number, number) for number in range(10)])


@pytest.mark.parametrize("kind", ["http-route", "tcp-route"])
def test_a_field_that_is_not_understood_is_told_once(kind: str) -> None:
    row = route({"Services": [{"Name": "a"}], "Filters": {"Mirror": {"Name": "b"}}}, Sticky=True)
    row = row if kind == "http-route" else {key: row[key] for key in ("Name", "Parents", "Sticky")}
    _, problems = parse_routes(kind, [row, {**row, "Parents": []}], "gw")
    assert [problem.message for problem in problems if "Sticky" in problem.message] == ["its Sticky is not understood"]
    assert len(problems) == (2 if kind == "http-route" else 1)  # the filter refuses, and is told by that


def test_a_tcp_route_leads_to_its_first_service() -> None:
    rows = [
        {"Name": "t", "Parents": [PARENT], "Services": [{"Name": "db"}], "CreateIndex": 4},
        {"Name": "n", "Parents": [PARENT], "Services": None},
    ]
    assert [(one.name, one.service) for one in parse_tcp_routes(rows, "gw")] == [("n", ""), ("t", "db")]


def test_timeouts_and_retries_of_a_service_have_no_effect_and_are_told() -> None:
    service = {"Name": "api", "Filters": {"TimeoutFilter": {"RequestTimeout": "1s"}, "RetryFilter": None}}
    (found,), problems = parse_http_routes([route({"Services": [service]})], "gw")
    assert (found.rules[0].rule.request_timeout, found.rules[0].rule.refused) == (0.0, "")
    assert [problem.message for problem in problems] == ["api has a TimeoutFilter, which is of rules alone"]
