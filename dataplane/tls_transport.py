"""A TLS transport on a non-blocking socket: OpenSSL reads and writes the descriptor itself.

The loop's own TLS transports pass every byte through two memory buffers; this one saves those copies and calls, which
is a sixth of the CPU of a proxied request. It drives any `asyncio.Protocol`, on asyncio's and uvloop's loops alike.
Two rules of OpenSSL shape it: a write that found the socket full must be repeated with the very same bytes, and what
is decrypted already does not wake the loop again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from policies.identity import Peer

_RECORD = 16384  # bytes that one read can give
_GATHERED = 4  # full records in one delivery
_READS_PER_EVENT = 16  # so that one busy connection does not starve the others
_HIGH_WATER = 64 * 1024
_CLOSE_SECONDS = 10.0  # for a peer to take what is still to be written when closing
_GONE = asyncio.Protocol()  # does nothing: takes the protocol's place once it has been told of the end


class TlsTransport(asyncio.Transport):
    """The transport of a connection after its handshake. Made by `handshakes`; `peer` is of the mesh only."""

    __slots__ = (
        "_closing",
        "_eof_asked",
        "_eof_seen",
        "_fd",
        "_high_water",
        "_loop",
        "_lost",
        "_low_water",
        "_patience",
        "_paused",
        "_peer",
        "_pending",
        "_pending_size",
        "_protocol",
        "_read_wants_write",
        "_repeat",
        "_socket",
        "_write_wants_read",
        "_writing_paused",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: ssl.SSLSocket,
        peer: Peer | None,
        protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
    ) -> None:
        super().__init__()
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._peer = peer
        self._pending: list[bytes] = []  # not given to OpenSSL yet
        self._pending_size = 0  # bytes in `_pending` and `_repeat`
        self._repeat = b""  # what OpenSSL began to write and must be given again
        self._paused = False
        self._closing = False
        self._lost = False
        self._writing_paused = False
        self._eof_asked = False
        self._eof_seen = False
        self._read_wants_write = False
        self._write_wants_read = False
        self._patience: asyncio.TimerHandle | None = None
        self.set_write_buffer_limits()
        self._protocol = protocol_factory(self)
        self._protocol.connection_made(self)
        if not self._paused and not self._closing:
            self._begin_reading()

    @property
    def peer(self) -> Peer:
        """Return who a peer of the mesh is."""
        assert self._peer is not None  # noqa: S101 - nobody asks who a caller from outside is
        return self._peer

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell somebody else from now on."""
        if not isinstance(protocol, asyncio.Protocol):
            message = "only an asyncio.Protocol can be driven"
            raise TypeError(message)
        self._protocol = protocol

    # --- reading ---

    def _begin_reading(self) -> None:
        self._loop.add_reader(self._fd, self._readable)
        if self._socket.pending():
            self._loop.call_soon(self._read_rest)

    def _readable(self) -> None:  # noqa: C901, PLR0912 - the hot loop: a call saved is a call saved
        if self._write_wants_read:
            self._write_wants_read = False
            self._flush()
        read = self._socket.read
        gathered: list[bytes] = []  # full records of something large: given on together, in fewer writes
        for _ in range(_READS_PER_EVENT):
            if self._paused or self._lost:
                return
            try:
                data = read(_RECORD)
            except ssl.SSLWantReadError:
                self._deliver(gathered)
                return
            except ssl.SSLZeroReturnError:  # how Python tells of the end once we have said goodbye ourselves
                data = b""
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                self._loop.add_writer(self._fd, self._writable)
                self._deliver(gathered)
                return
            except (OSError, ValueError) as error:
                self._deliver(gathered)
                self._fail(error)
                return
            if not data:
                self._deliver(gathered)
                self._end_of_input()
                return
            if len(data) == _RECORD:
                gathered.append(data)
                if len(gathered) == _GATHERED:
                    self._deliver(gathered)
                continue
            if gathered:
                gathered.append(data)
                self._deliver(gathered)
            else:
                self._protocol.data_received(data)
            return  # a short record: most likely the last one; if not, the descriptor wakes us again
        self._deliver(gathered)
        if not self._lost and self._socket.pending():
            self._loop.call_soon(self._read_rest)

    def _deliver(self, gathered: list[bytes]) -> None:
        if gathered and not self._lost:
            data = b"".join(gathered)
            gathered.clear()
            self._protocol.data_received(data)

    def _read_rest(self) -> None:
        """Go on with what OpenSSL holds decrypted already: the descriptor would not wake us for it."""
        if not self._paused and not self._lost:
            self._readable()

    def _end_of_input(self) -> None:
        self._eof_seen = True
        self._loop.remove_reader(self._fd)
        if not self._protocol.eof_received():
            self.close()

    def pause_reading(self) -> None:
        """Deliver nothing more until `resume_reading`."""
        if not self._paused:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Deliver again, first what was decrypted already."""
        if self._paused:
            self._paused = False
            if not self._closing and not self._eof_seen:
                self._begin_reading()

    def is_reading(self) -> bool:
        """Return whether data is being delivered."""
        return not self._paused and not self._closing

    # --- writing ---

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send, at once as far as the socket takes it. Bytes after `write_eof` or `close` are dropped."""
        if self._closing or self._eof_asked or not data:
            return
        if self._pending_size:
            self._pending.append(bytes(data))
        elif self._give(data):
            return
        else:
            self._repeat = bytes(data)
        self._pending_size += len(data)
        if self._pending_size > self._high_water and not self._writing_paused and not self._lost:
            self._writing_paused = True
            self._protocol.pause_writing()

    def _give(self, data: bytes | bytearray | memoryview[Any]) -> bool:
        """Give OpenSSL bytes to write. Return False when the very same must be given again."""
        try:
            self._socket.write(data)  # all or nothing: Python leaves partial writes off
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._fd, self._writable)
            return False
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            self._loop.add_reader(self._fd, self._readable)
            return False
        except (OSError, ValueError) as error:
            self._fail(error)
        return True

    def _writable(self) -> None:
        if self._read_wants_write:
            self._read_wants_write = False
            self._read_rest()
        self._flush()

    def _flush(self) -> None:
        """Write what is pending, in as few records as its size allows."""
        while self._pending_size and not self._lost:
            if not self._repeat:
                self._repeat = b"".join(self._pending)
                self._pending.clear()
            if not self._give(self._repeat):
                return
            self._pending_size -= len(self._repeat)
            self._repeat = b""
            self._maybe_resume_writing()
        if self._lost:
            return
        self._loop.remove_writer(self._fd)
        if self._closing:
            self._shut(None)
        elif self._eof_asked:
            self._end_output()

    def _maybe_resume_writing(self) -> None:
        if self._writing_paused and self._pending_size <= self._low_water and not self._lost:
            self._writing_paused = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken yet."""
        return self._pending_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks (low, high) of `set_write_buffer_limits`."""
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many pending bytes on the protocol is asked to wait, and when it may go on."""
        self._high_water = _HIGH_WATER if high is None else high
        self._low_water = self._high_water // 4 if low is None else low

    def can_write_eof(self) -> bool:
        """Return True: close_notify ends one direction, as Envoy and Go take it."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more will be written, once what is pending is sent. Reading goes on."""
        if not self._eof_asked and not self._closing:
            self._eof_asked = True
            if not self._pending_size:
                self._end_output()

    def _end_output(self) -> None:
        try:
            record = _close_notify(self._socket)
            socket.socket.send(self._socket, record)
        except (OSError, ValueError) as error:
            self._fail(error)

    # --- the end ---

    def close(self) -> None:
        """Send what is pending, say goodbye, close. A peer that takes nothing for ten seconds is cut."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        if self._pending_size:
            self._patience = self._loop.call_later(_CLOSE_SECONDS, self.abort)
        else:
            self._shut(None)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._shut(None, goodbye=False)

    def is_closing(self) -> bool:
        """Return whether it is closing or closed."""
        return self._closing

    def _fail(self, error: Exception) -> None:
        self._closing = True
        self._shut(error, goodbye=False)

    def _shut(self, error: Exception | None, *, goodbye: bool = True) -> None:
        if self._lost:
            return
        self._lost = True
        if self._patience is not None:
            self._patience.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._pending.clear()
        self._repeat = b""
        self._pending_size = 0
        if goodbye and not self._eof_asked:
            _say_goodbye(self._socket)
        self._socket.close()
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, _GONE
        protocol.connection_lost(error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `peer` (Peer or None), `peername`, `sockname`, `socket`, `alpn`, `certificate` (the peer's, DER).

        Or `tls`, True, and `peercert`: what `SSLSocket.getpeercert` says.
        """
        try:
            match name:
                case "peer":
                    return self._peer
                case "tls":
                    return True
                case "peercert":
                    return self._socket.getpeercert()
                case "socket":
                    return self._socket
                case "peername":
                    return self._socket.getpeername()
                case "sockname":
                    return self._socket.getsockname()
                case "alpn":
                    return self._socket.selected_alpn_protocol()
                case "certificate":
                    return self._socket.getpeercert(True)
        except OSError:
            return default
        return default


def _say_goodbye(sock: ssl.SSLSocket) -> None:
    """Send close_notify without waiting for the peer's. Whatever the peer still sends is lost."""
    try:
        sock.unwrap()
    except (OSError, ValueError):
        return


def _close_notify(sock: ssl.SSLSocket) -> bytes:
    """Return the encrypted close_notify of a connection that goes on reading. Raise OSError.

    Python's `unwrap` does not only send: it reads as well, and breaks the connection for good when it meets data of
    the peer instead of its goodbye. So for this one call the descriptor stands for a silent socket, from which the
    record is then taken. The loop's registration belongs to the real socket, which stays open meanwhile.
    """
    descriptor = sock.fileno()
    silent, catcher = socket.socketpair()
    with silent, catcher:
        silent.setblocking(False)
        catcher.setblocking(False)
        kept = os.dup(descriptor)
        try:
            os.dup2(silent.fileno(), descriptor, inheritable=False)
            _say_goodbye(sock)
        finally:
            os.dup2(kept, descriptor, inheritable=False)
            os.close(kept)
        return catcher.recv(_RECORD)
