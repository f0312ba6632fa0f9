r"""HCL 1, the language of Consul's config entries, service definitions and ACL rules.

    document := { item [","] }            item  := key "=" value | key { key } object
    object   := "{" { item [","] } "}"    value := number | true | false | string | heredoc | list | object

The result is what Go makes of it, because Consul decodes that: an object is a dict; as a value or a block it is
`Blocks` of one dict, in a list it stands plain; labels become keys below their block. What comes again is joined:
blocks and lists grow, a scalar is replaced by one of its kind, and anything else is refused.

Our own, because the kept libraries read something else; both were tried on the forms that the tests hold:
* pyhcl 0.4.5 (of 2023) stops at `"\\"` and at `[[1]]`, leaves `\u00e9` undecoded, reads `010` as ten, takes the last
  newline from a heredoc and leaves the indent of `<<-`, merges repeated `a = {...}`, takes `a = b`, `a : 1` and `True`
  for texts, and tells no lines.
* python-hcl2 8.1.4 is of HCL 2: it refuses `"a.b" = 1`, `a.b = 1`, `a = 1, b = 2` and `0x10`, gives `1e3` as the text
  `${1e3}`, and texts with their quotes, escapes and heredoc marks.
Source: the documentation of HCL 1, and what `consul config write` was seen to make of each form.
"""

from __future__ import annotations

import bisect
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policies.errors import MeshError

DEEPEST = 64
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_WORD = re.compile(r"[^\W\d][\w.-]*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|\.\d+(?:[eE][+-]?\d+)?")
_HEREDOC = re.compile(r"<<(-?)(\w+)\n")
_BYTES, _SURROGATES = 0x100, range(0xD800, 0xE000)
_WHOLE = range(-(2**63), 2**63)
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
    """`kind` is a sign, or word, text, number, bool, or end. `text` is how a number is written."""

    kind: str
    value: Any
    position: int
    text: str = ""


class Blocks(list[Any]):
    """The objects under one name. One that holds a single object may stand for that object."""


class Located(dict[str, Any]):
    """An object that knows on which line each of its keys stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def decode_hcl(text: str) -> Located:
    """Return the document as Go decodes it. Raise HclError for the first thing that is not HCL 1."""
    return _Parser(text).document()


def parse_hcl(text: str) -> dict[str, Any]:
    """Return the document with every block of one as its object, for who takes no config entry from it."""
    return {key: without_blocks(value) for key, value in decode_hcl(text).items()}


def without_blocks(tree: Any) -> Any:
    """Return a tree in which every block of one is its object."""
    if isinstance(tree, Blocks) and len(tree) == 1:
        return without_blocks(tree[0])
    if isinstance(tree, dict):
        return {key: without_blocks(value) for key, value in tree.items()}
    return [without_blocks(element) for element in tree] if isinstance(tree, list) else tree


class _Parser:
    """One pass over the tokens."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._tokens = list(_scan(self._text))
        self._ends = [found.start() for found in re.finditer("\n", self._text)]
        self._next = 0

    def document(self) -> Located:
        return self._items("end", 0)

    def _items(self, closing: str, depth: int) -> Located:
        found = Located()
        labelled: dict[str, bool] = {}
        while self._peek().kind != closing:
            token = self._peek()
            if token.kind not in {"word", "text"}:
                raise self._error(token, f"a key or {_named(closing)} was expected, not {_shown(token)}")
            keys, value, text = self._item(depth)
            if value is not None:
                key, has_label = keys[0], len(keys) > 1
                if labelled.setdefault(key, has_label) is not has_label:
                    raise self._error(token, f"{key!r} stands with a label and without one")
                found[key] = value if key not in found else self._joined(found[key], value, text, token)
                found.lines.setdefault(key, self._line(token.position))
            if self._peek().kind == ",":
                self._next += 1
        self._next += 1
        return found

    def _item(self, depth: int) -> tuple[list[str], Any, str]:
        """Return the keys, the value and how it is written. None is no value."""
        first = self._take()
        keys = [str(first.value)]
        while self._peek().kind in {"word", "text"}:
            keys.append(str(self._take().value))
        token = self._take()
        written = self._peek()
        value: Any = None
        if token.kind == "=" and len(keys) == 1:
            if written.kind == "end":
                return keys, None, ""  # Consul takes `Name =` at the very end for no name at all
            value = self._value(depth)
        elif token.kind == "{":
            value = Blocks([self._object(token, depth)])
        elif len(keys) > 1:
            raise self._error(token, f"nested object expected: LBRACE got: {_shown(token)}")
        else:
            said = f"key '{keys[0]}' expected start of object ('{{') or assignment ('=')"
            raise _error(self._text, token.position + (token.kind == "end"), said)
        for label in reversed(keys[1:]):
            below = Located()
            below[label], below.lines[label] = value, self._line(first.position)
            value = Blocks([below])
        return keys, value, written.text

    def _joined(self, held: Any, new: Any, text: str, token: Token) -> Any:
        """Return what two values of one key are together: Go decodes the second into the kind of the first."""
        if isinstance(held, Blocks):
            if isinstance(new, list) and all(isinstance(element, dict) for element in new):
                return Blocks([*held, *new])
        elif isinstance(held, list):
            if isinstance(new, list):
                return [*held, *new]
        elif type(held) is type(new):
            return new
        elif isinstance(held, float) and type(new) is int and "x" not in text.lower():
            return float(text)
        elif isinstance(held, str) and type(new) is int:
            return text
        elif type(held) is int and isinstance(new, str) and re.fullmatch(r"[+-]?(?:0|[1-9]\d*)", new):
            return int(new)
        raise self._error(token, f"{token.value!r} comes again, as another kind of value")

    def _value(self, depth: int) -> Any:
        token = self._peek()
        if token.kind == "{":
            return Blocks([self._object(self._take(), depth)])
        return self._element(depth)

    def _element(self, depth: int) -> Any:
        token = self._take()
        if token.kind in {"text", "number", "bool"}:
            return token.value
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
        separated = True
        while self._peek().kind != "]":
            token = self._peek()
            if token.kind == ",":
                self._next += 1
                separated = True
            elif separated:
                values.append(self._element(depth + 1))
                separated = isinstance(values[-1], list)  # behind a list in a list Consul wants no comma
            else:
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
        return Token("number", _number(text, found), at, found[0]), found.end()
    if found := _WORD.match(text, at):
        known = {"true": True, "false": False}.get(found[0])
        return Token("word", found[0], at) if known is None else Token("bool", known, at), found.end()
    if text.startswith("/*", at):
        raise _error(text, at, "comment not terminated")
    raise _error(text, at, f"illegal character {sign!r}")


def _number(text: str, found: re.Match[str]) -> int | float:
    digits, following = found[0], text[found.end() : found.end() + 1].lower()
    bare = digits.lstrip("-").lower()
    sign = -1 if digits.startswith("-") else 1
    if (following == "x" and bare == "0") or (following == "e" and "x" not in bare):
        raise _error(text, found.start(), f"{digits + following!r} is no number")
    try:
        if bare.startswith("0x"):
            number: int | float = sign * int(bare, 16)
        elif "." in bare or "e" in bare:
            number = float(digits)
        else:
            number = sign * int(bare, 8 if len(bare) > 1 and bare[0] == "0" else 10)
    except ValueError as error:
        raise _error(text, found.start(), f"{digits!r} is no number") from error
    if not (number in _WHOLE if isinstance(number, int) else math.isfinite(number)):
        raise _error(text, found.start(), f"{digits} is out of range")
    return number


def _string(text: str, at: int) -> tuple[str, int]:
    """Read a string in quotes. `${...}` is kept as it is, quotes and newlines inside of it included."""
    parts: list[str] = []
    position = at + 1
    while position < len(text):
        sign = text[position]
        if sign == '"':
            return _utf8("".join(parts)), position + 1
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
        elif sign in "\n\0":
            break
        else:
            stop = re.compile(r'["\\\n\0]|\$\{').search(text, position + 1)
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
    if octal or byte:
        if code >= _BYTES:
            raise _error(text, found.start(), "escape is no byte")
        return bytes([code]).decode("ascii", "surrogateescape")  # maybe one of several of a character
    if code > sys.maxunicode:
        raise _error(text, found.start(), "escape is no Unicode character")
    return "\ufffd" if code in _SURROGATES else chr(code)


def _utf8(text: str) -> str:
    """Return a text whose single bytes, kept as surrogates, have become characters where they are UTF-8."""
    if not any("\udc80" <= sign <= "\udcff" for sign in text):
        return text
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", "\ufffd", decoded)


def _heredoc(text: str, at: int) -> tuple[str, int]:
    found = _HEREDOC.match(text, at)
    if found is None:
        raise _error(text, at, "heredoc expected: `<<EOF`, and the text from the next line on")
    indented = "+" if found[1] else "*"  # after <<- Consul sees no end that stands at the margin
    marker = re.compile(rf"^([ \t]{indented}){re.escape(found[2])}$", re.MULTILINE)
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
