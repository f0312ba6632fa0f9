"""Heavy pure work beside the loop, which goes first.

A thread alone is not enough: the interpreter runs one thread at a time and hands over every 5 ms, which the loop would
wait for at each of its system calls; and a collection of garbage stops every thread for as long as it takes. So there
is one such thread, handing over fifty times as often, and what its work leaves behind for good is taken out of the
collector's sight instead of being looked through again and again.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SWITCH_SECONDS = 0.0001  # how long the loop waits for its turn, at each of its system calls, while there is such work
MANY_OBJECTS = 20_000  # new ones, from which on they are taken out of the collector's sight
_T = TypeVar("_T")


class Aside:
    """The thread. Work waits for the work before it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """Do the work in the thread; return what it returns, raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _quietly, work)

    def close(self) -> None:
        """Let go of the thread; what it is doing is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _quietly(work: Callable[[], _T]) -> _T:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    collects = gc.isenabled()
    gc.disable()
    try:
        return work()
    finally:
        if gc.get_count()[0] > MANY_OBJECTS:
            gc.freeze()
        if collects:
            gc.enable()
        sys.setswitchinterval(interval)
