"""HCL 1, the language of Consul's config entries, service definitions and ACL rules.

    document := { item [","] }            item  := key "=" value | key { key } object
    object   := "{" { item [","] } "}"    value := number | true | false | string | heredoc | list | object

An object is a dict; a block that comes again makes a list of dicts; the last of repeated scalars wins; labels become
keys below their block. Our own, because the kept libraries read something else: pyhcl takes bare words and `a: b`,
leaves escapes undecoded and octal numbers decimal; python-hcl2 is of HCL 2. Tokens first, then one pass: linear.
Source: the documentation of HCL 1, and what `consul config write` was seen to make of each form.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policies.errors import MeshError

DEEPEST = 64
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_WORD = re.compile(r"[^\W\d][\w.-]*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
_HEREDOC = re.compile(r"<<(-?)(\w+)[ \t]*\r?\n")
_ESCAPE = re.compile(r'\\(?:([abfnrtv\\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))')
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_SIGNS = frozenset("={}[],")


class HclError(MeshError):
    """Text that is no HCL. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"At {line}:{column}: {message}")
        self.line = line
        self.column = column
        self.message = message


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is a sign, or word, text, number, or end."""

    kind: str
    value: Any
    position: int


class Located(dict[str, Any]):
    """An object that knows on which line each of its keys stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def parse_hcl(text: str) -> Located:
    """Return the document. Raise HclError for the first thing that is not HCL 1."""
    return _Parser(text).document()


class _Parser:
    """One pass over the tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_scan(text))
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._next = 0

    def document(self) -> Located:
        return self._items("end", 0)

    def _items(self, closing: str, depth: int) -> Located:
        found = Located()
        while self._peek().kind != closing:
            token = self._peek()
            if token.kind not in {"word", "text"}:
                raise self._error(token, f"a key or {_named(closing)} was expected, not {_shown(token)}")
            self._item(found, depth)
            if self._peek().kind == ",":
                self._next += 1
        self._next += 1
        return found

    def _item(self, found: Located, depth: int) -> None:
        first = self._take()
        keys = [str(first.value)]
        while self._peek().kind in {"word", "text"}:
            keys.append(str(self._take().value))
        token = self._take()
        if token.kind == "=" and len(keys) == 1:
            if self._peek().kind == "end":
                return  # Consul takes `Name =` at the very end for no name at all
            value = self._value(depth)
        elif token.kind == "{":
            value = self._object(token, depth)
        elif len(keys) > 1:
            raise self._error(token, f"nested object expected: LBRACE got: {_shown(token)}")
        else:
            said = f"key '{keys[0]}' expected start of object ('{{') or assignment ('=')"
            at = token.position + (token.kind == "end")
            raise _error(self._text, at, said)
        for label in reversed(keys[1:]):
            below = Located()
            below[label], below.lines[label] = value, self._line(first.position)
            value = below
        self._put(found, keys[0], value, first.position)

    def _put(self, found: Located, key: str, value: Any, position: int) -> None:
        found.lines.setdefault(key, self._line(position))
        held = found.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            found[key] = [held, value]
        elif isinstance(value, dict) and isinstance(held, list):
            held.append(value)
        else:
            found[key] = value

    def _value(self, depth: int) -> Any:
        token = self._take()
        if token.kind in {"text", "number"}:
            return token.value
        if token.kind == "word" and token.value in {"true", "false"}:
            return token.value == "true"
        if token.kind == "[":
            return self._list(token, depth)
        if token.kind == "{":
            return self._object(token, depth)
        raise self._error(token, f"a value was expected, not {_shown(token)}; texts stand in double quotes")

    def _object(self, token: Token, depth: int) -> Located:
        if depth >= DEEPEST:
            raise self._error(token, f"nests deeper than {DEEPEST} levels")
        return self._items("}", depth + 1)

    def _list(self, opening: Token, depth: int) -> list[Any]:
        if depth >= DEEPEST:
            raise self._error(opening, f"nests deeper than {DEEPEST} levels")
        values: list[Any] = []
        while self._peek().kind != "]":
            values.append(self._value(depth + 1))
            token = self._peek()
            if token.kind == ",":
                self._next += 1
            elif token.kind != "]":
                raise self._error(token, f"a comma or ']' was expected in a list, not {_shown(token)}")
        self._next += 1
        return values

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _line(self, position: int) -> int:
        return bisect.bisect_left(self._ends, position) + 1

    def _error(self, token: Token, message: str) -> HclError:
        return _error(self._text, token.position, message)


def _error(text: str, position: int, message: str) -> HclError:
    return HclError(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position), message)


def _named(kind: str) -> str:
    return "the end" if kind == "end" else f"'{kind}'"


def _shown(token: Token) -> str:
    return "the end of the text" if token.kind == "end" else f"{token.value!r}"


# --- tokens --------------------------------------------------------------------------------------------------------


def _scan(text: str) -> Iterator[Token]:
    position = 0
    while True:
        space = _SPACE.match(text, position)
        position = space.end() if space else position
        if position >= len(text):
            yield Token("end", "", len(text))
            return
        token, position = _token(text, position)
        yield token


def _token(text: str, at: int) -> tuple[Token, int]:
    sign = text[at]
    if sign in _SIGNS:
        return Token(sign, sign, at), at + 1
    if sign == '"':
        value, end = _string(text, at)
        return Token("text", value, at), end
    if sign == "<":
        value, end = _heredoc(text, at)
        return Token("text", value, at), end
    if found := _NUMBER.match(text, at):
        following = text[found.end() : found.end() + 1]
        if following.isalnum() or following in {"_", "."}:
            raise _error(text, at, f"{text[at : found.end() + 1]!r} is no number")
        return Token("number", _number(text, at, found[0]), at), found.end()
    if found := _WORD.match(text, at):
        return Token("word", found[0], at), found.end()
    if text.startswith("/*", at):
        raise _error(text, at, "comment not terminated")
    raise _error(text, at, f"illegal character {sign!r}")


def _number(text: str, at: int, digits: str) -> int | float:
    bare = digits.lstrip("-")
    sign = -1 if digits.startswith("-") else 1
    try:
        if bare[:2] in {"0x", "0X"}:
            return sign * int(bare, 16)
        if "." in bare or "e" in bare.lower():
            return float(digits)
        return sign * int(bare, 8 if len(bare) > 1 and bare[0] == "0" else 10)
    except ValueError as error:
        raise _error(text, at, f"{digits} is no number") from error


def _string(text: str, at: int) -> tuple[str, int]:
    """Read a string in quotes. `${...}` is kept as it is, quotes and newlines inside of it included."""
    parts: list[str] = []
    position = at + 1
    while position < len(text):
        sign = text[position]
        if sign == '"':
            return "".join(parts), position + 1
        if text.startswith("${", position):
            end = _closing(text, position)
            parts.append(text[position:end])
            position = end
        elif sign == "\\":
            found = _ESCAPE.match(text, position)
            if found is None:
                raise _error(text, position, "illegal char escape")
            parts.append(_unescaped(text, found))
            position = found.end()
        elif sign == "\n":
            break
        else:
            stop = re.compile(r'["\\\n]|\$\{').search(text, position + 1)
            end = stop.start() if stop else len(text)
            parts.append(text[position:end])
            position = end
    raise _error(text, at, "literal not terminated")


def _closing(text: str, at: int) -> int:
    """Return where a `${...}` that begins here ends."""
    depth = 0
    for found in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return found.end()
    raise _error(text, at, "literal not terminated: `${` has no `}`")


def _unescaped(text: str, found: re.Match[str]) -> str:
    simple, octal, byte, short, long = found.groups()
    if simple:
        return _SIMPLE[simple]
    code = int(octal, 8) if octal else int(byte or short or long, 16)
    try:
        return chr(code)
    except (ValueError, OverflowError) as error:
        raise _error(text, found.start(), "escape is no Unicode character") from error


def _heredoc(text: str, at: int) -> tuple[str, int]:
    found = _HEREDOC.match(text, at)
    if found is None:
        raise _error(text, at, "heredoc expected: `<<EOF`, and the text from the next line on")
    marker = re.compile(rf"^([ \t]*){re.escape(found[2])}(?=\r?$)", re.MULTILINE)
    end = marker.search(text, found.end())
    if end is None:
        raise _error(text, at, f"heredoc not terminated: no line holds {found[2]} alone")
    body, indent = text[found.end() : end.start()], end[1]
    if not found[1]:
        return body + indent, end.end()
    lines = body.split("\n")
    if all(line.startswith(indent) for line in lines[:-1]):
        body = "\n".join(line.removeprefix(indent) for line in lines)
    return body, end.end()
