"""One proxy process from start to drained.

    STARTING ──everything heard, listeners open, registered──▶ SERVING ──SIGTERM──▶ DRAINING ──▶ STOPPED

Starting: find out who we are (`introduction`), follow Consul, get a leaf (`sources`), open the listeners
(`generations`), register last (`membership`). Serving: every change of the snapshot is compiled and swapped in.
Draining: `ending`.

The listeners open when every upstream has answered, not before: whoever opens a port that another instance has is sent
every new connection from that moment.

It has two loops. Listeners, requests, signals, admin pages and the drain are on the first; Consul, the leaf, compiling
and the registration on the control loop, in a thread. A generation crosses in `generations`, and what the drain asks of
Consul goes the other way. Whatever else is seen from both sides is immutable, or read one attribute at a time.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from controlplane.consul.catalog import Catalog
from controlplane.control_loop import ControlLoop
from controlplane.follower import Follower
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.serve import Dataplane
from policies.errors import Problem
from policies.snapshot import Role, Snapshot
from sidecar.ending import Ending
from sidecar.generations import Generations
from sidecar.introduction import introduce
from sidecar.membership import Membership
from sidecar.settings import ProcessSettings
from sidecar.sources import Sources

if TYPE_CHECKING:
    from dataplane.edge.challenges import Challenges

log = structlog.get_logger(__name__)


class Phase(enum.Enum):
    """Where the process stands."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class Process:
    """One proxy. `run` returns when it has been told to stop and has drained."""

    def __init__(self, settings: ProcessSettings) -> None:
        self.settings = settings
        self.phase = Phase.STARTING
        self.live = Live()
        self.metrics = Metrics()
        self.dataplane: Dataplane | None = None
        # As soon as it is known who we are:
        self.follower: Follower | None = None
        self.sources: Sources | None = None
        self._generations: Generations | None = None
        self._ending = Ending()

    # --- the whole life ---

    async def run(self, admin: Callable[[Process], Awaitable[Callable[[], Awaitable[None]]]] | None = None) -> None:
        """Live. `admin` starts the admin endpoint and returns how to stop it. Raise MeshError when it cannot start."""
        self._listen_to_signals()
        _take_all_files()
        self.dataplane = Dataplane(self.live, self.metrics)
        stop_admin = await admin(self) if admin is not None else None
        control, catalog = ControlLoop(), Catalog(self.settings.consul)
        try:
            await self._live(control, catalog, self.dataplane)
        finally:
            self.phase = Phase.STOPPED
            if stop_admin is not None:
                await stop_admin()
            self.dataplane.clock.stop()
            await control(catalog.close())
            await control.close()

    async def _live(self, control: ControlLoop, catalog: Catalog, dataplane: Dataplane) -> None:
        snapshot = await self._until_stopped(control(introduce(self.settings, catalog)))
        if snapshot is None:
            return
        self.follower = follower = Follower(catalog, snapshot, self._heard)
        challenges = dataplane.edge.challenges if self.settings.role in {Role.INGRESS, Role.API} else None
        self.sources = sources = await control(self._open_sources(catalog, challenges, follower))
        self._generations = generations = Generations(
            follower, sources, self.live, dataplane, self.settings.drain_seconds
        )
        membership = Membership(catalog, snapshot.proxy_id, self.settings.definitions)
        registering = asyncio.create_task(control(self._stay_registered(membership, generations, follower)))
        work: tuple[asyncio.Task[None], ...] = (
            asyncio.create_task(control(follower.run(sources.leaves))),
            asyncio.create_task(control(generations.compile_forever(asyncio.get_running_loop()))),
            registering,
            *(asyncio.create_task(control(one)) for one in sources.work()),
        )
        stopping: asyncio.Task[Any] = asyncio.create_task(self._ending.told.wait())
        try:
            await asyncio.wait((*work, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
            registering.cancel()
            self.phase = Phase.DRAINING
            await self._ending.drain(control, membership, dataplane, self.settings.drain_seconds)
        finally:
            for task in (*work, stopping):
                task.cancel()
            await asyncio.gather(*work, stopping, return_exceptions=True)
            await dataplane.drain(0)
            await control(sources.close())

    async def _open_sources(self, catalog: Catalog, challenges: Challenges | None, follower: Follower) -> Sources:
        """On the control loop: what has to be loaded for Vault takes its time."""
        return Sources(self.settings, catalog, challenges, follower.take)

    def _heard(self, snapshot: Snapshot) -> None:
        """On the control loop: go by what is new."""
        if self._generations is not None and self.sources is not None:
            self._generations.changed.set()
            self.sources.follow_links(snapshot)

    async def _stay_registered(self, membership: Membership, generations: Generations, follower: Follower) -> None:
        """On the control loop: register once everything is open; again when Consul has forgotten us."""
        while not generations.settled():  # noqa: ASYNC110 - time settles it too, not only an event
            await asyncio.sleep(0.05)
        forgotten = follower.status.registration_missing
        await membership.take()
        if self.phase is Phase.STARTING:
            self.phase = Phase.SERVING
            gc.freeze()  # a large mesh need not be gone through again and again
            log.info("serving", proxy=membership.proxy_id)
        while True:
            forgotten.clear()
            await forgotten.wait()
            log.warning("registration_missing", proxy=membership.proxy_id, again=bool(membership.ids))
            await membership.take()

    # --- being told to stop ---

    def stop(self) -> None:
        """Begin to drain; a second time, cut what is under way. After `drain_and_hold`, end."""
        if self._ending.tell() and self.dataplane is not None:
            log.warning("stopping_at_once")
            self.dataplane.cut()

    async def drain_and_hold(self, *, wait: bool) -> None:
        """Leave the catalog and drain what comes in; what the app calls goes on until `stop`."""
        self._ending.hold()
        if wait:
            await self._ending.drained.wait()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def _until_stopped(self, work: Coroutine[Any, Any, Snapshot]) -> Snapshot | None:
        """Return what the work returns, or None when told to stop before."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._ending.told.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    # --- how it stands ---

    def ready(self) -> bool:
        """Return whether traffic may be sent here."""
        generation = self.live.current
        return self.phase is Phase.SERVING and generation is not None and generation.leaf_ends > time.time()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is not followed."""
        return self._generations.problems if self._generations is not None else ()


def _take_all_files() -> None:
    """Let this process have as many files open as it may: two a connection are soon more than the usual 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
