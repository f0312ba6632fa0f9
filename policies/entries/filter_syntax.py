"""Whether a subset filter parses, with the error text of Consul's own parser.

When a resolver is written Consul looks at the syntax of its filters only: selectors and types are first looked at when
the filter runs (`policies.filters`). Its parser reports the furthest place that it reached and all that it tried there,
which is kept here: small matchers note what they wanted. Linear in the length of the text: results of groups are
remembered, runs of `not`, `and` and `or` are loops, and groups nest at most 32 deep.
"""

from __future__ import annotations

import re

from policies.entries.matchers import (
    MISS,
    Matcher,
    Run,
    ahead,
    anything,
    first,
    literal,
    many,
    maybe,
    one_of,
    refusal,
    remembered,
    sequence,
    unless,
)
from policies.filters import MAX_NESTING

_ESCAPE = re.compile(r'\\(?:[abfnrtv\\"]|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|[^\\\n]')


def syntax_error(source: str) -> str:
    """Return why the text is no filter, in Consul's words, or "" if it parses."""
    if _nesting(source) > MAX_NESTING:
        return f"filter nests deeper than {MAX_NESTING} levels"
    run = Run(source)
    if _input(run, 0) == MISS and not run.errors:
        run.refuse(run.furthest, f"no match found, expected: {run.wanted_text()}")
    return "\n".join(run.errors)


def _nesting(source: str) -> int:
    deepest = depth = 0
    for character in re.sub(r'"[^"]*"|`[^`]*`', "", source):
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


# --- the grammar ------------------------------------------------------------------------------------------------------

_space = many(one_of(r"[ \t\r\n]"), least=1)
_gap = maybe(_space)
_end = unless(anything)
_identifier = sequence(one_of("[a-zA-Z]"), many(one_of("[a-zA-Z0-9_]")))


def _unquoted(part: Matcher) -> Matcher:
    """Match a string, and refuse one that Go could not unquote."""

    def match(run: Run, at: int) -> int:
        end = part(run, at)
        if end != MISS and run.source[at] == '"' and _ESCAPE.sub("", run.source[at + 1 : end - 1]):
            run.refuse(at, "invalid syntax", "string")
        return end

    return match


_raw = sequence(literal("`"), many(sequence(unless(literal("`")), anything)))
_double = sequence(literal('"'), many(sequence(unless(literal('"')), anything)))
_string = first(
    _unquoted(first(sequence(_raw, literal("`")), sequence(_double, literal('"')))),
    sequence(first(_raw, _double), _end, refusal("Unterminated string literal", "string")),
)
_index = first(
    sequence(literal("["), _gap, _string, _gap, literal("]")),
    sequence(literal("["), _gap, unless(_string), refusal("Invalid index", "index")),
    sequence(literal("["), _gap, _string, _gap, unless(literal("]")), refusal("Unclosed index expression", "index")),
)
_selector = sequence(_identifier, many(first(sequence(literal("."), _identifier), _index)))
_digits = many(one_of("[0-9]"))
_number_body = sequence(
    maybe(literal("-")),
    first(literal("0"), sequence(one_of("[1-9]"), _digits)),
    maybe(sequence(literal("."), many(one_of("[0-9]"), least=1))),
)
_after_number = ahead(first(_space, _end, literal(")")))
_number = first(
    sequence(_number_body, ahead(_after_number)),
    sequence(_number_body, unless(_after_number), refusal("Invalid number literal", "number")),
)
_value = first(_selector, _number, _string)


def _words(*words: str) -> Matcher:
    parts = [part for word in words for part in (_space, literal(word))]
    return sequence(*parts)


_in = first(sequence(_words("in"), _space), sequence(_words("not", "in"), _space))
_operator = first(
    sequence(_gap, literal("=="), _gap),
    sequence(_gap, literal("!="), _gap),
    *(
        sequence(_words(*words), _space)
        for words in (("contains",), ("not", "contains"), ("matches",), ("not", "matches"))
    ),
)
_match = first(
    sequence(_selector, _operator, _value),
    sequence(_selector, first(_words("is", "empty"), _words("is", "not", "empty"))),
    sequence(_value, _in, _selector),
    sequence(_value, _in, unless(_selector), refusal("Invalid selector", "match")),
)


def _group(run: Run, at: int) -> int:
    if ("group", at) not in run.known:
        run.known["group", at] = _group_body(run, at)
    return run.known["group", at]


def _negated(run: Run, at: int) -> int:
    """Match any number of `not`, as few as are needed."""
    starts = [at]
    while (end := _not(run, starts[-1])) != MISS:
        starts.append(end)
    return next((end for start in reversed(starts) if (end := _group(run, start)) != MISS), MISS)


def _chain(part: Matcher, word: str) -> Matcher:
    """Match parts with a word between them, as many as there are."""
    joint = sequence(_space, literal(word), _space)

    def match(run: Run, at: int) -> int:
        end = part(run, at)
        while end != MISS:
            start = joint(run, end)
            further = part(run, start) if start != MISS else MISS
            if further == MISS:
                return end
            end = further
        return MISS

    return match


_not = sequence(literal("not"), _space)
_or = remembered("or", _chain(remembered("and", _chain(_negated, "and")), "or"))
_group_body = first(
    sequence(literal("("), _gap, _or, _gap, literal(")")),
    _match,
    sequence(literal("("), _gap, _or, _gap, unless(literal(")")), refusal("Unmatched parentheses", "grouping")),
)
_input = first(
    sequence(_gap, literal("("), _gap, _or, _gap, literal(")"), _gap, _end),
    sequence(_gap, _or, _gap, _end),
)
