"""One proxy process from start to drained.

    STARTING ──everything heard, listeners open, registered──▶ SERVING ──SIGTERM──▶ DRAINING ──▶ STOPPED

Starting: find out who we are, follow Consul, get a leaf, open the listeners, register last. Serving: every change of
the snapshot is compiled and swapped in; a change that cannot be leaves the last good state in force. Draining:
maintenance on, so that callers go elsewhere, finish what is under way, deregister what we registered; a registration
that is not ours is left as it was found. Relieved by a second instance on the same port, only finish.

The listeners open when every upstream has answered, not before: whoever opens a port that another instance has is sent
every new connection from that moment.

It has two loops. Listeners, requests, signals, admin pages and the drain are on the first; Consul, the leaf, compiling
and the registration on the control loop, in a thread. A generation crosses in `_compile`, and what the drain asks of
Consul goes the other way. Whatever else is seen from both sides is immutable, or read one attribute at a time.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from controlplane.consul.catalog import Catalog
from controlplane.control_loop import ControlLoop, Tidy, on
from controlplane.issuer import Issuer
from controlplane.issuer.consul import ConsulIssuer
from controlplane.registration import DRAIN_REASON, find_sidecar, seed
from controlplane.follower import Follower
from dataplane.credentials import Credentials
from dataplane.live import Generation, Live
from dataplane.metrics import Metrics
from dataplane.serve import Dataplane
from policies.compiler import compile_table
from policies.errors import CatalogError, CatalogNotFound, ConfigError, MeshError, Problem
from policies.identity import Leaf, SpiffeId
from policies.snapshot import Heard, Role, Snapshot, apply, missing, waiting
from policies.table import Table
from policies.watches import RegistrationWatch
from sidecar import takeover
from sidecar.settings import ProcessSettings

if TYPE_CHECKING:
    from controlplane.certificates.follower import Certificates
    from controlplane.issuer.linked import LinkedLeaves
    from controlplane.issuer.session import VaultSession

log = structlog.get_logger(__name__)

COALESCE_SECONDS = 0.03  # a burst of changes is compiled once
MAX_COALESCE_SECONDS = 0.3
PAUSE = 3  # times as long as compiling took, so that a large mesh in motion leaves time for its requests
CREDENTIAL_SECONDS = 0.25  # for leaves of linked services at a time: new roots make all of them anew
SETTLE_SECONDS = 10.0  # how long readiness waits for upstreams that have not answered
NOTICE_SECONDS = 1.0  # before the listeners close: for callers to hear of it, or for what a successor was not sent


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
        self._compiled_problems: tuple[Problem, ...] = ()
        self.follower: Follower | None = None
        self.issuer: Issuer | None = None
        self.linked: LinkedLeaves | None = None  # of a terminating gateway
        self._credentials = Credentials()
        self.certificates: Certificates | None = None  # of a gateway's TLS listeners
        self._pki: VaultSession | None = None
        self.dataplane: Dataplane | None = None
        self._changed = asyncio.Event()  # the control loop's, as is the follower
        self._tidy = Tidy()
        self._stop = asyncio.Event()
        self._hold = False
        self._drained = asyncio.Event()
        self._released = asyncio.Event()
        self._heard_at: float | None = None  # when all that is needed was there, upstreams left out
        self._followed: Snapshot | None = None  # what the open listeners are made from

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
        snapshot = await self._until_stopped(control(self._introduce(catalog)))
        if snapshot is None:
            return
        self.follower = follower = Follower(catalog, snapshot, self._heard)
        self._changed.set()
        self.issuer = issuer = await control(self._make_issuer(catalog))
        self.linked = self._make_linked(issuer, follower)
        self.certificates = self._make_certificates(catalog, follower, dataplane)
        following = asyncio.create_task(control(follower.run(self._leaves)))
        compiling = asyncio.create_task(control(self._compile_forever(dataplane, asyncio.get_running_loop())))
        registering = asyncio.create_task(control(self._stay_registered(catalog)))
        work: tuple[asyncio.Task[None], ...] = (following, compiling, registering)
        if self.certificates is not None:
            work = (*work, asyncio.create_task(control(self.certificates.run())))
        if self.linked is not None:
            work = (*work, asyncio.create_task(control(self.linked.run())))
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((*work, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done():
                    task.result()
            registering.cancel()
            await self._drain(control, catalog, dataplane)
        finally:
            for task in (*work, stopping):
                task.cancel()
            await asyncio.gather(*work, stopping, return_exceptions=True)
            await dataplane.drain(0)
            await control(issuer.close())
            if self._pki is not None:
                await control(self._pki.close())

    def stop(self) -> None:
        """Begin to drain; a second time, cut what is under way. After `drain_and_hold`, end."""
        if self._hold and not self._released.is_set():
            self._released.set()
        elif self._stop.is_set():
            log.warning("stopping_at_once")
            if self.dataplane is not None:
                for listener in self.dataplane.listeners.values():
                    for connection in tuple(listener.connections):
                        connection.abort()
        self._stop.set()

    async def drain_and_hold(self, *, wait: bool) -> None:
        """Leave the catalog and drain what comes in; what the app calls goes on until `stop`."""
        self._hold = not self._stop.is_set()
        self._stop.set()
        if wait:
            await self._drained.wait()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def _until_stopped(self, work: Coroutine[Any, Any, Snapshot]) -> Snapshot | None:
        """Return what the work returns, or None when told to stop before."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    # --- who we are: on the control loop, as all until the end ---

    async def _introduce(self, catalog: Catalog) -> Snapshot:
        """Return the snapshot to start with. Asks until Consul answers; raise ConfigError for what it cannot find."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, CatalogError) and not error.terminal),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            before_sleep=_tell_once(),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await self._first_snapshot(catalog)
        raise AssertionError  # the loop above returns or raises

    async def _first_snapshot(self, catalog: Catalog) -> Snapshot:
        settings = self.settings
        if not settings.definitions:
            proxy_id = settings.proxy_id or await self._find(catalog)
            await self._check_kind(catalog, proxy_id)
            return Snapshot(settings.role, proxy_id, settings.edge)
        proxy = settings.definitions[-1]
        service = str((proxy.get("Proxy") or {}).get("DestinationServiceName") or proxy["Name"])
        chain = await catalog.own_chain(service)
        seeded = seed(proxy, str(chain.get("Datacenter") or ""), str(chain.get("Protocol") or ""))
        watch = RegistrationWatch(str(proxy["ID"]))
        snapshot = apply(Snapshot(settings.role, watch.proxy_id, settings.edge), Heard(watch, seeded))
        return replace(snapshot, problems={})

    async def _find(self, catalog: Catalog) -> str:
        if self.settings.role is Role.SIDECAR:
            return await find_sidecar(catalog, self.settings.sidecar_for)
        wanted = self.settings.gateway_service
        found = [
            str(service_id)
            for service_id, row in (await catalog.services()).items()
            if row.get("Kind") == self.settings.role.value and (not wanted or row.get("Service") == wanted)
        ]
        if len(found) != 1:
            message = f"{len(found)} {self.settings.role.value} services are registered with this agent"
            raise ConfigError((Problem("--gateway", message, "name one by --proxy-id, or add --register --address"),))
        return found[0]

    async def _check_kind(self, catalog: Catalog, proxy_id: str) -> None:
        try:
            row = await catalog.service(proxy_id)
        except CatalogNotFound as error:
            problem = Problem("--proxy-id", f"this agent has no service {proxy_id}", "register it first")
            raise ConfigError((problem,)) from error
        if row.get("Kind") != self.settings.role.value:
            message = f"{proxy_id} is of kind {row.get('Kind') or 'typical'!r}, expected {self.settings.role.value}"
            raise ConfigError((Problem("--proxy-id", message),))

    # --- the leaf ---

    async def _make_issuer(self, catalog: Catalog) -> Issuer:
        if self.settings.vault is None:
            return ConsulIssuer(catalog, local=self.settings.consul.is_local)
        from controlplane.issuer.vault import VaultIssuer  # noqa: PLC0415 - 17 MB that only Vault's users pay

        return VaultIssuer(self.settings.vault)

    def _leaves(self, snapshot: Snapshot) -> AsyncIterator[Leaf] | None:
        registration, roots = snapshot.registration, snapshot.roots
        if registration is None or roots is None or self.issuer is None:
            return None
        return self.issuer.leaves(SpiffeId(roots.trust_domain, registration.datacenter, registration.service))

    def _make_linked(self, issuer: Issuer, follower: Follower) -> LinkedLeaves | None:
        if self.settings.role is not Role.TERMINATING:
            return None
        from controlplane.issuer.linked import LinkedLeaves  # noqa: PLC0415 - a sidecar needs none of it

        return LinkedLeaves(issuer, follower.take)

    def _heard(self, snapshot: Snapshot) -> None:
        self._changed.set()
        registration, roots = snapshot.registration, snapshot.roots
        if self.linked is not None and registration is not None and roots is not None:
            self.linked.adjust(
                {name: SpiffeId(roots.trust_domain, registration.datacenter, name) for name in snapshot.links}
            )

    # --- certificates of the edge ---

    def _make_certificates(self, catalog: Catalog, follower: Follower, dataplane: Dataplane) -> Certificates | None:
        if self.settings.role not in {Role.INGRESS, Role.API}:
            return None
        from controlplane.certificates.follower import Certificates  # noqa: PLC0415 - a sidecar needs none of it
        from controlplane.certificates.sources import source_of  # noqa: PLC0415 - the same

        challenges = dataplane.edge.challenges
        return Certificates(lambda settings: source_of(settings, catalog, self._session, challenges), follower.take)

    def _session(self) -> VaultSession:
        """Return the session with Vault: the leaf's if that comes from there, for credentials may be good only once."""
        from controlplane.issuer.session import VaultSession  # noqa: PLC0415 - 17 MB that only Vault's users pay
        from controlplane.issuer.vault import VaultIssuer  # noqa: PLC0415 - the same

        if isinstance(self.issuer, VaultIssuer):
            return self.issuer.session
        if self._pki is None:
            assert self.settings.pki is not None  # noqa: S101 - a certificate of Vault's needs its block in the file
            self._pki = VaultSession(self.settings.pki)
        return self._pki

    # --- tables ---

    async def _compile_forever(self, dataplane: Dataplane, front: asyncio.AbstractEventLoop) -> None:
        assert self.follower is not None  # noqa: S101 - set before this task starts
        while not self._is_complete(self.follower.snapshot):  # noqa: ASYNC110 - time completes it too, not only an event
            await asyncio.sleep(COALESCE_SECONDS)
        while True:
            await self._changed.wait()
            self._changed.clear()
            started = time.monotonic()
            await self._compile(dataplane, front)
            took = time.monotonic() - started
            await asyncio.sleep(min(max(COALESCE_SECONDS, took * PAUSE), MAX_COALESCE_SECONDS))

    async def _compile(self, dataplane: Dataplane, front: asyncio.AbstractEventLoop) -> None:
        assert self.follower is not None  # noqa: S101 - set before this task starts
        snapshot = self.follower.snapshot
        if missing(snapshot):
            return
        previous = self.live.current.table if self.live.current is not None else None
        with self._tidy():
            table, problems = compile_table(snapshot, previous)
        assert snapshot.roots is not None and snapshot.mesh is not None  # noqa: S101, PT018 - not missing
        enough = time.monotonic() + (CREDENTIAL_SECONDS if self.live.current is not None else float("inf"))
        for _ in self._credentials.steps(snapshot.leaves, snapshot.roots, snapshot.mesh):
            if time.monotonic() > enough:  # the table may hold a deny
                self._changed.set()
                break
            await asyncio.sleep(0)
        generation = self._prepare(snapshot, table)
        failures = await on(front, self._install(dataplane, generation)) if generation is not None else ()
        if self.certificates is not None:
            from policies.called_certificates import called_for, client_cas  # noqa: PLC0415 - a sidecar needs none of it

            registration = snapshot.registration
            datacenter = registration.datacenter if registration is not None else ""
            self.certificates.adjust(called_for(table, datacenter), client_cas(table))
        if failures and self._followed is None:
            raise ConfigError(failures)
        in_force = self.live.current
        self._tell_problems((*problems, *failures, *(in_force.problems if in_force is not None else ())))
        self._followed = snapshot

    def _prepare(self, snapshot: Snapshot, table: Table) -> Generation | None:
        leaf, roots, mesh = snapshot.leaf, snapshot.roots, snapshot.mesh
        assert leaf is not None and roots is not None and mesh is not None  # noqa: S101, PT018 - not missing
        return self.live.prepare(table, leaf, roots, mesh, snapshot.material, self._credentials.current)

    async def _install(self, dataplane: Dataplane, generation: Generation) -> tuple[Problem, ...]:
        """On the first loop: put in force what was prepared; return what is wrong with listeners."""
        self.live.put_in_force(generation)
        log.info("table_in_force", number=generation.number, outbounds=len(generation.table.outbounds))
        failures: list[Problem] = []
        for failed in dataplane.steps(generation, self.settings.drain_seconds):
            failures += (problem for failure in failed for problem in failure.problems)
            await asyncio.sleep(0)
        return tuple(failures)

    def _tell_problems(self, problems: tuple[Problem, ...]) -> None:
        told = frozenset(self._compiled_problems)
        for problem in problems:
            if problem not in told:
                log.warning("problem", where=problem.where, message=problem.message, effect=problem.fix)
        self._compiled_problems = problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is not followed: of the table, and of what it names outside."""
        outside = self.dataplane.problems if self.dataplane is not None else ()
        certificates = self.certificates.problems() if self.certificates is not None else ()
        leaves = self.linked.problems() if self.linked is not None else ()
        return (*self._compiled_problems, *outside, *certificates, *leaves, *self._credentials.problems)

    # --- registration ---

    async def _stay_registered(self, catalog: Catalog) -> None:
        """Register once everything is open; again when Consul has forgotten us."""
        assert self.follower is not None  # noqa: S101 - set before this task starts
        while not self.settled():  # noqa: ASYNC110 - time settles it too, not only an event
            await asyncio.sleep(0.05)
        forgotten = self.follower.status.registration_missing
        while True:
            if self.settings.definitions:
                await self._register(catalog)
            await self._quietly(self._end_maintenance(catalog, self._proxy_id))
            if self.phase is Phase.STARTING:
                self.phase = Phase.SERVING
                gc.freeze()  # a large mesh need not be gone through again and again
                log.info("serving", proxy=self._proxy_id)
            forgotten.clear()
            await forgotten.wait()
            log.warning("registration_missing", proxy=self._proxy_id, again=bool(self.settings.definitions))

    async def _register(self, catalog: Catalog) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, CatalogError)),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            before_sleep=_tell_once(),
        )
        for definition in self.settings.definitions:
            async for attempt in retrying:
                with attempt:
                    await catalog.register(definition)
        log.info("registered", ids=[definition["ID"] for definition in self.settings.definitions])

    @property
    def _proxy_id(self) -> str:
        assert self.follower is not None  # noqa: S101 - set before anybody asks
        return self.follower.snapshot.proxy_id

    async def _quietly(self, work: Awaitable[None]) -> None:
        """Do what is polite but not needed."""
        try:
            await asyncio.wait_for(work, 3.0)
        except (MeshError, TimeoutError) as error:
            log.debug("not_done", error=str(error))

    # --- the end: on the first loop ---

    async def _drain(self, control: ControlLoop, catalog: Catalog, dataplane: Dataplane) -> None:
        self.phase = Phase.DRAINING
        places = takeover.places(key.port for key in dataplane.listeners if key.purpose != "upstream")
        relieved = takeover.taken_over(places)
        seconds = self.settings.drain_seconds
        log.info("draining", seconds=seconds, relieved=relieved)
        ids = [str(definition["ID"]) for definition in self.settings.definitions] or [self._proxy_id]
        dataplane.retire(inbound_only=self._hold)
        for service_id in () if relieved else ids:
            await self._quietly(control(catalog.maintenance(service_id, enable=True, reason=DRAIN_REASON)))
        await asyncio.sleep(NOTICE_SECONDS)
        patience = seconds / 2 if relieved else 0.0  # nobody waits for who is relieved
        begun = asyncio.get_running_loop().time()
        whole = await dataplane.drain_inbound(seconds, patience)
        if not self._hold:
            left = max(0.0, begun + patience - asyncio.get_running_loop().time())
            whole = await dataplane.drain(seconds, left) and whole
        if self.settings.definitions:
            await self._deregister(control, catalog, places)
        log.info("drained", nothing_cut=whole)
        self._drained.set()
        if self._hold:
            await self._released.wait()
            await dataplane.drain(self.settings.drain_seconds)
        if not self.settings.definitions:
            await self._quietly(control(self._end_maintenance(catalog, self._proxy_id)))

    async def _deregister(self, control: ControlLoop, catalog: Catalog, places: frozenset[str]) -> None:
        if takeover.taken_over(places):
            log.info("left_to_successor", ids=[definition["ID"] for definition in self.settings.definitions])
            return
        for definition in reversed(self.settings.definitions):
            await self._quietly(control(catalog.deregister(str(definition["ID"]))))

    async def _end_maintenance(self, catalog: Catalog, service_id: str) -> None:
        """End the maintenance that a drain began; an operator's own stays."""
        if await catalog.maintenance_reason(service_id) in {None, DRAIN_REASON}:
            await catalog.maintenance(service_id, enable=False, reason="")

    # --- how it stands ---

    def settled(self) -> bool:
        """Return whether listeners are open and upstreams and certificates have come, failed, or had their time."""
        return self.live.current is not None and self._followed is not None and self._is_complete(self._followed)

    def _is_complete(self, snapshot: Snapshot) -> bool:
        if missing(snapshot) or self.follower is None:
            return False
        now = time.monotonic()
        self._heard_at = self._heard_at or now
        statuses = self.follower.status.watches
        silent = [watch for watch in waiting(snapshot) if watch not in statuses or not statuses[watch].failures]
        looked_up = self.dataplane is None or self.dataplane.settled
        certificates = self.certificates.awaited() if self.certificates is not None else frozenset()
        fetched = certificates.issubset(snapshot.material.certificates if snapshot.material is not None else ())
        leaves = self.linked.awaited() if self.linked is not None else frozenset()
        issued = leaves.issubset(snapshot.leaves)
        return (looked_up and fetched and issued and not silent) or now > self._heard_at + SETTLE_SECONDS

    def ready(self) -> bool:
        """Return whether traffic may be sent here."""
        generation = self.live.current
        return self.phase is Phase.SERVING and generation is not None and generation.leaf_ends > time.time()


def _take_all_files() -> None:
    """Let this process have as many files open as it may: two a connection are soon more than the usual 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell_once() -> Callable[[object], None]:
    """Return a callback that logs the first failure of a retried call, and none after it."""
    told = False

    def tell(state: object) -> None:
        nonlocal told
        if not told:
            told = True
            outcome = getattr(state, "outcome", None)
            error = outcome.exception() if outcome is not None else None
            log.warning("consul_not_answering", error=str(error))

    return tell
