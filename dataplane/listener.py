"""Listeners: an accept loop of our own, so that every connection starts on the generation in force.

A listener takes connections off its socket and hands each to `welcome`. It keeps what `welcome` made until that ends,
closes what comes above `max_connections`, and can be drained: no new connections, the old ones finish.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import structlog

from policies.errors import ConfigError, IdentityError, PreambleError, Problem
from policies.protection import INSIDE, Protection

if TYPE_CHECKING:
    from dataplane.plans import Each

log = structlog.get_logger(__name__)

BACKLOG = 4096
_ACCEPTS_PER_EVENT = 64
_PAUSE_WHEN_OUT_OF_FILES = 1.0  # seconds
HANDSHAKES_AT_ONCE = 512
_SO_ATTACH_REUSEPORT_CBPF = 51  # of Linux; Python has no name for it
_SECOND_OF_TWO = struct.pack("HBBI", 0x06, 0, 0, 1)  # BPF_RET | BPF_K: the index of who gets a new connection


class Connection(Protocol):
    """What a listener keeps of a connection."""

    def last(self) -> None:
        """Let the request at hand, or the next one, be the last; its answer says so."""
        ...

    def drain(self) -> None:
        """Finish what is going on, then close."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Keeper(Protocol):
    """What a connection tells of its beginning and end: its listener, or who stands between the two.

    `client` is whom the connection is for, None if that is the peer of its socket; `each` see `plans`.
    """

    @property
    def protection(self) -> Protection:
        """Return how much is taken from the caller."""
        ...

    @property
    def each(self) -> Each | None:
        """Return what is asked for every request."""
        ...

    @property
    def client(self) -> tuple[str, int] | None:
        """Return host and port."""
        ...

    @property
    def retiring(self) -> bool:
        """Return whether every connection brings one more request at most."""
        ...

    def joined(self, connection: Connection) -> None:
        """Keep a connection. Called when it is made."""
        ...

    def left(self, connection: Connection) -> None:
        """Forget a connection. Called when it is lost."""
        ...


class Holder(Keeper, Protocol):
    """A keeper of whom one can ask what it keeps."""

    connections: set[Connection]


Welcome = Callable[[socket.socket, Keeper], Awaitable[None]]


class Listener:
    """One bound address. At most `introductions` connections are on their way to be known at a time."""

    client = None
    each = None
    protection = INSIDE

    def __init__(
        self,
        sock: socket.socket,
        welcome: Welcome,
        *,
        max_connections: int = 0,
        introductions: int = HANDSHAKES_AT_ONCE,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._welcome = welcome
        self._refused = refused or (lambda _reason: None)
        self.max_connections = max_connections
        self._introductions = introductions
        self.connections: set[Connection] = set()
        self._greeting: set[asyncio.Task[None]] = set()
        self._accepting = False
        self._closed = False
        self.retiring = False  # every connection brings one more request at most
        self._empty = asyncio.Event()
        self._empty.set()
        self._resume_accepting()

    @property
    def address(self) -> tuple[str, int]:
        """Return the bound host and port."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    # --- accepting ---

    def _resume_accepting(self) -> None:
        if not self._accepting and not self._closed:
            self._accepting = True
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._socket.fileno())

    def _full(self) -> bool:
        open_now = len(self.connections) + len(self._greeting)
        return bool(self.max_connections) and open_now >= self.max_connections

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_EVENT):
            if len(self._greeting) >= self._introductions:
                self._pause_accepting()
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            if self._full():
                sock.close()  # at once, as Envoy does: who waits unheard cannot go to another instance
                self._refused("max_connections")
                continue
            self._greet(sock)

    def _accept_failed(self, error: OSError) -> None:
        if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
            raise error
        log.error("accept_paused", address=self.address, error=error.strerror, seconds=_PAUSE_WHEN_OUT_OF_FILES)
        self._refused("out_of_files")
        self._pause_accepting()
        self._loop.call_later(_PAUSE_WHEN_OUT_OF_FILES, self._resume_accepting)

    def _greet(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._introduce(sock))
        self._greeting.add(task)
        self._empty.clear()
        task.add_done_callback(self._introduced)

    async def _introduce(self, sock: socket.socket) -> None:
        try:
            await self._welcome(sock, self)
        except (IdentityError, PreambleError) as error:
            sock.close()
            self._refused(error.reason)
        except (OSError, asyncio.CancelledError):
            sock.close()
            self._refused("broken")

    def _introduced(self, task: asyncio.Task[None]) -> None:
        self._greeting.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("connection_failed", address=self.address, exc_info=task.exception())
        self._changed()

    # --- connections ---

    def joined(self, connection: Connection) -> None:
        """Keep a connection. Called when it is made."""
        self.connections.add(connection)
        self._empty.clear()
        if self.retiring:
            connection.last()

    def left(self, connection: Connection) -> None:
        """Forget a connection. Called when it is lost."""
        self.connections.discard(connection)
        self._changed()

    def _changed(self) -> None:
        if not self.connections and not self._greeting:
            self._empty.set()
        self._resume_accepting()

    # --- the end ---

    def stop_accepting(self) -> None:
        """Close the listening socket; connections go on."""
        if not self._closed:
            self._pause_accepting()
            self._closed = True
            self._socket.close()

    def retire(self) -> None:
        """Let every connection bring one more request at most, those to come too. Accepting goes on."""
        self.retiring = True
        for connection in tuple(self.connections):
            connection.last()

    async def drain(self, seconds: float, patience: float = 0.0) -> bool:
        """Stop accepting and let connections finish. After `seconds` abort the rest. Return whether none was left.

        For `patience` of these seconds idle ones are waited for too: closing one may cross a request on its way.
        """
        self.stop_accepting()
        self.retire()
        if patience:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._empty.wait()
        for connection in tuple(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(seconds - patience):
                await self._empty.wait()
        except TimeoutError:
            for task in tuple(self._greeting):
                task.cancel()
            for connection in tuple(self.connections):
                connection.abort()
            await self._empty.wait()
            return False
        return True


def bind(address: str, port: int) -> socket.socket:
    """Return a listening socket. Raise ConfigError saying what is in the way.

    The port may be shared with another process of the same user (SO_REUSEPORT), so that a successor takes over
    without a lost connection: it is sent every new one from here on.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        _prefer_newest(sock)
    except (OSError, OverflowError, TypeError) as error:  # the last two: a port or a name that no socket takes
        sock.close()
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigError((Problem(f"listener {address}:{port}", said, _advice(error)),)) from error
    return sock


def _prefer_newest(sock: socket.socket) -> None:
    """Have the kernel choose the younger of two sockets that share a port.

    Without it both are chosen until one is closed, and what waits in the queue of the closed one is reset: 38 of
    160,000 connections in 20 restarts, 4 of 64,000 when the queue is emptied first, none of 140,000 in this way. While
    there is one socket, its index is 0, and Linux goes on as if there were no program.
    """
    code = array.array("B", _SECOND_OF_TWO)
    program = struct.pack("HL", 1, code.buffer_info()[0])  # struct sock_fprog: one instruction, at this address
    with contextlib.suppress(OSError):  # a kernel without it shares them out
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def _advice(error: Exception) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "another process has the port: stop it or choose another port"
        case errno.EACCES:
            return "ports below 1024 need a privilege: choose a higher one"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _:
            return ""
