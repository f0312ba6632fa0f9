"""Which route takes a request, and what a route changes: matches, retries and header modifiers of `service-router`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.matching import (
    Headers,
    PathMatch,
    RequestTest,
    ValueMatch,
    parse_methods,
    parse_path,
    parse_values,
)
from policies.regexes import Predicate
from policies.weak import items, mapping


@dataclass(frozen=True, slots=True)
class HeaderModifiers:
    """Changes to the headers of one level: removes first, then sets, then adds. Names are lower case."""

    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A route's retries: how often and on what (`RetryOn`, `RetryOnStatusCodes`, `RetryOnConnectFailure`)."""

    count: int
    conditions: frozenset[str]
    status_codes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The `Match.HTTP` of a route. Equal by what was written; the compiled tests are made once."""

    path: PathMatch | None
    methods: frozenset[str]
    headers: tuple[ValueMatch, ...]
    query: tuple[ValueMatch, ...]
    _request: RequestTest = field(init=False, repr=False, compare=False)
    _query: tuple[tuple[ValueMatch, Predicate], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile. Raise EntryError for a regular expression that RE2 does not take."""
        object.__setattr__(self, "_request", RequestTest(self.path, self.methods, self.headers))
        object.__setattr__(self, "_query", tuple((match, match.compiled()) for match in self.query))

    def matches(self, method: str, path: str, query: str, headers: Headers) -> bool:
        """Return whether the request meets every criterion. `query` is raw and without its `?`."""
        if not self._request(method, path, headers):
            return False
        return all(_asks(match, test, query) for match, test in self._query)


def _asks(match: ValueMatch, test: Predicate, query: str) -> bool:
    """Return whether the first parameter of that name passes. The query is compared raw, as Envoy does."""
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name == match.name:
            return test(value)
    return False


def parse_match(http: Mapping[str, Any]) -> RouteMatch | None:
    """Return the match in a route's `Match.HTTP`; None takes every request. Raise EntryError for a bad one."""
    path, methods = parse_path(http), parse_methods(http)
    headers, query = parse_values(http.get("Header")), parse_values(http.get("QueryParam"))
    takes_all = path == PathMatch("prefix", "/") and not (methods or headers or query)
    if takes_all or not (path or methods or headers or query):
        return None
    return RouteMatch(path, methods, headers, query)


def parse_modifiers(row: object) -> HeaderModifiers | None:
    """Return the `RequestHeaders` or `ResponseHeaders` of a level; None when it changes nothing."""
    body = mapping(row)
    modifiers = HeaderModifiers(
        add=_pairs(body.get("Add")),
        set=_pairs(body.get("Set")),
        remove=tuple(str(name).lower() for name in items(body.get("Remove"))),
    )
    return None if modifiers == HeaderModifiers() else modifiers


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name).lower(), str(text)) for name, text in mapping(value).items()))


def parse_retry(destination: Mapping[str, Any]) -> RetryPolicy | None:
    """Return the retries of a route's `Destination`. A number without a condition retries nothing."""
    conditions = {str(condition) for condition in items(destination.get("RetryOn"))}
    if destination.get("RetryOnConnectFailure"):
        conditions.add("connect-failure")
    codes = frozenset(int(code) for code in items(destination.get("RetryOnStatusCodes")))
    if not conditions and not codes:
        return None
    return RetryPolicy(int(destination.get("NumRetries") or 1), frozenset(conditions), codes)
