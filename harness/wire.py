"""Both ends of a proxied conversation, byte by byte, with h11 as the judge of what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import h11

PATIENCE = 10.0  # seconds that a test waits for bytes


@dataclass(slots=True)
class Message:
    """A whole message. `first` is (method, target) of a request, (status, reason) of an answer."""

    first: tuple[Any, Any]
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.first[0])

    @property
    def target(self) -> str:
        return str(self.first[1])

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Wire:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser: h11.Connection | None = None
        self._methods: list[str] = []

    @classmethod
    async def open(
        cls, port: int, context: ssl.SSLContext | None = None, sni: str = "", host: str = "127.0.0.1"
    ) -> Wire:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=sni if context else None
        )
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, size: int = 65536) -> bytes:
        """Return what there is; b"" at the end, whichever way the peer ended."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read(size)
            except (ConnectionError, ssl.SSLError):
                return b""

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Return everything until the peer closes."""
        found = b""
        while data := await self.read():
            found += data
        return found

    async def ask(self, raw: bytes, method: str = "GET") -> Message:
        """Send one request and read its answer."""
        await self.send(raw)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Message:
        """Return the next answer. `method` is that of the request it belongs to."""
        leftover = self._parser.trailing_data[0] if self._parser is not None else b""
        parser = self._parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
        parser.send(h11.EndOfMessage())
        if leftover:
            parser.receive_data(leftover)
        return await _message(parser, self, skip_informational=True)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _message(parser: h11.Connection, wire: Any, *, skip_informational: bool = False) -> Message:
    message: Message | None = None
    while True:
        event = parser.next_event()
        match event:
            case h11.NEED_DATA:
                parser.receive_data(await wire.read())
            case h11.InformationalResponse() if not skip_informational or event.status_code == 101:
                return Message((event.status_code, event.reason.decode()), _pairs(event.headers))
            case h11.InformationalResponse():
                continue
            case h11.Response():
                message = Message((event.status_code, event.reason.decode()), _pairs(event.headers))
            case h11.Request():
                message = Message((event.method.decode(), event.target.decode()), _pairs(event.headers))
            case h11.Data() if message is not None:
                message.body += event.data
            case h11.EndOfMessage() if message is not None:
                message.trailers = _pairs(event.headers)
                return message
            case _:
                raise ConnectionError(repr(event))


def _pairs(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Behaviour = Callable[["Side", Message], Awaitable[bytes | None]]


class Side:
    """The app's side of a connection."""

    def __init__(self, app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.app = app
        self.reader = reader
        self.writer = writer

    async def read(self, size: int = 65536) -> bytes:
        try:
            return await self.reader.read(size)
        except ConnectionError:
            return b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@contextlib.asynccontextmanager
async def serving(
    converse: Converse,
    port: int = 0,
    limit: int = 1 << 16,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[int]:
    """Hold a conversation with each caller until the end of the block, which cuts them. Yield the port."""
    held: set[asyncio.Task[Any]] = set()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        held.add(task)
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await converse(reader, writer)
        finally:
            held.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(hold, host, port, limit=limit, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(held):
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


class App:
    """A scripted app: keeps every request, answers what `behaviour` returns; None ends the connection."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or say(b"hello")
        self.requests: list[Message] = []
        self.connections = 0
        self.port = 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        side = Side(self, reader, writer)
        leftover = b""
        while True:
            parser = h11.Connection(h11.SERVER)
            if leftover:
                parser.receive_data(leftover)
            message = await _message(parser, side)
            leftover = parser.trailing_data[0]
            self.requests.append(message)
            answer = await self.behaviour(side, message)
            if answer is None:
                return
            await side.send(answer)

    @contextlib.asynccontextmanager
    async def running(
        self, port: int = 0, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[App]:
        async with serving(self._converse, port, context=context, host=host) as self.port:
            yield self


def say(body: bytes, status: bytes = b"200 OK", lines: bytes = b"") -> Behaviour:
    """Return the behaviour of answering everything alike."""

    async def answer(side: Side, message: Message) -> bytes:
        del side
        head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n" % (status, len(body), lines)
        return head if message.first[0] == "HEAD" else head + body

    return answer


def raw(answer: bytes) -> Behaviour:
    """Return the behaviour of answering with these bytes, whatever they are."""

    async def give(side: Side, message: Message) -> bytes:
        del side, message
        return answer

    return give


def raw_and_close(answer: bytes) -> Behaviour:
    """Return the behaviour of sending these bytes and hanging up."""

    async def give(side: Side, message: Message) -> None:
        del message
        await side.send(answer)

    return give


@contextlib.asynccontextmanager
async def echo_server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a tcp app that sends back what it gets and ends when the peer ends. Yields its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.write(b"bye")
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
