"""Which route takes a request, and what a route changes: matches and header modifiers of `service-router`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.matching import (
    KNOWN_IN_VALUE,
    Headers,
    PathMatch,
    RequestTest,
    ValueMatch,
    on_the_wire,
    parse_methods,
    parse_path,
    parse_values,
    unknown,
    unknown_in_values,
)
from policies.regexes import Predicate
from policies.weak import items, mapping


@dataclass(frozen=True, slots=True)
class HeaderModifiers:
    """Changes to the headers of one level: removes first, then sets, then adds. Names are lower case."""

    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


BesidesPath = Callable[[str, str, Headers], bool]  # method, raw query, headers


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The `Match.HTTP` of a route. Equal by what was written; the compiled tests are made once.

    `broken` says why it cannot be understood; then it takes nothing. `besides_path` tests all but the path; None where
    nothing else is asked.
    """

    path: PathMatch | None
    methods: frozenset[str]
    headers: tuple[ValueMatch, ...]
    query: tuple[ValueMatch, ...]
    broken: str = ""
    besides_path: BesidesPath | None = field(init=False, repr=False, compare=False)
    _path: Predicate | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile. Raise EntryError for a regular expression that RE2 does not take."""
        test: BesidesPath | None = _nothing if self.broken else None
        if not self.broken and (self.methods or self.headers or self.query):
            test = _besides_path(RequestTest(None, self.methods, self.headers), self.query)
        object.__setattr__(self, "besides_path", test)
        object.__setattr__(self, "_path", self.path.compiled() if self.path is not None else None)

    def matches(self, method: str, path: str, query: str, headers: Headers) -> bool:
        """Return whether the request meets every criterion. `query` is raw and without its `?`."""
        if self._path is not None and not self._path(path):
            return False
        return self.besides_path is None or self.besides_path(method, query, headers)


def _nothing(method: str, query: str, headers: Headers) -> bool:
    del method, query, headers
    return False


def _besides_path(test: RequestTest, parameters: tuple[ValueMatch, ...]) -> BesidesPath:
    """Return the test of all criteria but the path's: that one is often known to be met."""
    asked = tuple((on_the_wire(match.name), match.compiled()) for match in parameters)
    if not asked:
        return lambda method, _query, headers: test(method, "", headers)
    return lambda method, query, headers: (
        test(method, "", headers) and all(_asks(name, value_test, query) for name, value_test in asked)
    )


def _asks(name: str, test: Predicate, query: str) -> bool:
    value = parameter(query, name)
    return value is not None and test(value)


def parameter(query: str, name: str) -> str | None:
    """Return the value of the first parameter of that name. The query is read raw, as Envoy does."""
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key == name:
            return value
    return None


_KNOWN = frozenset({"HTTP"})
_KNOWN_IN_HTTP = frozenset(
    {"PathExact", "PathPrefix", "PathRegex", "CaseInsensitive", "Header", "QueryParam", "Methods"}
)
_KNOWN_IN_PARAMETER = KNOWN_IN_VALUE - {"Invert"}


def parse_route_match(row: object) -> RouteMatch | None:
    """Return what a route's `Match` asks for; None takes every request. Raise EntryError for a bad one."""
    match = mapping(row)
    criterion = unknown(match, _KNOWN)
    return _broken(criterion) if criterion else parse_match(mapping(match.get("HTTP")))


def _broken(criterion: str) -> RouteMatch:
    """Return a match that takes nothing: what is left of its criteria would take more than was meant."""
    return RouteMatch(None, frozenset(), (), (), f"its {criterion} is not understood")


def parse_match(http: Mapping[str, Any]) -> RouteMatch | None:
    """Return the match in a route's `Match.HTTP`; None takes every request. Raise EntryError for a bad one."""
    criterion = (
        unknown(http, _KNOWN_IN_HTTP)
        or unknown_in_values(http.get("Header"))
        or unknown_in_values(http.get("QueryParam"), _KNOWN_IN_PARAMETER)
    )
    if criterion:
        return _broken(criterion)
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


def merged(first: HeaderModifiers | None, then: HeaderModifiers | None) -> HeaderModifiers | None:
    """Return both levels as one: of a header that both add, or both set, the second counts."""
    if first is None or then is None:
        return first or then
    return HeaderModifiers(
        add=_pairs(dict((*first.add, *then.add))),
        set=_pairs(dict((*first.set, *then.set))),
        remove=tuple(dict.fromkeys((*first.remove, *then.remove))),
    )


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name).lower(), str(text)) for name, text in mapping(value).items()))
