"""Long answers, decoded piece by piece by whoever reads them, in a thread beside the data plane.

`json.loads` of ten thousand instances holds the interpreter for hundreds of milliseconds, in a thread as well: no other
thread runs meanwhile. Piece by piece the data plane gets its turn. `Rows` is a list of which no more than one
row is held decoded at a time; `Later` an answer of which the outer levels are taken apart here, down to where the
pieces are small. The bytes stay in the pieces in which they came, too.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from policies.errors import CatalogBadAnswer

LARGE = 32 * 1024  # bytes; from here on an answer is decoded piece by piece, when its turn comes
WINDOW = 256 * 1024  # bytes
Content = bytes | Sequence[bytes]
_AFTER = frozenset(",]}:")  # what may come after an element
_SPACE = re.compile(r"[ \t\n\r]*")


def is_large(content: Sequence[bytes]) -> bool:
    """Return whether to decode an answer at once would be felt."""
    return sum(map(len, content)) > LARGE


def decoded_whole(content: Sequence[bytes], where: str) -> Any:
    """Return what a short answer says. Raise CatalogBadAnswer for what is not JSON."""
    try:
        return json.loads(b"".join(content))
    except (ValueError, RecursionError) as error:
        raise CatalogBadAnswer(where, f"the answer is not JSON: {error}") from error


class Rows:
    """The rows of a health query, not decoded yet. Going through them raises CatalogBadAnswer where they are none."""

    __slots__ = ("_content", "_where")

    def __init__(self, where: str, content: Content) -> None:
        self._where = where
        self._content = content

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield each row as it is decoded."""
        try:
            for position, row in enumerate(decoded(self._content)):
                if not (isinstance(row, Mapping) and _holds(row, "Service") and _holds(row, "Node")):
                    raise CatalogBadAnswer(self._where, f"row {position} holds no Service or Node")
                yield row
        except (ValueError, RecursionError) as error:
            raise CatalogBadAnswer(self._where, f"the answer is no list in JSON: {error}") from error


def _holds(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), Mapping)


class Later:
    """An answer that is not decoded yet. `depth` is how many levels of it may be long."""

    __slots__ = ("_check", "_content", "_depth", "_where")

    def __init__(self, where: str, content: Content, depth: int, check: Callable[[Any], Any]) -> None:
        self._where = where
        self._content = content
        self._depth = depth
        self._check = check

    def decoded(self) -> Any:
        """Return the answer. Raise CatalogBadAnswer for what is not JSON or has another shape."""
        text = _Window(self._content, WINDOW)
        try:
            found = text.value(self._depth)
            text.end()
        except (ValueError, RecursionError) as error:
            raise CatalogBadAnswer(self._where, f"the answer is not JSON: {error}") from error
        return self._check(found)


def decoded(content: Content, window: int = WINDOW) -> Iterator[Any]:
    """Yield the elements of a JSON list one after the other. Raise ValueError where the bytes are not one."""
    text = _Window(content, window)
    yield from text.elements()
    text.end()


class _Window:
    """A piece of a text at a time: to decode all of it at once would take long as well."""

    __slots__ = ("_at", "_decode", "_ended", "_pieces", "_text", "_utf8")

    def __init__(self, content: Content, size: int) -> None:
        self._pieces, self._ended = _pieces(content, size), False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def _more(self) -> bool:
        """Take in the next piece; return whether there was one."""
        if self._ended:
            return False
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            self._utf8.decode(b"", final=True)  # raises when half a character is left
            return False
        self._text = self._text[self._at :] + self._utf8.decode(piece)
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

    def end(self) -> None:
        if self.peek():
            message = "more after the end"
            raise ValueError(message)

    def value(self, depth: int) -> Any:
        """Return the next element; that many levels of it are taken apart here."""
        mark = self.peek()
        if depth and mark == "[":
            return list(self.elements(depth - 1))
        if depth and mark == "{":
            return dict(self._members(depth - 1))
        return self.element()

    def elements(self, depth: int = 0) -> Iterator[Any]:
        """Yield the elements of a list, each as soon as it is there."""
        self.expect("[")
        if self.peek() != "]":
            yield self.value(depth)
            while self.peek() == ",":
                self.expect(",")
                yield self.value(depth)
        self.expect("]")

    def _members(self, depth: int) -> Iterator[tuple[str, Any]]:
        self.expect("{")
        if self.peek() != "}":
            yield self._member(depth)
            while self.peek() == ",":
                self.expect(",")
                yield self._member(depth)
        self.expect("}")

    def _member(self, depth: int) -> tuple[str, Any]:
        name = self.element()
        if not isinstance(name, str):
            message = f"expected a name, got {name!r}"
            raise ValueError(message)  # noqa: TRY004 - what is wrong is the text
        self.expect(":")
        return name, self.value(depth)

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
            if self._follows(end) in _AFTER or not self._more():  # else it may go on, as 1 does in 1.5
                self._at = end
                return found


def _pieces(content: Content, size: int) -> Iterator[bytes]:
    """Yield the content in pieces of about a size: a decoded piece is held as a whole."""
    for chunk in (content,) if isinstance(content, bytes) else content:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]
