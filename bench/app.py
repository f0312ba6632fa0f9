"""The app that is called: a fixed answer of 1 KB; of 1 MB for /1m, of 64 KB for /64k. /flaky fails one time in ten."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _answer(size: int, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % (status, size)
    return head + b"x" * size


SMALL, MIDDLE, LARGE = _answer(1024), _answer(64 << 10), _answer(1 << 20)
FAILURE = _answer(0, b"503 Service Unavailable")
FAILS = 10  # one of so many
_tried = itertools.count(1)


def answer(head: bytes) -> bytes:
    _, _, path = head.partition(b" ")
    if path.startswith(b"/1m "):
        return LARGE
    if path.startswith(b"/64k "):
        return MIDDLE
    if path.startswith(b"/flaky "):
        return SMALL if next(_tried) % FAILS else FAILURE
    return SMALL


class App(asyncio.Protocol):
    """A connection. A body is read and forgotten, then the answer is given."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._held = b""
        self._body = 0  # bytes that are still to come
        self._due = b""  # the answer after them

    def data_received(self, data: bytes) -> None:
        if self._body:
            taken = min(self._body, len(data))
            self._body -= taken
            if self._body:
                return
            self._transport.write(self._due)
            data = data[taken:]
        self._held += data
        while True:
            head, end, rest = self._held.partition(b"\r\n\r\n")
            if not end:
                return
            length = _LENGTH.search(head) if head.startswith(b"POST") else None
            wanted = int(length[1]) if length is not None else 0
            self._held = rest[wanted:]
            if wanted > len(rest):
                self._body, self._due = wanted - len(rest), answer(head)
                return
            self._transport.write(answer(head))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
