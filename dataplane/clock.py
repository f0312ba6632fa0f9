"""One coarse timer a loop: a tick every quarter second instead of a timer per request.

Connections have a `deadline`; at each tick those past it are told. Time between ticks is read from `now`, which is at
most a tick old: good enough for timeouts in seconds, and an attribute instead of a system call.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Protocol

TICK = 0.25  # seconds
NEVER = float("inf")


class Timed(Protocol):
    """What can be told that its time is up. `deadline` is on the clock's scale; NEVER when nothing is awaited."""

    deadline: float

    def expire(self) -> None:
        """Act on the deadline. The next one must have been set when this returns."""
        ...


class Clock:
    """The timer of one loop. `now` is the loop's time, `wall` the epoch time, `date` a Date header's value."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: set[Timed] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()
        self.wall = time.time()
        self.date = formatdate(self.wall, usegmt=True).encode()

    def start(self) -> None:
        """Begin to tick."""
        self._tick()

    def stop(self) -> None:
        """Tick no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def add(self, item: Timed) -> None:
        """Watch an item's deadline until it is discarded."""
        self._items.add(item)

    def discard(self, item: Timed) -> None:
        """Watch it no longer."""
        self._items.discard(item)

    def _tick(self) -> None:
        self._handle = self._loop.call_later(TICK, self._tick)
        self.strike(self._loop.time(), time.time())

    def strike(self, now: float, wall: float) -> None:
        """Let it be this late, and tell those past their deadline. A tick may come late: it may be seconds later."""
        if int(wall) != int(self.wall):
            self.date = formatdate(wall, usegmt=True).encode()
        self.now, self.wall = now, wall
        for item in [item for item in self._items if item.deadline <= now]:
            if item.deadline <= now:  # one before it may have set another
                item.expire()
