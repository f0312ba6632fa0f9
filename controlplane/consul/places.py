"""How many reads of upstreams go on at once at an agent that other proxies ask too.

The agent allows 200 connections per client address. The numbers here leave room for three large proxies, with half a
dozen connections each for what is their own; where there are more, each refused read (429) leaves its place empty for
a while, so that all together come to what the agent allows.
Source: https://developer.hashicorp.com/consul/docs/agent/config/config-files#http_max_conns_per_client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from policies.errors import CatalogRateLimited

MAX_WATCHES = 48  # blocking queries
MAX_INTENTIONS = 48  # blocking queries of intentions: more than one only where services are linked
MAX_FIRST_READS = 12  # which do not block: thousands at once would be refused
FEWEST = 4
WITHHELD_SECONDS = 30.0


class Places:
    """So many places for reads. `async with place()` waits for one and holds it."""

    def __init__(self, count: int, withheld_seconds: float = WITHHELD_SECONDS) -> None:
        self.left = count  # that are not withheld
        self._free = asyncio.Semaphore(count)
        self._withheld_seconds = withheld_seconds

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place until the end of the block, and for a while longer when the agent refused for too many."""
        await self._free.acquire()
        kept = 0.0
        try:
            yield
        except CatalogRateLimited:
            kept = self._withheld_seconds if self.left > FEWEST else 0.0
            raise
        finally:
            if kept:
                self.left -= 1
                asyncio.get_running_loop().call_later(kept, self._give_back)
            else:
                self._free.release()

    def _give_back(self) -> None:
        self.left += 1
        self._free.release()
