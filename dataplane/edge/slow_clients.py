"""Callers that hold on to a connection by sending or reading next to nothing: found now and then, and cut.

The kernel counts the bytes that a peer has sent and acknowledged (TCP_INFO), so nothing has to be counted on the way of
a request: every few seconds those are looked at that owe us a body, or do not take what was written to them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from dataplane.clock import NEVER, TICK, Clock
from policies.protection import Protection

AT_A_TIME = 500  # connections looked at in one tick of the clock
_LOOKS = 4  # within the time after which one is slow
_BYTES_ACKED = 120  # offsets in linux/tcp.h's tcp_info, since Linux 4.1; bytes received follow
_COUNTS = struct.Struct("=QQ")


class Watched(Protocol):
    """A connection that can be too slow."""

    @property
    def transport(self) -> asyncio.Transport:
        """Return the caller's end."""
        ...

    @property
    def receiving(self) -> bool:
        """Return whether the caller owes it bytes now."""
        ...

    def too_slow(self, reason: str) -> None:
        """End it: `slow_body` or `slow_read`."""
        ...


@dataclass(slots=True)
class _Mark:
    """Where a connection stood when it was first seen to owe something. `reading`: it owes a body."""

    at: float
    count: int
    reading: bool


class SlowClients:
    """Those of one gateway. Timed by its clock."""

    def __init__(self, clock: Clock, protection: Protection) -> None:
        self._clock = clock
        self._rate = protection.min_rate
        self._after = protection.slow_after
        self._marks: dict[Watched, _Mark | None] = {}
        self._to_look_at: list[Watched] = []
        self._round = clock.now
        self.deadline = clock.now if self._rate else NEVER
        if self._rate:
            clock.add(self)

    def add(self, connection: Watched) -> None:
        """Look at it from now on."""
        if self._rate:
            self._marks[connection] = None

    def discard(self, connection: Watched) -> None:
        """Look at it no more."""
        self._marks.pop(connection, None)

    def expire(self) -> None:
        """Look at the next ones; when all have been looked at, at all again after a while."""
        now = self._clock.now
        if not self._to_look_at and now >= self._round:
            self._to_look_at = list(self._marks)
            self._round = now + self._after / _LOOKS
        some, self._to_look_at = self._to_look_at[:AT_A_TIME], self._to_look_at[AT_A_TIME:]
        for connection in some:
            if connection in self._marks:
                self._look(connection, now)
        self.deadline = now + TICK if self._to_look_at else self._round

    def _look(self, connection: Watched, now: float) -> None:
        transport = connection.transport
        reading = connection.receiving
        if transport.is_closing() and not transport.get_write_buffer_size():
            return
        if not reading and not transport.get_write_buffer_size():
            self._marks[connection] = None
            return
        count = _moved(transport, reading=reading)
        mark = self._marks[connection]
        if mark is None or mark.reading is not reading:
            self._marks[connection] = _Mark(now, count, reading)
        elif now - mark.at >= self._after:
            if count - mark.count < self._rate * (now - mark.at):
                connection.too_slow("slow_body" if reading else "slow_read")
            else:
                self._marks[connection] = _Mark(now, count, reading)


def _moved(transport: asyncio.Transport, *, reading: bool) -> int:
    """Return how many bytes the peer has sent, or acknowledged, since the connection began."""
    sock = transport.get_extra_info("socket")
    try:
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + _COUNTS.size)
        acknowledged, received = _COUNTS.unpack_from(found, _BYTES_ACKED)
    except (OSError, AttributeError, struct.error):  # closed meanwhile
        return 0
    return int(received if reading else acknowledged)
