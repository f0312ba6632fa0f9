"""What is in force follows what was heard: every change of the snapshot is compiled and swapped in.

Compiling is on the control loop. A generation crosses to the first loop in `_install`, and nowhere else. A change that
cannot be put in force leaves the last good state.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from controlplane.control_loop import Tidy, on
from controlplane.follower import Follower
from dataplane.credentials import Credentials
from dataplane.live import Generation, Live
from dataplane.serve import Dataplane
from policies.compiler import compile_table
from policies.errors import ConfigError, Problem
from policies.snapshot import Snapshot
from policies.table import Table
from policies.wanted import missing, waiting
from sidecar.sources import Sources

log = structlog.get_logger(__name__)

COALESCE_SECONDS = 0.03  # a burst of changes is compiled once
MAX_COALESCE_SECONDS = 0.3
PAUSE = 3  # times as long as compiling took, so that a large mesh in motion leaves time for its requests
CREDENTIAL_SECONDS = 0.25  # for leaves of linked services at a time: new roots make all of them anew
SETTLE_SECONDS = 10.0  # how long readiness waits for upstreams that have not answered


class Generations:
    """The generations of one process. `changed` is set whenever there is something to compile."""

    def __init__(
        self, follower: Follower, sources: Sources, live: Live, dataplane: Dataplane, drain_seconds: float
    ) -> None:
        self.changed = asyncio.Event()  # the control loop's, as is the follower
        self.changed.set()
        self._follower = follower
        self._sources = sources
        self._live = live
        self._dataplane = dataplane
        self._drain_seconds = drain_seconds
        self._credentials = Credentials()
        self._tidy = Tidy()
        self._problems: tuple[Problem, ...] = ()  # of the table
        self._heard_at: float | None = None  # when all that is needed was there, upstreams left out
        self._followed: Snapshot | None = None  # what the open listeners are made from

    async def compile_forever(self, front: asyncio.AbstractEventLoop) -> None:
        """Compile what changes, for listeners on the first loop. Raise ConfigError if they cannot open at the start."""
        while not self._is_complete(self._follower.snapshot):  # noqa: ASYNC110 - time completes it too, not only an event
            await asyncio.sleep(COALESCE_SECONDS)
        while True:
            await self.changed.wait()
            self.changed.clear()
            started = time.monotonic()
            await self._compile(front)
            took = time.monotonic() - started
            await asyncio.sleep(min(max(COALESCE_SECONDS, took * PAUSE), MAX_COALESCE_SECONDS))

    async def _compile(self, front: asyncio.AbstractEventLoop) -> None:
        snapshot = self._follower.snapshot
        if missing(snapshot):
            return
        previous = self._live.current.table if self._live.current is not None else None
        with self._tidy():
            table, problems = compile_table(snapshot, previous)
        await self._make_credentials(snapshot)
        generation = self._prepare(snapshot, table)
        failures = await on(front, self._install(generation)) if generation is not None else ()
        registration = snapshot.registration
        self._sources.follow_listeners(table, registration.datacenter if registration is not None else "")
        in_force = self._live.current
        self._tell((*problems, *failures, *(in_force.problems if in_force is not None else ())))
        self._followed = snapshot

    async def _make_credentials(self, snapshot: Snapshot) -> None:
        assert snapshot.roots is not None and snapshot.mesh is not None  # noqa: S101, PT018 - not missing
        enough = time.monotonic() + (CREDENTIAL_SECONDS if self._live.current is not None else float("inf"))
        for _ in self._credentials.steps(snapshot.leaves, snapshot.roots, snapshot.mesh):
            if time.monotonic() > enough:  # the table may hold a deny
                self.changed.set()
                break
            await asyncio.sleep(0)

    def _prepare(self, snapshot: Snapshot, table: Table) -> Generation | None:
        leaf, roots, mesh = snapshot.leaf, snapshot.roots, snapshot.mesh
        assert leaf is not None and roots is not None and mesh is not None  # noqa: S101, PT018 - not missing
        return self._live.prepare(table, leaf, roots, mesh, snapshot.material, self._credentials.current)

    async def _install(self, generation: Generation) -> tuple[Problem, ...]:
        """On the first loop: put in force what was prepared; return what is wrong with listeners."""
        self._live.put_in_force(generation)
        log.info("table_in_force", number=generation.number, outbounds=len(generation.table.outbounds))
        failures: list[Problem] = []
        for failed in self._dataplane.steps(generation, self._drain_seconds):
            failures += (problem for failure in failed for problem in failure.problems)
            await asyncio.sleep(0)
        if failures and self._followed is None and not self._dataplane.serves_outside:
            raise ConfigError(tuple(failures))  # the ports are our own; those of a gateway's entry cost only themselves
        return tuple(failures)

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        told = frozenset(self._problems)
        for problem in problems:
            if problem not in told:
                log.warning("problem", where=problem.where, message=problem.message, effect=problem.fix)
        self._problems = problems

    # --- how it stands, to any thread ---

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is not followed: of the table, and of what it names outside."""
        return (
            *self._problems,
            *self._dataplane.problems,
            *self._sources.problems,
            *self._credentials.problems,
        )

    def settled(self) -> bool:
        """Return whether listeners are open and upstreams and certificates have come, failed, or had their time."""
        return self._live.current is not None and self._followed is not None and self._is_complete(self._followed)

    def _is_complete(self, snapshot: Snapshot) -> bool:
        if missing(snapshot):
            return False
        now = time.monotonic()
        self._heard_at = self._heard_at or now
        statuses = self._follower.status.watches
        silent = [watch for watch in waiting(snapshot) if watch not in statuses or not statuses[watch].failures]
        there = self._dataplane.settled and self._sources.arrived(snapshot) and not silent
        return there or now > self._heard_at + SETTLE_SECONDS
