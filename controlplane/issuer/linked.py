"""The leaves of the services that a terminating gateway is linked to: a stream for each, begun and ended with the link.

links ─▶ tasks ─ issuer ─▶ LeafUpdate(leaf, service) ─▶ snapshot
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from controlplane.issuer import Issuer, IssuerStatus
from policies.errors import Problem
from policies.identity import SpiffeId
from policies.updates import LeafUpdate, Update


class LinkedLeaves:
    """The tasks of one gateway. `take` is given every update; `statuses` tell how the streams stand, by service."""

    def __init__(self, issuer: Issuer, take: Callable[[Update], None]) -> None:
        self.statuses: dict[str, IssuerStatus] = {}
        self._issuer = issuer
        self._take = take
        self._wanted: Mapping[str, SpiffeId] = {}
        self._followed: dict[str, tuple[SpiffeId, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self.adjust(self._wanted)
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._followed.clear()

    def adjust(self, wanted: Mapping[str, SpiffeId]) -> None:
        """Begin and end what is called for: the ID of each linked service, by its name."""
        self._wanted = wanted
        if self._group is None:
            return
        for service, (spiffe_id, task) in tuple(self._followed.items()):
            if wanted.get(service) != spiffe_id:
                task.cancel()
                del self._followed[service], self.statuses[service]
        for service in [name for name in wanted if name not in self._followed]:
            self.statuses[service] = IssuerStatus(self._issuer.status.kind)
            task = self._group.create_task(self._follow(service, wanted[service]), name=f"leaf of {service}")
            self._followed[service] = (wanted[service], task)

    def awaited(self) -> frozenset[str]:
        """Return the services whose leaves are there, or about to come: all but those that cannot be had."""
        return frozenset(name for name in self._wanted if name not in self.statuses or not self.statuses[name].error)

    def problems(self) -> tuple[Problem, ...]:
        """Return which leaves cannot be had now."""
        return tuple(
            Problem(f"leaf of {name}", status.error, "the last good one goes on; without one the service stays closed")
            for name, status in self.statuses.copy().items()  # other threads ask too
            if status.error
        )

    async def _follow(self, service: str, spiffe_id: SpiffeId) -> None:
        async for leaf in self._issuer.leaves(spiffe_id, self.statuses[service]):
            self._take(LeafUpdate(leaf, service))
