"""`http-route` and `tcp-route`: what an api-gateway does with requests and connections.

A rule takes a request that meets one of its matches, every field of it. Which of several rules is asked first does not
depend on how they were written: see `precedence`. What a rule asks for and cannot have (a JWT filter, which is
Enterprise, or a filter of a later Consul) refuses what it takes; a match that is not understood takes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.durations import parse_duration
from policies.entries.strangers import strangers
from policies.errors import EntryError, Problem, unknown_field
from policies.matching import PathMatch, ValueMatch, unknown
from policies.retries import RetryPolicy, parse_retry
from policies.routes import HeaderModifiers, RouteMatch, merged, parse_modifiers
from policies.weak import items, mapping

_API_GATEWAY = "api-gateway"


@dataclass(frozen=True, slots=True)
class RoutedService:
    """One of the services of a rule. `weight` is relative to that of the others; the rest is done for it alone."""

    name: str
    weight: int = 1
    prefix_rewrite: str = ""
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to requests. Timeouts in seconds: 0 is not set, negative none.

    `refused`: why nobody gets through. `left_out`: what of it has no effect.
    """

    services: tuple[RoutedService, ...]
    prefix_rewrite: str = ""
    request_timeout: float = 0.0
    idle_timeout: float = 0.0
    retry: RetryPolicy | None = None
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None
    refused: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MatchedRule:
    """A rule by one of its matches; None takes every request."""

    match: RouteMatch | None
    rule: Rule


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """An `http-route` as one gateway sees it. `sections` are the listeners that it names, "" stands for all.

    `since` is the index of its creation.
    """

    name: str
    since: int
    sections: frozenset[str]
    hostnames: tuple[str, ...]
    rules: tuple[MatchedRule, ...]


@dataclass(frozen=True, slots=True)
class TcpRoute:
    """A `tcp-route` as one gateway sees it."""

    name: str
    since: int
    sections: frozenset[str]
    service: str


# --- reading -------------------------------------------------------------------------------------------------------


def parse_routes(
    kind: str, rows: Iterable[object], gateway: str, before: object = None
) -> tuple[tuple[HttpRoute, ...] | tuple[TcpRoute, ...], tuple[Problem, ...]]:
    """Return the routes of a kind that name this gateway as a parent, and what is wrong with them."""
    rows = tuple(rows)
    strange = tuple(problem for row, _ in _of_gateway(rows, gateway) for problem in _not_followed(kind, row))
    if kind == "tcp-route":
        return parse_tcp_routes(rows, gateway), strange
    known = before if isinstance(before, tuple) else ()
    routes, problems = parse_http_routes(rows, gateway, (route for route in known if isinstance(route, HttpRoute)))
    return routes, (*problems, *strange)


def parse_http_routes(
    rows: Iterable[object], gateway: str, before: Iterable[HttpRoute] = ()
) -> tuple[tuple[HttpRoute, ...], tuple[Problem, ...]]:
    """Return the routes that name this gateway as a parent, the oldest first, and what is wrong with them.

    One that cannot be read stays as it was `before`, if it was.
    """
    known = {route.name: route for route in before}
    routes: list[HttpRoute] = []
    problems: list[Problem] = []
    for row, sections in _of_gateway(rows, gateway):
        try:
            routes.append(_http_route(row, sections))
        except (EntryError, TypeError, ValueError, OverflowError) as error:
            name = _text(row, "Name")
            routes += [known[name]] if name in known else []
            problems.append(Problem(f"http-route {name}", str(error), "its last good state stays"))
    problems += [problem for route in routes for problem in _complaints(route)]
    return tuple(sorted(routes, key=_age)), tuple(problems)


_REFUSED = re.compile(r"\.(?:Matches|Filters|ResponseFilters)\b")  # what is not understood there takes or refuses


def _not_followed(kind: str, row: Mapping[str, Any]) -> Iterable[Problem]:
    for path in strangers(kind, row):
        if not _REFUSED.search(path):
            yield unknown_field(f"{kind} {row.get('Name')}", path)


def parse_tcp_routes(rows: Iterable[object], gateway: str) -> tuple[TcpRoute, ...]:
    """Return the routes that name this gateway as a parent, the oldest first."""
    routes = (
        TcpRoute(
            name=_text(row, "Name"),
            since=int(row.get("CreateIndex") or 0),
            sections=sections,
            service=next((_text(mapping(service), "Name") for service in items(row.get("Services"))), ""),
        )
        for row, sections in _of_gateway(rows, gateway)
    )
    return tuple(sorted(routes, key=_age))


def _age(route: HttpRoute | TcpRoute) -> tuple[int, str]:
    return (route.since, route.name)


def _of_gateway(rows: Iterable[object], gateway: str) -> Iterable[tuple[Mapping[str, Any], frozenset[str]]]:
    for row in map(mapping, rows):
        parents = [mapping(parent) for parent in items(row.get("Parents"))]
        sections = frozenset(
            _text(parent, "SectionName")
            for parent in parents
            if parent.get("Kind") in {None, "", _API_GATEWAY} and parent.get("Name") == gateway
        )
        if sections:
            yield row, sections


def _text(row: Mapping[str, Any], field: str) -> str:
    return str(row.get(field) or "")


def _http_route(row: Mapping[str, Any], sections: frozenset[str]) -> HttpRoute:
    return HttpRoute(
        name=_text(row, "Name"),
        since=int(row.get("CreateIndex") or 0),
        sections=sections,
        hostnames=tuple(str(host).lower() for host in items(row.get("Hostnames"))),
        rules=tuple(matched for rule in items(row.get("Rules")) for matched in _rule(mapping(rule))),
    )


def _rule(row: Mapping[str, Any]) -> Iterable[MatchedRule]:
    filters = mapping(row.get("Filters"))
    timeouts, retries = mapping(filters.get("TimeoutFilter")), mapping(filters.get("RetryFilter"))
    services = tuple(_service(mapping(service)) for service in items(row.get("Services")))
    rule = Rule(
        services=tuple(service for service, _ in services),
        prefix_rewrite=_text(mapping(filters.get("URLRewrite")), "Path"),
        request_timeout=parse_duration(timeouts.get("RequestTimeout"), "RequestTimeout"),
        idle_timeout=parse_duration(timeouts.get("IdleTimeout"), "IdleTimeout"),
        retry=parse_retry(retries),
        request_headers=_headers(filters),
        response_headers=_headers(mapping(row.get("ResponseFilters"))),
        left_out=tuple(text for service in items(row.get("Services")) for text in _without_effect(mapping(service))),
        refused=next(filter(None, (_refusal(row), *(refused for _, refused in services))), ""),
    )
    for match in items(row.get("Matches")) or ({},):
        yield MatchedRule(_match(mapping(match)), rule)


def _service(row: Mapping[str, Any]) -> tuple[RoutedService, str]:
    filters = mapping(row.get("Filters"))
    service = RoutedService(
        name=_text(row, "Name"),
        weight=max(1, int(row.get("Weight") or 1)),
        prefix_rewrite=_text(mapping(filters.get("URLRewrite")), "Path"),
        request_headers=_headers(filters),
        response_headers=_headers(mapping(row.get("ResponseFilters"))),
    )
    return service, _refusal(row)


def _without_effect(service: Mapping[str, Any]) -> Iterable[str]:
    for name in ("TimeoutFilter", "RetryFilter"):
        if mapping(service.get("Filters")).get(name):
            yield f"{service.get('Name')} has a {name}, which is of rules alone"


def _headers(filters: Mapping[str, Any]) -> HeaderModifiers | None:
    """Return the changes of a list of header filters: of two that set one header the later one counts."""
    whole: HeaderModifiers | None = None
    for row in items(filters.get("Headers")):
        whole = merged(whole, parse_modifiers(row))
    return whole


_KNOWN_FILTERS = frozenset({"Headers", "URLRewrite", "TimeoutFilter", "RetryFilter"})
_KNOWN_ANSWER_FILTERS = frozenset({"Headers"})


def _refusal(row: Mapping[str, Any]) -> str:
    """Return why nobody may get through a rule or to a service: a filter of it that cannot be applied."""
    filters = {key: value for key, value in mapping(row.get("Filters")).items() if value is not None}
    if "JWT" in filters:
        return "its JWT filter is of Consul Enterprise and is not supported"
    found = unknown(filters, _KNOWN_FILTERS) or unknown(mapping(row.get("ResponseFilters")), _KNOWN_ANSWER_FILTERS)
    return f"its filter {found} is not understood" if found else ""


# --- matches -------------------------------------------------------------------------------------------------------

_KNOWN_IN_MATCH = frozenset({"Headers", "Method", "Path", "Query"})
_KNOWN_IN_TEST = frozenset({"Match", "Name", "Value"})
_PATHS = frozenset({"exact", "prefix", "regex"})
_IN_HEADERS = frozenset({"present", "exact", "prefix", "suffix", "regex"})
_IN_QUERY = frozenset({"present", "exact", "regex"})


def _match(row: Mapping[str, Any]) -> RouteMatch | None:
    try:
        return _read_match(row)
    except EntryError as error:
        return RouteMatch(None, frozenset(), (), (), str(error))


def _read_match(row: Mapping[str, Any]) -> RouteMatch | None:
    if criterion := unknown(row, _KNOWN_IN_MATCH):
        message = f"its {criterion} is not understood"
        raise EntryError(message)
    path = mapping(row.get("Path"))
    kind, value = _text(path, "Match") or "prefix", _text(path, "Value") or ("" if path.get("Match") else "/")
    if kind not in _PATHS or not value:
        message = f"its path match {kind} of {value!r} is not understood"
        raise EntryError(message)
    methods = frozenset({_text(row, "Method").upper()} - {""})
    headers, query = _tests(row.get("Headers"), _IN_HEADERS), _tests(row.get("Query"), _IN_QUERY)
    if (kind, value) == ("prefix", "/") and not (methods or headers or query):
        return None
    return RouteMatch(PathMatch(kind, value), methods, headers, query)


def _tests(rows: object, kinds: frozenset[str]) -> tuple[ValueMatch, ...]:
    return tuple(_test(mapping(row), kinds) for row in items(rows))


def _test(row: Mapping[str, Any], kinds: frozenset[str]) -> ValueMatch:
    name, kind, value = _text(row, "Name"), _text(row, "Match"), _text(row, "Value")
    if unknown(row, _KNOWN_IN_TEST) or kind not in kinds or (kind != "present" and not value):
        message = f"its test {kind!r} of {name!r} is not understood"
        raise EntryError(message)
    return ValueMatch(name, kind, value if kind != "present" else "")


def precedence(matched: MatchedRule) -> tuple[int, bool, int, int]:
    """Return what rules of one host are sorted by; what is equal stays as it was written, older routes first.

    The longer path comes first, whatever it is compared by; of two that are equally long the exact one; then the one
    with more headers, then with more query parameters.
    Source: Gateway API, HTTPRouteRule; Consul counts the length of a regular expression as that of any other path.
    """
    match = matched.match
    if match is None or match.path is None:
        return (-1, True, 0, 0)
    return (-len(match.path.source.encode()), match.path.kind != "exact", -len(match.headers), -len(match.query))


def _complaints(route: HttpRoute) -> Iterable[Problem]:
    where = f"http-route {route.name}"
    rules = dict.fromkeys(matched.rule for matched in route.rules)
    for rule in rules:
        for text in rule.left_out:
            yield Problem(where, text, "it has no effect; set it on the rule")
        if rule.refused:
            yield Problem(where, rule.refused, "what such a rule takes is answered 403")
    for matched in route.rules:
        if matched.match is not None and matched.match.broken:
            yield Problem(where, f"a match: {matched.match.broken}", "it takes no request")
