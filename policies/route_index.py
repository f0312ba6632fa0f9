"""The first route that takes a request, found without asking those that cannot.

Routes are gathered by what they ask of the path: this very path, a prefix, a regular expression, nothing. A request
meets the group of its path, those of the prefixes that it begins with, those of the expressions that match (all tried
at once), and the one that asks nothing; of the routes in them that take it the first is the answer. Within a group,
routes that are told apart by an exact value (a method, a header, a query parameter) are gathered by it once more.

So the time depends on how many routes may take a request, not on how many there are. A step each still cost: prefixes
of one another that the path begins with, routes of one path that ask for headers of different *names*, and those that
ask for a header in another way than `Exact`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from policies.matching import Headers, PathMatch, folded, on_the_wire
from policies.prefixes import Prefixes
from policies.regexes import FullMatches
from policies.routes import RouteMatch, parameter

_FEW = 4  # routes that are tried one by one


class RouteIndex:
    """Routes by what they ask. A match of None takes every request."""

    __slots__ = ("_anywhere", "_folded", "_otherwise", "_patterns", "_plain", "_size")

    def __init__(self, matches: Sequence[RouteMatch | None]) -> None:
        self._size = len(matches)
        self._otherwise = self._size
        gathered: defaultdict[_Place, list[_Entry]] = defaultdict(list)
        for position, match in enumerate(matches):
            if match is None:
                self._otherwise = position  # what comes behind it is never reached
                break
            gathered[_place(match.path)].append(_Entry(position, match))
        groups = {place: _group(entries) for place, entries in gathered.items()}
        self._anywhere = groups.pop(_ANYWHERE, None)
        self._plain = _Paths({place: group for place, group in groups.items() if not place.ignore_case})
        self._folded = _Paths({place: group for place, group in groups.items() if place.ignore_case})
        self._patterns = _Patterns({place.text: group for place, group in groups.items() if place.kind == "regex"})

    def find(self, method: str, path: str, query: str, headers: Headers) -> int | None:
        """Return the position of the first route that takes the request. `query` is raw and without its `?`."""
        best = self._otherwise
        for group in self._plain.meeting(path):
            best = group.first(method, query, headers, best)
        if self._folded:
            for group in self._folded.meeting(folded(path)):
                best = group.first(method, query, headers, best)
        if self._anywhere is not None:
            best = self._anywhere.first(method, query, headers, best)
        if self._patterns.earliest < best:
            for group in self._patterns.meeting(path):
                best = group.first(method, query, headers, best)
        return best if best < self._size else None


class _Place(NamedTuple):
    """What routes of one group ask of the path: two that are written otherwise may ask the same."""

    kind: str
    text: str
    ignore_case: bool


_ANYWHERE = _Place("anywhere", "", ignore_case=False)


def _place(path: PathMatch | None) -> _Place:
    if path is None:
        return _ANYWHERE
    return _Place(path.kind, path.source if path.kind == "regex" else path.text, path.ignore_case)


class _Paths:
    """Groups by the exact path or the prefix that their routes ask for."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, groups: Mapping[_Place, _Group]) -> None:
        self._exact = {place.text: group for place, group in groups.items() if place.kind == "exact"}
        self._prefixes = Prefixes({place.text: group for place, group in groups.items() if place.kind == "prefix"})

    def __bool__(self) -> bool:
        return bool(self._exact) or bool(self._prefixes)

    def meeting(self, path: str) -> list[_Group]:
        """Return the groups that a path meets."""
        exact = self._exact.get(path)
        found = [exact] if exact is not None else []
        node = self._prefixes.longest(path)
        while node is not None:
            found.append(node.value)
            node = node.above
        return found


class _Patterns:
    """Groups by the regular expression that their routes ask for."""

    __slots__ = ("_groups", "_patterns", "earliest")

    def __init__(self, groups: Mapping[str, _Group]) -> None:
        self._patterns = FullMatches(tuple(groups))
        self._groups = tuple(groups.values())
        self.earliest = min((group.earliest for group in self._groups), default=1 << 62)

    def meeting(self, path: str) -> list[_Group]:
        """Return the groups that a path meets."""
        groups = self._groups
        return [groups[position] for position in self._patterns.of(path)]


# --- routes of one path --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    position: int
    match: RouteMatch


class _Group(Protocol):
    """Routes that ask the same of the path. `earliest` is the lowest position among them."""

    earliest: int

    def first(self, method: str, query: str, headers: Headers, before: int) -> int:
        """Return the position of the first that takes the request, or `before` when that is not lower."""
        ...


class _InOrder:
    """Routes to be tried one by one."""

    __slots__ = ("_tests", "earliest")

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.earliest = entries[0].position
        self._tests = tuple((entry.position, entry.match.besides_path) for entry in entries)

    def first(self, method: str, query: str, headers: Headers, before: int) -> int:
        for position, test in self._tests:
            if position >= before:
                break
            if test is None or test(method, query, headers):
                return position
        return before


class _ByValue:
    """Routes by an exact value that each of them asks for, and the others."""

    __slots__ = ("_groups", "_others", "_values", "earliest")

    def __init__(self, trait: _Trait, entries: Sequence[_Entry], used: frozenset[_Trait]) -> None:
        self.earliest = entries[0].position
        gathered: defaultdict[str, list[_Entry]] = defaultdict(list)
        others = []
        for entry in entries:
            values = _traits(entry.match).get(trait, ())
            for value in values:
                gathered[value].append(entry)
            if not values:
                others.append(entry)
        self._groups = {value: _group(some, used | {trait}) for value, some in gathered.items()}
        self._others = _group(others, used | {trait}) if others else None
        self._values = trait.reader()

    def first(self, method: str, query: str, headers: Headers, before: int) -> int:
        if before <= self.earliest:
            return before
        for value in self._values(method, query, headers):
            group = self._groups.get(value)
            if group is not None:
                before = group.first(method, query, headers, before)
        return self._others.first(method, query, headers, before) if self._others is not None else before


@dataclass(frozen=True, slots=True)
class _Trait:
    """What tells routes apart: the method, a header or a query parameter of this name (as on the wire)."""

    kind: str
    name: str = ""

    def reader(self) -> Callable[[str, str, Headers], Iterable[str]]:
        """Return what reads a request's values of it."""
        name = self.name
        match self.kind:
            case "method":
                return lambda method, _query, _headers: (method,)
            case "header":
                return lambda _method, _query, headers: headers.get_all(name)
            case _:
                return lambda _method, query, _headers: _some(parameter(query, name))


def _some(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _traits(match: RouteMatch) -> dict[_Trait, tuple[str, ...]]:
    """Return the exact values of which a request must have one, by trait."""
    found = {_Trait("method"): tuple(sorted(match.methods))} if match.methods else {}
    for kind, tests in (("query", match.query), ("header", match.headers)):
        for test in tests:
            if test.kind == "exact" and not (test.invert or test.ignore_case):
                name = test.name.lower() if kind == "header" else on_the_wire(test.name)
                found[_Trait(kind, name)] = (test.text,)
    return found


def _group(entries: Sequence[_Entry], used: frozenset[_Trait] = frozenset()) -> _Group:
    """Return the routes, gathered by what tells most of them apart if they are many."""
    trait = _most_telling(entries, used) if len(entries) > _FEW else None
    return _InOrder(entries) if trait is None else _ByValue(trait, entries, used)


def _most_telling(entries: Sequence[_Entry], used: frozenset[_Trait]) -> _Trait | None:
    values: defaultdict[_Trait, set[str]] = defaultdict(set)
    asked: defaultdict[_Trait, int] = defaultdict(int)
    for entry in entries:
        for trait, wanted in _traits(entry.match).items():
            values[trait].update(wanted)
            asked[trait] += 1
    telling = {trait: len(found) for trait, found in values.items() if trait not in used and asked[trait] > _FEW}
    best = max(telling, key=lambda trait: telling[trait], default=None)
    return best if best is not None and telling[best] > 1 else None
