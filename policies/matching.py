"""What intentions and routers ask of a request: its path, method, headers and query, each test made once.

The rules are Envoy's under Consul: a header that is missing fails every test of a value, inverted or not; repeated
lines are tested one by one; a regular expression must match the whole value; names are compared in lower case.

Envoy compares bytes. A path or a value off the wire is text of one character a byte (latin-1), so what is written in an
entry is brought to that form before it is compared, and case is that of ASCII alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from policies.errors import EntryError
from policies.regexes import Predicate, full_match
from policies.weak import items, mapping


class Headers(Protocol):
    """A request's headers. Values are trimmed; `host`, `:authority`, `:method` and `:path` are names too."""

    def get_all(self, name: str) -> Sequence[str]:
        """Return the values of every line of that name (lower case), in order."""
        ...


@dataclass(frozen=True, slots=True)
class PathMatch:
    """`PathExact`, `PathPrefix` or `PathRegex`. `source` keeps what was written: two matches are equal by it."""

    kind: str  # exact, prefix, regex
    source: str
    ignore_case: bool = False

    def compiled(self) -> Predicate:
        """Return the test. Raise EntryError for a regular expression that RE2 does not take."""
        text = self.text
        match self.kind, self.ignore_case:
            case "regex", _:
                return full_match(self.source)
            case "exact", False:
                return lambda path: path == text
            case "exact", True:
                return lambda path: folded(path) == text
            case _, False:
                return lambda path: path.startswith(text)
            case _:
                return lambda path: folded(path).startswith(text)

    @property
    def text(self) -> str:
        """Return the source in the form of the wire, in lower case where case does not count."""
        return folded(on_the_wire(self.source)) if self.ignore_case else on_the_wire(self.source)


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """One test of a header or of a query parameter: kind is present, exact, prefix, suffix, contains or regex."""

    name: str
    kind: str
    source: str = ""
    invert: bool = False
    ignore_case: bool = False

    def compiled(self) -> Predicate:
        """Return the test of one value, before inversion. Raise EntryError for a bad regular expression."""
        text = self.text
        plain: dict[str, Predicate] = {
            "present": lambda _: True,
            "exact": lambda value: value == text,
            "prefix": lambda value: value.startswith(text),
            "suffix": lambda value: value.endswith(text),
            "contains": lambda value: text in value,
        }
        test = plain.get(self.kind) or full_match(self.source)
        return (lambda value: test(folded(value))) if self.ignore_case else test

    @property
    def text(self) -> str:
        """Return the source in the form of the wire, in lower case where case does not count."""
        return folded(on_the_wire(self.source)) if self.ignore_case else on_the_wire(self.source)


def on_the_wire(text: str) -> str:
    """Return a text as its bytes look when they are read one character a byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def folded(value: str) -> str:
    """Return a value off the wire with the capitals of ASCII in lower case."""
    return value.lower() if value.isascii() else value.encode("latin-1", "replace").lower().decode("latin-1")


_AS_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}  # what "surrogateescape" makes of a byte


def _readable(value: str) -> str:
    """Return a value off the wire as somebody may read it who takes each byte that is no UTF-8 for latin-1."""
    return on_the_wire(value.encode("latin-1", "replace").decode("utf-8", "surrogateescape").translate(_AS_LATIN_1))


def _careful(match: PathMatch | ValueMatch, *, denies: bool) -> Predicate:
    """Return the test of a rule that decides who may call, for values that may be no UTF-8.

    No `.` of an expression takes such a byte, so that one byte more would pass a deny. Such a value is tested as it
    came and as it may be read: a deny needs one of the two, an allow both.
    """
    test = match.compiled()
    if match.kind != "regex" and match.source.isascii():
        return test  # the same of both
    one_is_enough = denies is not (isinstance(match, ValueMatch) and match.invert)

    def careful(value: str) -> bool:
        met = test(value)
        return met if met is one_is_enough or value.isascii() else test(_readable(value))

    return careful


def parse_path(row: Mapping[str, Any]) -> PathMatch | None:
    """Return the path test of a `Match.HTTP` or of a permission's `HTTP`; None takes every path."""
    ignore_case = bool(row.get("CaseInsensitive"))
    for field, kind in (("PathExact", "exact"), ("PathPrefix", "prefix"), ("PathRegex", "regex")):
        if row.get(field):
            return PathMatch(kind, str(row[field]), ignore_case and kind != "regex")
    return None


_VALUE_FIELDS = (
    ("Exact", "exact"),
    ("Prefix", "prefix"),
    ("Suffix", "suffix"),
    ("Contains", "contains"),
    ("Regex", "regex"),
)


KNOWN_IN_VALUE = frozenset({"Name", "Present", "Invert", "IgnoreCase", *(field for field, _ in _VALUE_FIELDS)})


def unknown(row: Mapping[str, Any], known: frozenset[str]) -> str:
    """Return the name of a criterion that a later Consul may have and this program has not, "" if there is none."""
    return next((key for key in sorted(row) if key not in known and row[key]), "")


def unknown_in_values(rows: object, known: frozenset[str] = KNOWN_IN_VALUE) -> str:
    """Return the name of such a criterion in a `Header` or `QueryParam` list, "" if there is none."""
    return next(filter(None, (unknown(mapping(row), known) for row in items(rows))), "")


def parse_values(rows: object) -> tuple[ValueMatch, ...]:
    """Return the tests of a `Header` or `QueryParam` list. Raise EntryError for one without a criterion."""
    return tuple(_value_match(mapping(row)) for row in items(rows))


def _value_match(row: Mapping[str, Any]) -> ValueMatch:
    name = str(row.get("Name") or "")
    common = {"invert": bool(row.get("Invert")), "ignore_case": bool(row.get("IgnoreCase"))}
    for field, kind in _VALUE_FIELDS:
        if row.get(field):
            return ValueMatch(name, kind, str(row[field]), **common)
    if row.get("Present"):
        return ValueMatch(name, "present", "", invert=common["invert"])
    message = f"the match of {name!r} has none of Present, Exact, Prefix, Suffix, Contains, Regex"
    raise EntryError(message)


def parse_methods(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the methods asked for; an empty set takes every method."""
    return frozenset(str(method).upper() for method in items(row.get("Methods")))


class RequestTest:
    """All criteria of one rule, compiled. Every one must hold. `denies`: a rule that decides who may call denies."""

    __slots__ = ("_headers", "_methods", "_path")

    def __init__(
        self,
        path: PathMatch | None,
        methods: frozenset[str],
        headers: tuple[ValueMatch, ...],
        *,
        denies: bool | None = None,
    ) -> None:
        def compiled(match: PathMatch | ValueMatch) -> Predicate:
            return match.compiled() if denies is None else _careful(match, denies=denies)

        self._path = compiled(path) if path is not None else None
        self._methods = methods
        self._headers = tuple((match.name.lower(), match, compiled(match)) for match in headers)

    def __call__(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether the request meets every criterion. `path` comes without its query."""
        if self._path is not None and not self._path(path):
            return False
        if self._methods and method not in self._methods:
            return False
        return not self._headers or all(
            _meets(match, test, headers.get_all(name)) for name, match, test in self._headers
        )


def _meets(match: ValueMatch, test: Predicate, values: Sequence[str]) -> bool:
    if match.kind == "present":
        return bool(values) is not match.invert
    if not values:
        return False
    return any(test(value) for value in values) is not match.invert
