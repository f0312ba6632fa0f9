"""Two loops in one process: the data plane's, and the control side's in a thread of its own.

Whatever Consul and Vault say is read, decoded, understood and compiled on the second loop, and the first one, which
has the requests, is handed what is ready. A thread alone is not enough: the interpreter runs one thread at a time and
hands over every 5 ms, which the first loop would wait for at each of its system calls; and a collection of garbage
stops every thread for as long as it takes. So the interpreter hands over a hundred times as often and more, and what
large work leaves behind for good is taken out of the collector's sight instead of being looked through again and again.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

SWITCH_SECONDS = 0.00003  # how long a loop waits for its turn, at each of its system calls, while the other one works
# New objects: to look through that many takes less than a millisecond, more are taken out of the collector's sight.
SOME_OBJECTS, MANY_OBJECTS = 1_500, 4_000
OFTEN = 4  # collections of the youngest before one of the middle generation: 10 is usual
RARELY = 250  # collections of the middle generation before one of all, which stops everything: 10 is usual
_T = TypeVar("_T")


class ControlLoop:
    """A loop of the same kind as the running one, in a thread. `await control(work)` does a coroutine's work there."""

    def __init__(self) -> None:
        self._kind: Callable[[], asyncio.AbstractEventLoop] = type(asyncio.get_running_loop())
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, SWITCH_SECONDS))
        gc.set_threshold(gc.get_threshold()[0], OFTEN, RARELY)
        begun = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(begun,), name="control", daemon=True)
        self._thread.start()
        begun.wait()

    async def __call__(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what the work returns, raise what it raises; cancelled here, it is cancelled there."""
        return await on(self._loop, work)

    async def close(self) -> None:
        """Cancel what is left there, wait until it is over, and let go of the thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        await asyncio.to_thread(self._thread.join)
        sys.setswitchinterval(self._interval)

    def _live(self, begun: threading.Event) -> None:
        with asyncio.Runner(loop_factory=self._kind) as runner:
            self._loop, self._end = runner.get_loop(), asyncio.Event()
            self._loop.call_soon(begun.set)
            runner.run(self._ended())

    async def _ended(self) -> None:
        await self._end.wait()


async def on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    """Do the work on a loop that runs in another thread."""
    future: Future[_T] = asyncio.run_coroutine_threadsafe(work, loop)
    return await asyncio.wrap_future(future)


class Tidy:
    """Work within which no collection of garbage begins; after it what is new is looked through while it is little.

    The collector counts objects made less objects freed. Where new ones take the place of old ones it would wait until
    there are so many that to look through them takes a tenth of a second.
    """

    def __init__(self) -> None:
        self._kept = 0  # objects that the work left since they were last taken out of the collector's sight

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Do a piece of work in the block."""
        collects, before = gc.isenabled(), _young()
        gc.disable()
        try:
            yield
        finally:
            new = _young()
            self._kept += max(0, new - before)
            if max(new, self._kept) > MANY_OBJECTS:
                gc.freeze()  # what of it is freed later is freed all the same; connections end without cycles
                self._kept = 0
            elif new > SOME_OBJECTS:
                gc.collect(1)
            if collects:
                gc.enable()


def _young() -> int:
    """Return how many objects the collector has not looked through twice.

    In one call, within which no other thread has a turn: the list of them refers to each, and `tuple(...)` raises
    SystemError when anybody else refers to the tuple that it is about to fill (github.com/python/cpython/issues/39117).
    """
    return sum(map(len, map(gc.get_objects, (0, 1))))
