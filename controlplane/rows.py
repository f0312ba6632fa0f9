"""A long list in an answer, decoded row by row by whoever goes through it.

`json.loads` of ten thousand instances holds the interpreter for hundreds of milliseconds, in a thread as well: no other
thread runs meanwhile. Row by row the loop gets its turn after each, and no more than one decoded row is held at a time.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from policies.errors import CatalogBadAnswer

WINDOW = 256 * 1024  # bytes
_SPACE = re.compile(r"[ \t\n\r]*")


class Rows:
    """The rows of a health query, not decoded yet. Going through them raises CatalogBadAnswer where they are none."""

    __slots__ = ("_content", "_where")

    def __init__(self, where: str, content: bytes) -> None:
        self._where = where
        self._content = content

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield each row as it is decoded."""
        try:
            for position, row in enumerate(decoded(self._content)):
                if not (isinstance(row, Mapping) and _holds(row, "Service") and _holds(row, "Node")):
                    raise CatalogBadAnswer(self._where, f"row {position} holds no Service or Node")
                yield row
        except ValueError as error:
            raise CatalogBadAnswer(self._where, f"the answer is no list in JSON: {error}") from error


def _holds(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), Mapping)


def decoded(content: bytes, window: int = WINDOW) -> Iterator[Any]:
    """Yield the elements of a JSON list one after the other. Raise ValueError where the bytes are not one."""
    text = _Window(content, window)
    text.expect("[")
    if text.peek() != "]":
        yield text.element()
        while text.peek() == ",":
            text.expect(",")
            yield text.element()
    text.expect("]")
    if text.peek():
        message = "more after the list"
        raise ValueError(message)


class _Window:
    """A piece of a text at a time: to decode all of it at once would take long as well."""

    __slots__ = ("_at", "_content", "_decode", "_next", "_size", "_text", "_utf8")

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size, self._next = content, size, 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def _more(self) -> bool:
        """Take in the next piece; return whether there was one."""
        if self._next >= len(self._content):
            return False
        piece = self._content[self._next : self._next + self._size]
        self._next += len(piece)
        self._text = self._text[self._at :] + self._utf8.decode(piece, final=self._next >= len(self._content))
        self._at = 0
        return True

    def peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match is not None else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _follows(self, at: int) -> str:
        match = _SPACE.match(self._text, at)
        end = match.end() if match is not None else at
        return self._text[end : end + 1]

    def expect(self, mark: str) -> None:
        found = self.peek()
        if found != mark:
            message = f"expected {mark}, got {found!r}"
            raise ValueError(message)
        self._at += 1

    def element(self) -> Any:
        """Return the next element."""
        self.peek()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except ValueError:
                if self._more():
                    continue
                raise
            if self._follows(end) in {",", "]"} or not self._more():  # else it may go on, as 1 does in 1.5
                self._at = end
                return found
