"""Framing of message bodies: where a body ends, and what of the bytes at hand belongs to it.

`feed` takes bytes and returns what to pass on and what is left over after the end. Chunked bodies are read strictly and
written anew, so that no odd spelling of a chunk reaches the next hop; extensions are dropped, trailers passed on.
Source: RFC 9112 sections 6 and 7.
"""

from __future__ import annotations

import enum
import re
from typing import Protocol

from dataplane.heads import BadHead

MAX_TRAILERS = 16 * 1024
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_MAX_SIZE_LINE = 4096
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")
# What RFC 9110 section 6.5.1 keeps out of trailers, and what only a proxy may say: some app takes trailers for fields.
_FORBIDDEN_TRAILERS = re.compile(
    rb"(?i)(?:host|content-(?:length|type|encoding|range)|transfer-encoding|trailer|connection|keep-alive"
    rb"|proxy-(?:connection|authorization|authenticate)|te|upgrade|expect|max-forwards|range|authorization"
    rb"|www-authenticate|cookie|set-cookie|x[-_]forwarded[-_](?:client[-_]cert|for|proto|host)):"
)


class Body(Protocol):
    """A body that is being read."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (what to pass on, what comes after the end). Raise BadHead for broken framing."""
        ...

    def end(self) -> bytes | None:
        """Return what to pass on when the peer closes now, or None when the body is cut short."""
        ...


class LengthBody:
    """A body of Content-Length bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on until the length is reached."""
        size = len(data)
        if size <= self._left:
            self._left -= size
            self.done = self._left == 0
            return data, b""
        mine, rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return mine, rest

    def end(self) -> bytes | None:
        """Return b"" if it is whole."""
        return b"" if self.done else None


class UntilClose:
    """A response that ends with its connection; passed on chunked, so that the next hop can keep its own."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on as one chunk."""
        return (b"%x\r\n%b\r\n" % (len(data), data) if data else b""), b""

    def end(self) -> bytes | None:
        """Return the last chunk."""
        self.done = True
        return b"0\r\n\r\n"


class _Part(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()


class ChunkedBody:
    """A chunked body. `status` is what a broken one is answered with: 400 for requests, 502 for responses.

    `limit` is in bytes of data, 0 is none; a longer body is a BadHead 413.
    """

    __slots__ = ("_held", "_left", "_limit", "_part", "_status", "_taken", "_trailers", "done")

    def __init__(self, status: int, limit: int = 0) -> None:
        self._status = status
        self._limit = limit
        self._taken = 0
        self._part = _Part.SIZE
        self._left = 0
        self._held = b""
        self._trailers = b""
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Pass on whole pieces of chunks as chunks of their own."""
        if self._held:
            data, self._held = self._held + data, b""
        out: list[bytes] = []
        position = 0
        while position < len(data) and not self.done:
            if self._part is _Part.DATA:
                piece = data[position : position + self._left]
                out.append(b"%x\r\n%b\r\n" % (len(piece), piece))
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.DATA_END
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._hold(data[position:])
                return b"".join(out), b""
            self._line(data[position:end], out)
            position = end + 2
        return b"".join(out), data[position:]

    def end(self) -> bytes | None:
        """Return b"" if it is whole."""
        return b"" if self.done else None

    def _hold(self, partial: bytes) -> None:
        """Keep the beginning of a line, unless it can never become a good one."""
        limit = 1 if self._part is _Part.DATA_END else _MAX_SIZE_LINE
        if len(partial) > limit or b"\n" in partial or (self._part is _Part.DATA_END and partial != b"\r"):
            raise BadHead(self._status, "bad_chunk")
        self._held = partial

    def _line(self, line: bytes, out: list[bytes]) -> None:
        match self._part:
            case _Part.SIZE:
                found = _SIZE_LINE.fullmatch(line)
                if found is None or len(line) > _MAX_SIZE_LINE:
                    raise BadHead(self._status, "bad_chunk")
                self._left = int(found[1], 16)
                self._taken += self._left
                if self._limit and self._taken > self._limit:
                    raise BadHead(413, "body_too_large")
                self._part = _Part.DATA if self._left else _Part.TRAILERS
            case _Part.DATA_END:
                if line:
                    raise BadHead(self._status, "bad_chunk")
                self._part = _Part.SIZE
            case _Part.TRAILERS if line:
                self._trailer(line)
            case _:
                out.append(b"0\r\n%b\r\n" % self._trailers)
                self.done = True

    def _trailer(self, line: bytes) -> None:
        if not _TRAILER_LINE.fullmatch(line) or _FORBIDDEN_TRAILERS.match(line):
            raise BadHead(self._status, "bad_trailer")
        self._trailers += line + b"\r\n"
        if len(self._trailers) > MAX_TRAILERS:
            raise BadHead(self._status, "trailers_too_large")
