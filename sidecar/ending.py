"""The end of a process: told to stop, it lets what is under way finish and leaves the catalog. On the first loop.

Maintenance goes on, so that callers go elsewhere; what we registered is deregistered; a registration that is not ours
is left as it was found. Relieved by a second instance on the same ports, it only finishes.

A drain that holds leaves the catalog and lets go of what comes in, while what the app calls goes on until it is told
to stop once more.
"""

from __future__ import annotations

import asyncio

import structlog

from controlplane.control_loop import ControlLoop
from dataplane.serve import Dataplane
from policies.listeners import Purpose
from sidecar import takeover
from sidecar.membership import Membership
from sidecar.patience import quietly

log = structlog.get_logger(__name__)

NOTICE_SECONDS = 1.0  # before the listeners close: for callers to hear of it, or for what a successor was not sent


class Ending:
    """What the process has been told of its end, and how far it has come."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.drained = asyncio.Event()
        self._released = asyncio.Event()
        self._holds = False

    def tell(self) -> bool:
        """Begin to drain, or end a hold. Return whether all that has been told before: then nothing is waited for."""
        if self._holds and not self._released.is_set():
            self._released.set()
            return False
        again = self.told.is_set()
        self.told.set()
        return again

    def hold(self) -> None:
        """Begin to drain what comes in only, unless the end has begun."""
        self._holds = self._holds or not self.told.is_set()
        self.told.set()

    async def drain(self, control: ControlLoop, membership: Membership, dataplane: Dataplane, seconds: float) -> None:
        """Finish within so many seconds, of what comes in and of what the app calls each."""
        places = takeover.places(key.port for key in dataplane.listeners if key.purpose != Purpose.UPSTREAM)
        relieved = takeover.taken_over(places)
        log.info("draining", seconds=seconds, relieved=relieved)
        dataplane.retire(inbound_only=self._holds)
        for service_id in () if relieved else membership.ids or (membership.proxy_id,):
            await quietly(control(membership.begin_maintenance(service_id)))
        await asyncio.sleep(NOTICE_SECONDS)
        whole = await self._finish(dataplane, seconds, seconds / 2 if relieved else 0.0)
        await _deregister(control, membership, places)
        log.info("drained", nothing_cut=whole)
        self.drained.set()
        if self._holds:
            await self._released.wait()
            await dataplane.drain(seconds)
        if not membership.ids:
            await quietly(control(membership.end_maintenance()))

    async def _finish(self, dataplane: Dataplane, seconds: float, patience: float) -> bool:
        """Return whether nothing was cut. `patience`: nobody waits for who is relieved."""
        now = asyncio.get_running_loop().time
        begun = now()
        whole = await dataplane.drain_inbound(seconds, patience)
        if not self._holds:
            whole = await dataplane.drain(seconds, max(0.0, begun + patience - now())) and whole
        return whole


async def _deregister(control: ControlLoop, membership: Membership, places: frozenset[str]) -> None:
    if membership.ids and takeover.taken_over(places):
        log.info("left_to_successor", ids=list(membership.ids))
        return
    for service_id in reversed(membership.ids):
        await quietly(control(membership.deregister(service_id)))
