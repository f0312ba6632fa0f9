"""The app that is called: a fixed answer of 1 KB, or of 1 MB for /1m."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


def _answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size


SMALL, LARGE = _answer(1024), _answer(1 << 20)


class App(asyncio.Protocol):
    """A connection; requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._held = b""

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        *whole, self._held = data.split(b"\r\n\r\n")
        for head in whole:
            self._transport.write(LARGE if head.startswith(b"GET /1m ") else SMALL)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
