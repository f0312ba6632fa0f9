"""Subset filters: the go-bexpr language as Consul takes it, for rows of health queries.

    expression := and-expression { "or" and-expression }        `and` binds tighter than `or`, `not` tightest
    match      := selector ("==" | "!=" | contains | not contains | matches | not matches) value
                | value ("in" | "not in") selector | selector "is" ["not"] "empty"

Tokens first, then one pass with one token of lookahead: linear in the length of the text. Parentheses nest at most 32
deep (Consul's own parser takes exponential time there). A selector is checked against the fields of a row when the
filter is parsed, so a filter that parsed always answers. What a missing map key means is Consul's: `==`, `in` and
`contains` are false, every other operator is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.errors import EntryError, FilterError
from policies.regexes import search

MAX_NESTING = 32

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>==|!=)
      | (?P<open>\()
      | (?P<close>\))
      | "(?P<quoted>[^"]*)"
      | `(?P<raw>[^`]*)`
      | (?P<number>-?[0-9][0-9A-Za-z_.\-]*)
      | (?P<word>[a-zA-Z][a-zA-Z0-9_/]*(?:\.[a-zA-Z][a-zA-Z0-9_/]*|\["[^"]*"\]|\[`[^`]*`\])*)
    )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_PART = re.compile(r"""\["(?P<quoted>[^"]*)"\]|\[`(?P<raw>[^`]*)`\]|\.?(?P<plain>[^.\[]+)""")
_SEPARATORS = frozenset('=!()"` \t\r\n')

# --- the shape of a row --------------------------------------------------------------------------------------------

Kind = str | dict[str, Any] | tuple[str, Any]  # "text", a struct, or ("list" | "map", kind of the elements)
_TEXT, _INTEGER, _FLAG = "text", "integer", "flag"
CHECK: dict[str, Kind] = {
    **dict.fromkeys(
        ("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "Type"), _TEXT
    ),
    **dict.fromkeys(("Interval", "Timeout", "PeerName"), _TEXT),
    "ServiceTags": ("list", _TEXT),
    "ExposedPort": _INTEGER,
}
_UPSTREAM: dict[str, Kind] = {
    **dict.fromkeys(
        ("DestinationType", "DestinationNamespace", "DestinationName", "Datacenter", "LocalBindAddress"), _TEXT
    ),
    "LocalBindPort": _INTEGER,
}
ROW: dict[str, Kind] = {
    "Node": {
        **dict.fromkeys(("ID", "Node", "Address", "Datacenter", "PeerName"), _TEXT),
        "Meta": ("map", _TEXT),
        "TaggedAddresses": ("map", _TEXT),
    },
    "Service": {
        **dict.fromkeys(("ID", "Service", "Kind", "Address", "SocketPath", "PeerName"), _TEXT),
        "Port": _INTEGER,
        "EnableTagOverride": _FLAG,
        "Tags": ("list", _TEXT),
        "Meta": ("map", _TEXT),
        "TaggedAddresses": ("map", {"Address": _TEXT, "Port": _INTEGER}),
        "Weights": {"Passing": _INTEGER, "Warning": _INTEGER},
        "Connect": {"Native": _FLAG},
        "Proxy": {
            **dict.fromkeys(
                ("DestinationServiceName", "DestinationServiceID", "LocalServiceAddress", "LocalServiceSocketPath"),
                _TEXT,
            ),
            "Mode": _TEXT,
            "LocalServicePort": _INTEGER,
            "Upstreams": ("list", _UPSTREAM),
        },
    },
    "Checks": ("list", CHECK),
}

Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter. Equal by its text."""

    source: str
    _test: Test = field(repr=False, compare=False)

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of a health query (`Node`, `Service`, `Checks`) passes."""
        return self._test(row)


def parse_filter(source: str, shape: Mapping[str, Kind] = ROW) -> Filter:
    """Return the filter, for rows of this shape. Raise FilterError naming the place for text that Consul refuses."""
    parser = _Parser(source, _tokens(source), shape)
    test = parser.any_of(0)
    parser.end()
    return Filter(source, test)


# --- tokens --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # operator, open, close, text (a quoted value), number, word, end
    value: str
    position: int


def _tokens(source: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end_of_words = 0, len(source.rstrip())
    while position < end_of_words:
        found = _TOKEN.match(source, position)
        if found is None or found.lastgroup is None:
            raise _error(source, position, "a selector, a value or an operator was expected")
        kind, value, end = found.lastgroup, found[found.lastgroup], found.end()
        if kind in {"number", "word"} and end < len(source) and source[end] not in _SEPARATORS:
            raise _error(source, end, f"{source[end]!r} cannot stand in a bare value: put it in quotes")
        if kind == "number" and not _NUMBER.fullmatch(value):
            raise _error(source, found.start(kind), f"invalid number literal {value!r}: put it in quotes")
        tokens.append(_Token("text" if kind in {"quoted", "raw"} else kind, value, position))
        position = end
    return [*tokens, _Token("end", "", len(source))]


def _error(source: str, position: int, message: str) -> FilterError:
    return FilterError(f"filter {source!r}, character {position + 1}: {message}")


# --- the parser ----------------------------------------------------------------------------------------------------


class _Parser:
    """One pass over the tokens; every method reads one rule of the grammar and returns its test."""

    def __init__(self, source: str, tokens: list[_Token], shape: Mapping[str, Kind]) -> None:
        self._source = source
        self._shape = dict(shape)
        self._tokens = tokens
        self._next = 0

    def any_of(self, depth: int) -> Test:
        tests = [self._all_of(depth)]
        while self._take_word("or"):
            tests.append(self._all_of(depth))
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def end(self) -> None:
        if self._peek().kind != "end":
            raise self._error("the end, `and` or `or` was expected")

    def _all_of(self, depth: int) -> Test:
        tests = [self._negated(depth)]
        while self._take_word("and"):
            tests.append(self._negated(depth))
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _negated(self, depth: int) -> Test:
        negated = False
        while self._take_word("not"):
            negated = not negated
        test = self._term(depth)
        return (lambda row: not test(row)) if negated else test

    def _term(self, depth: int) -> Test:
        if self._peek().kind != "open":
            return self._match()
        if depth == MAX_NESTING:
            raise self._error(f"filter nests deeper than {MAX_NESTING} levels")
        self._next += 1
        test = self.any_of(depth + 1)
        if self._take().kind != "close":
            self._next -= 1
            raise self._error("`)` was expected")
        return test

    def _match(self) -> Test:
        left = self._take()
        if left.kind not in {"word", "text", "number"}:
            self._next -= 1
            raise self._error("a selector or a value was expected")
        if self._take_word("in"):
            return _compare(self._selector(self._take()), "in", left.value)
        if self._peek_words("not", "in"):
            self._next += 2
            return _compare(self._selector(self._take()), "not in", left.value)
        selector = self._selector(left)
        operator = self._operator()
        if operator.endswith("empty"):
            return _compare(selector, operator, "")
        value = self._take()
        if value.kind not in {"word", "text", "number"}:
            self._next -= 1
            raise self._error("a value was expected")
        return _compare(selector, operator, value.value)

    def _operator(self) -> str:
        token = self._take()
        if token.kind == "operator":
            return token.value
        negation = ""
        if token.kind == "word" and token.value == "is":
            negation = "not " if self._take_word("not") else ""
            if self._take_word("empty"):
                return f"is {negation}empty"
        elif token.kind == "word":
            if token.value == "not":
                negation, token = "not ", self._take()
            if token.value in {"contains", "matches"}:
                return negation + token.value.replace("contains", "in")
        self._next -= 1
        raise self._error("an operator was expected: ==, !=, in, contains, matches, is empty, with or without not")

    def _selector(self, token: _Token) -> _Selector:
        if token.kind != "word":
            self._next -= 1
            raise self._error("a selector such as Service.Meta.version was expected")
        parts = [part["quoted"] or part["raw"] or part["plain"] or "" for part in _PART.finditer(token.value)]
        kind: Kind = self._shape
        for position, part in enumerate(parts):
            if isinstance(kind, tuple) and kind[0] == "list":
                kind = kind[1]
            if isinstance(kind, dict):
                below = kind.get(part)
            elif isinstance(kind, tuple):
                below = kind[1]
            else:
                below = None
            if below is None:
                at = ".".join(parts[: position + 1])
                message = f"filter {self._source!r}: Selector {at!r} is not valid: a row has no such field"
                raise FilterError(message)
            kind = below
        return _Selector(self._source, tuple(parts), kind, self._shape)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _take_word(self, word: str) -> bool:
        if not self._peek_words(word):
            return False
        self._next += 1
        return True

    def _peek_words(self, *words: str) -> bool:
        ahead = self._tokens[self._next : self._next + len(words)]
        return tuple((token.kind, token.value) for token in ahead) == tuple(("word", word) for word in words)

    def _error(self, message: str) -> FilterError:
        return _error(self._source, self._peek().position, message)


# --- what an operator means ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Selector:
    source: str
    parts: tuple[str, ...]
    kind: Kind
    shape: dict[str, Kind]

    def refuse(self, operator: str, reason: str) -> FilterError:
        return FilterError(f"filter {self.source!r}: {operator!r} on {'.'.join(self.parts)}: {reason}")


def _compare(selector: _Selector, operator: str, value: str) -> Test:
    positive = operator.removeprefix("not ").replace("!=", "==").replace("is not", "is")
    test = _value_test(selector, positive, value)
    negated = positive != operator
    if_missing = operator not in {"==", "in"}
    parts = selector.parts

    def answer(row: Mapping[str, Any]) -> bool:
        return _walk(row, selector.shape, parts, 0)

    def _walk(value: Any, kind: Kind, path: tuple[str, ...], at: int) -> bool:
        if isinstance(kind, tuple) and kind[0] == "list" and at < len(path):
            return any(_walk(element, kind[1], path, at) for element in value or ())
        if at == len(path):
            return test(value) is not negated
        if isinstance(kind, tuple):
            held = value or {}
            return _walk(held[path[at]], kind[1], path, at + 1) if path[at] in held else if_missing
        struct = kind if isinstance(kind, dict) else {}
        return _walk((value or {}).get(path[at]), struct[path[at]], path, at + 1)

    return answer


def _value_test(selector: _Selector, operator: str, value: str) -> Callable[[Any], bool]:
    """Return the test of the selected value. None stands for Go's zero value, which JSON leaves out."""
    kind = selector.kind
    collection = isinstance(kind, tuple)
    if operator == "is empty" and collection:
        return lambda held: not held
    if operator == "in" and isinstance(kind, tuple) and (kind[0] == "map" or kind[1] == _TEXT):
        return lambda held: value in (held or ())
    if collection or isinstance(kind, dict) or operator == "is empty":
        raise selector.refuse(operator, "this field cannot be asked so")
    if kind == _TEXT:
        return _text_test(selector, operator, value)
    if operator != "==":
        raise selector.refuse(operator, "only == and != can be asked of a number or a flag")
    if kind == _FLAG:
        flag = _go_flag(selector, value)
        return lambda held: bool(held) is flag
    number = _go_integer(selector, value)
    return lambda held: (held or 0) == number


def _text_test(selector: _Selector, operator: str, value: str) -> Callable[[Any], bool]:
    if operator == "==":
        return lambda held: (held or "") == value
    if operator == "in":
        return lambda held: value in (held or "")
    try:
        found = search(value)
    except EntryError as error:
        raise selector.refuse(operator, str(error)) from error
    return lambda held: found(held or "")


def _go_flag(selector: _Selector, value: str) -> bool:
    if value in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if value in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise selector.refuse("==", f"{value!r} is neither true nor false")


def _go_integer(selector: _Selector, value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", value):  # Go's int has no more, and Python's refuses thousands of them
        raise selector.refuse("==", f"{value!r} is no whole number")
    return int(value)
