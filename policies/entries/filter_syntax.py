"""Whether a subset filter parses, with the error text of Consul's own parser.

When a resolver is written Consul looks at the syntax of its filters only: selectors and types are first looked at when
the filter runs (`policies.filters`). Its parser reports the furthest place that it reached and all that it tried there,
which is kept here: small matchers note what they wanted. Linear in the length of the text: results of groups are
remembered, runs of `not`, `and` and `or` are loops, and groups nest at most 32 deep.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from policies.filters import MAX_NESTING

_ESCAPE = re.compile(r'\\(?:[abfnrtv\\"]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|[^\\\n]')
_MISS = -1

Matcher = Callable[["_Run", int], int]  # the end of the match, or _MISS


def syntax_error(source: str) -> str:
    """Return why the text is no filter, in Consul's words, or "" if it parses."""
    if _nesting(source) > MAX_NESTING:
        return f"filter nests deeper than {MAX_NESTING} levels"
    run = _Run(source)
    if _input(run, 0) == _MISS and not run.errors:
        run.refuse(run.furthest, f"no match found, expected: {run.wanted_text()}")
    return "\n".join(run.errors)


def _nesting(source: str) -> int:
    deepest = depth = 0
    for character in re.sub(r'"[^"]*"|`[^`]*`', "", source):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


class _Run:
    """One pass over one text: the furthest failure, what was wanted there, and errors with a text of their own."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.furthest = 0
        self.wanted: set[str] = set()
        self.inverted = False
        self.errors: dict[str, None] = {}
        self.known: dict[tuple[str, int], int] = {}

    def note(self, position: int, want: str, *, matched: bool) -> None:
        if matched is not self.inverted or position < self.furthest:
            return
        if position > self.furthest:
            self.furthest = position
            self.wanted.clear()
        self.wanted.add(f"!{want}" if self.inverted else want)

    def refuse(self, position: int, message: str, rule: str = "") -> None:
        before = self.source[: position + 1]
        column = position + 1 - (before.rfind("\n") + 1)
        offset = len(self.source[:position].encode())
        where = f"{before.count(chr(10)) + 1}:{column} ({offset})"
        self.errors[f'{where}: rule "{rule}": {message}' if rule else f"{where}: {message}"] = None

    def wanted_text(self) -> str:
        wanted = sorted(self.wanted - {"!."}) + (["EOF"] if "!." in self.wanted else [])
        return f"{', '.join(wanted[:-1])} or {wanted[-1]}" if len(wanted) > 1 else "".join(wanted)


# --- matchers ---------------------------------------------------------------------------------------------------------


def _literal(text: str) -> Matcher:
    want = '"' + text.replace('"', r"\"") + '"'

    def match(run: _Run, at: int) -> int:
        matched = run.source.startswith(text, at)
        run.note(at, want, matched=matched)
        return at + len(text) if matched else _MISS

    return match


def _one_of(want: str) -> Matcher:
    fits = re.compile(want).match

    def match(run: _Run, at: int) -> int:
        matched = fits(run.source, at) is not None
        run.note(at, want, matched=matched)
        return at + 1 if matched else _MISS

    return match


def _any(run: _Run, at: int) -> int:
    matched = at < len(run.source)
    run.note(at, ".", matched=matched)
    return at + 1 if matched else _MISS


def _all(*parts: Matcher) -> Matcher:
    def match(run: _Run, at: int) -> int:
        for part in parts:
            at = part(run, at)
            if at == _MISS:
                return _MISS
        return at

    return match


def _first(*choices: Matcher) -> Matcher:
    def match(run: _Run, at: int) -> int:
        return next((end for choice in choices if (end := choice(run, at)) != _MISS), _MISS)

    return match


def _many(part: Matcher, least: int = 0) -> Matcher:
    def match(run: _Run, at: int) -> int:
        count = 0
        while (end := part(run, at)) != _MISS:
            at, count = end, count + 1
        return at if count >= least else _MISS

    return match


def _maybe(part: Matcher) -> Matcher:
    return _first(part, lambda _run, at: at)


def _unless(part: Matcher) -> Matcher:
    def match(run: _Run, at: int) -> int:
        run.inverted = not run.inverted
        end = part(run, at)
        run.inverted = not run.inverted
        return at if end == _MISS else _MISS

    return match


def _ahead(part: Matcher) -> Matcher:
    return lambda run, at: at if part(run, at) != _MISS else _MISS


def _refusal(message: str, rule: str) -> Matcher:
    def match(run: _Run, at: int) -> int:
        run.refuse(at, message, rule)
        return _MISS

    return match


def _remembered(name: str, part: Matcher) -> Matcher:
    def match(run: _Run, at: int) -> int:
        if (name, at) not in run.known:
            run.known[name, at] = part(run, at)
        return run.known[name, at]

    return match


# --- the grammar ------------------------------------------------------------------------------------------------------

_space = _many(_one_of(r"[ \t\r\n]"), least=1)
_gap = _maybe(_space)
_end = _unless(_any)
_identifier = _all(_one_of("[a-zA-Z]"), _many(_one_of("[a-zA-Z0-9_]")))


def _unquoted(part: Matcher) -> Matcher:
    """Match a string, and refuse one that Go could not unquote."""

    def match(run: _Run, at: int) -> int:
        end = part(run, at)
        if end != _MISS and run.source[at] == '"' and _ESCAPE.sub("", run.source[at + 1 : end - 1]):
            run.refuse(at, "invalid syntax", "string")
        return end

    return match


_raw = _all(_literal("`"), _many(_all(_unless(_literal("`")), _any)))
_double = _all(_literal('"'), _many(_all(_unless(_literal('"')), _any)))
_string = _first(
    _unquoted(_first(_all(_raw, _literal("`")), _all(_double, _literal('"')))),
    _all(_first(_raw, _double), _end, _refusal("Unterminated string literal", "string")),
)
_index = _first(
    _all(_literal("["), _gap, _string, _gap, _literal("]")),
    _all(_literal("["), _gap, _unless(_string), _refusal("Invalid index", "index")),
    _all(_literal("["), _gap, _string, _gap, _unless(_literal("]")), _refusal("Unclosed index expression", "index")),
)
_selector = _all(_identifier, _many(_first(_all(_literal("."), _identifier), _index)))
_digits = _many(_one_of("[0-9]"))
_number_body = _all(
    _maybe(_literal("-")),
    _first(_literal("0"), _all(_one_of("[1-9]"), _digits)),
    _maybe(_all(_literal("."), _many(_one_of("[0-9]"), least=1))),
)
_after_number = _ahead(_first(_space, _end, _literal(")")))
_number = _first(
    _all(_number_body, _ahead(_after_number)),
    _all(_number_body, _unless(_after_number), _refusal("Invalid number literal", "number")),
)
_value = _first(_selector, _number, _string)


def _words(*words: str) -> Matcher:
    parts = [part for word in words for part in (_space, _literal(word))]
    return _all(*parts)


_in = _first(_all(_words("in"), _space), _all(_words("not", "in"), _space))
_operator = _first(
    _all(_gap, _literal("=="), _gap),
    _all(_gap, _literal("!="), _gap),
    *(_all(_words(*words), _space) for words in (("contains",), ("not", "contains"), ("matches",), ("not", "matches"))),
)
_match = _first(
    _all(_selector, _operator, _value),
    _all(_selector, _first(_words("is", "empty"), _words("is", "not", "empty"))),
    _all(_value, _in, _selector),
    _all(_value, _in, _unless(_selector), _refusal("Invalid selector", "match")),
)


def _group(run: _Run, at: int) -> int:
    if ("group", at) not in run.known:
        run.known["group", at] = _group_body(run, at)
    return run.known["group", at]


def _negated(run: _Run, at: int) -> int:
    """Match any number of `not`, as few as are needed."""
    starts = [at]
    while (end := _not(run, starts[-1])) != _MISS:
        starts.append(end)
    return next((end for start in reversed(starts) if (end := _group(run, start)) != _MISS), _MISS)


def _chain(part: Matcher, word: str) -> Matcher:
    """Match parts with a word between them, as many as there are."""
    joint = _all(_space, _literal(word), _space)

    def match(run: _Run, at: int) -> int:
        end = part(run, at)
        while end != _MISS:
            start = joint(run, end)
            further = part(run, start) if start != _MISS else _MISS
            if further == _MISS:
                return end
            end = further
        return _MISS

    return match


_not = _all(_literal("not"), _space)
_or = _remembered("or", _chain(_remembered("and", _chain(_negated, "and")), "or"))
_group_body = _first(
    _all(_literal("("), _gap, _or, _gap, _literal(")")),
    _match,
    _all(_literal("("), _gap, _or, _gap, _unless(_literal(")")), _refusal("Unmatched parentheses", "grouping")),
)
_input = _first(
    _all(_gap, _literal("("), _gap, _or, _gap, _literal(")"), _gap, _end),
    _all(_gap, _or, _gap, _end),
)
