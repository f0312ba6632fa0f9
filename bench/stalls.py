"""How long the loop keeps others waiting: a tick every millisecond, and what lies between two of them.

On a busy machine a late tick proves nothing: another process may have had the core. So a stall is what the tick was
late by, without the time in which the loop's thread was ready to run and had no core (Linux tells it), and no more than
the CPU that this process used meanwhile, in all of its threads: work on the loop counts, and so does waiting for the
thread that holds the interpreter or for a collection of garbage.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TICK = 0.001  # seconds
WORTH_TELLING = 0.001


@dataclass(slots=True)
class Stalls:
    """What was seen while it was watched. Seconds."""

    all: list[float] = field(default_factory=list)
    wall: float = 0.0
    loop_cpu: float = 0.0
    process_cpu: float = 0.0
    longest_collection: float = 0.0

    @property
    def longest(self) -> float:
        return max(self.all, default=0.0)

    @property
    def told(self) -> list[float]:
        return [one for one in self.all if one > WORTH_TELLING]


@contextmanager
def watched() -> Iterator[Stalls]:
    """Watch the running loop until the end of the block."""
    stalls = Stalls()
    ticker = _Ticker(stalls)
    started = (time.monotonic(), time.thread_time(), time.process_time())
    gc.callbacks.append(ticker.collection)
    try:
        yield stalls
    finally:
        ticker.stop()
        gc.callbacks.remove(ticker.collection)
        ended = (time.monotonic(), time.thread_time(), time.process_time())
        stalls.wall, stalls.loop_cpu, stalls.process_cpu = (
            after - before for after, before in zip(ended, started, strict=True)
        )


class _Ticker:
    def __init__(self, stalls: Stalls) -> None:
        self._loop = asyncio.get_running_loop()
        self._stalls = stalls
        self._waits = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        self._last = self._now()
        self._collecting = 0.0
        self._timer = self._loop.call_later(TICK, self._tick)

    def _now(self) -> tuple[float, float, float]:
        """Return the time, the CPU that was used, and how long this thread has waited for a core. Seconds."""
        now, used = time.monotonic(), time.process_time()  # before the read, after which the interpreter is waited for
        return now, used, int(os.pread(self._waits, 100, 0).split()[1]) / 1e9

    def _tick(self) -> None:
        now = self._now()
        passed, used, waited = (after - before for after, before in zip(now, self._last, strict=True))
        late = passed - waited - 2 * TICK  # timers are a millisecond late by themselves
        if late > 0:
            self._stalls.all.append(min(late, used))
        self._last = now
        self._timer = self._loop.call_later(TICK, self._tick)

    def collection(self, phase: str, info: dict[str, Any]) -> None:
        del info
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            took = time.thread_time() - self._collecting
            self._stalls.longest_collection = max(self._stalls.longest_collection, took)

    def stop(self) -> None:
        self._timer.cancel()
        os.close(self._waits)
