"""Turns: one at a time, the most important first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Like a lock; of those who wait the lowest rank is next, and of one rank who came first."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._came = itertools.count()

    @asynccontextmanager
    async def turn(self, rank: int) -> AsyncIterator[None]:
        """Wait for the turn and have it until the end of the block."""
        if self._taken:
            await self._wait(rank)
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, rank: int) -> None:
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._came), mine))
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was given, and is not wanted any more
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, following = heapq.heappop(self._waiting)
            if not following.done():  # else who waited was cancelled
                following.set_result(None)
                return
        self._taken = False
