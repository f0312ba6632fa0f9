"""A backend that writes down what a proxy sent it, by the letter: a second reader, with no code of the first.

It takes only what a proxy should write: lines that end in CRLF, one Host, at most one framing, chunks without anything
beside their size. Whatever else arrives is kept in `strange`, and its connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from harness.wire import serving

_FIRST = re.compile(rb"([A-Z-]+) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
_SIZE = re.compile(rb"0|[1-9a-f][0-9a-f]*")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Strange(Exception):
    """Bytes that no proxy should send."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A whole request as it came."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    trailers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.target}"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


@dataclass(slots=True)
class Recorder:
    """The backend. `answers` holds what to answer to a target instead of 200, and whether to hang up then."""

    answers: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    port: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        except Strange as error:
            self.strange.append(str(error))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            recorded = await read_request(reader)
            self.requests.append(recorded)
            answer, hang_up = self.answers.get(recorded.target, (OK, False))
            if recorded.method == "HEAD" and answer is OK:
                answer = OK.removesuffix(b"ok")
            writer.write(answer)
            await writer.drain()
            if hang_up:
                return

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Recorder]:
        async with serving(self._serve, limit=1 << 20) as self.port:
            yield self


async def read_request(reader: asyncio.StreamReader) -> Recorded:
    """Return the next request. Raise Strange for one that can be read in two ways."""
    first = _FIRST.fullmatch(line := await _line(reader))
    if first is None:
        raise Strange(f"request line {line!r}")
    fields = await _fields(reader)
    names = [name for name, _ in fields]
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if names.count("host") != 1 or len(lengths) + len(codings) > 1:
        raise Strange(f"fields {fields!r}")
    body = b""
    trailers: tuple[tuple[str, str], ...] = ()
    if codings:
        if codings[0].lower() != "chunked":
            raise Strange(f"coding {codings[0]!r}")
        body, trailers = await _chunks(reader)
    elif lengths:
        if not re.fullmatch(r"[0-9]+", lengths[0]):
            raise Strange(f"length {lengths[0]!r}")
        body = await reader.readexactly(int(lengths[0]))
    return Recorded(first[1].decode(), first[2].decode(), fields, body, trailers)


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readuntil(b"\n")
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        raise Strange(f"line end {line!r}")
    return line[:-2]


async def _fields(reader: asyncio.StreamReader) -> tuple[tuple[str, str], ...]:
    fields = []
    while line := await _line(reader):
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Strange(f"field {line!r}")
        fields.append((found[1].decode().lower(), found[2].decode("latin-1").rstrip(" \t")))
    return tuple(fields)


async def _chunks(reader: asyncio.StreamReader) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    body = b""
    while True:
        line = await _line(reader)
        if not _SIZE.fullmatch(line):
            raise Strange(f"chunk size {line!r}")
        size = int(line, 16)
        if not size:
            return body, await _fields(reader)
        body += await reader.readexactly(size)
        if await _line(reader):
            raise Strange("bytes after a chunk")
