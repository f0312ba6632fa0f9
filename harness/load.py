"""A steady stream of requests whose every failure is kept, to be run beside whatever is being done to the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import h11

from harness.wire import Wire

BODY = "posted"


@dataclass(slots=True)
class Load:
    """What the stream has met. `answers` counts bodies' first lines; `failures` says what went wrong, in words."""

    port: int
    request: bytes
    rate: float
    connections: int
    keep: bool = True
    tls: tuple[ssl.SSLContext, str] | None = None  # with the name that is asked for
    answers: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.statuses.total() + len(self.failures)

    async def keep_asking(self, offset: float) -> None:
        pause = self.connections / self.rate
        loop = asyncio.get_running_loop()
        due = loop.time() + offset
        wire: Wire | None = None
        try:
            while True:
                await asyncio.sleep(max(0.0, due - loop.time()))
                due += pause
                try:
                    wire = wire or await Wire.open(self.port, *(self.tls or ()))
                    answer = await wire.ask(self.request)
                except (OSError, EOFError, TimeoutError, h11.RemoteProtocolError) as error:
                    self.failures.append(repr(error))
                    if wire is not None:
                        await wire.close()
                        wire = None
                    continue
                self.statuses[answer.status] += 1
                self.answers[answer.body.decode("latin-1").partition("\n")[0]] += 1
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {answer.body!r}")
                if not self.keep or answer.get("connection") == "close":
                    await wire.close()
                    wire = None
        finally:
            if wire is not None:
                wire.writer.transport.abort()


@contextlib.asynccontextmanager
async def load(
    port: int,
    host: str,
    *,
    rate: float = 200,
    connections: int = 8,
    path: str = "/",
    method: str = "GET",
    keep: bool = True,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Load]:
    """Send requests at a rate (a second) over some connections until the end of the block; none may end before.

    A POST has a small body. Without `keep` each request has a connection of its own.
    """
    body = f"Content-Length: {len(BODY)}\r\n\r\n{BODY}" if method == "POST" else "\r\n"
    request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{body}".encode()
    running = Load(port, request, rate, connections, keep, (tls, host) if tls is not None else None)
    tasks = [asyncio.create_task(running.keep_asking(number / rate)) for number in range(connections)]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):  # no cancellation: it stopped asking by itself
                raise ended
