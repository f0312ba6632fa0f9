"""A proxy's data plane in this process, fed by a mesh without Consul."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dataplane.credentials import NO_CREDENTIALS, Credential, Credentials
from dataplane.egress.names import Lookup
from dataplane.live import Generation, Live, generation_after
from dataplane.metrics import Metrics
from dataplane.serve import Dataplane
from harness.certificates import Authority
from harness.meshes import Json, Member, ingress, intention, sidecar, upstream
from harness.meshes import chain as chain_of
from lictor.up.ports import free_ports
from policies.compiler import compile_table
from policies.edge.server_certificates import EdgeMaterial
from policies.edge.settings import NO_EDGE, EdgeSettings
from policies.identity import Leaf, Roots
from policies.mesh import Mesh
from policies.table import Table
from policies.updates import Update


@dataclass(slots=True)
class Half:
    """A running data plane. `follow` puts what its member has heard in force."""

    member: Member
    live: Live
    metrics: Metrics
    dataplane: Dataplane
    credentials: Credentials = field(default_factory=Credentials)

    def follow(self, drain_seconds: float = 0.2) -> None:
        """Compile and swap, as the process does."""
        snapshot = self.member.snapshot
        previous = self.live.current.table if self.live.current is not None else None
        table, _ = compile_table(snapshot, previous)
        assert snapshot.leaf is not None
        assert snapshot.roots is not None
        assert snapshot.mesh is not None
        for _ in self.credentials.steps(snapshot.leaves, snapshot.roots, snapshot.mesh):
            pass
        linked = self.credentials.current
        generation = swap(self.live, table, snapshot.leaf, snapshot.roots, snapshot.mesh, snapshot.material, linked)
        failures = [one for step in self.dataplane.steps(generation, drain_seconds) for one in step]
        assert not failures, failures

    def later(self, seconds: float) -> None:
        """Let it be that much later for this data plane. From then on its time goes by by being told to."""
        clock = self.dataplane.clock
        clock.stop()
        clock.strike(clock.now + seconds, clock.wall + seconds)

    def port(self, purpose: str) -> int:
        """Return the port of the first listener of a purpose: inbound, upstream, ingress."""
        return next(one.address[1] for key, one in self.dataplane.listeners.items() if key.purpose == purpose)

    def reasons(self) -> dict[str, int]:
        """Return how often each local answer was given, over all listeners."""
        found: dict[str, int] = {}
        for counts in self.metrics.http.values():
            for reason, count in counts.reasons.items():
                found[reason] = found.get(reason, 0) + count
        return found

    def refused(self) -> dict[str, int]:
        """Return how often connections were refused before a byte, by reason."""
        found: dict[str, int] = {}
        for counts in self.metrics.listeners.values():
            for reason, count in counts.refused.items():
                found[reason] = found.get(reason, 0) + count
        return found


def swap(
    live: Live,
    table: Table,
    leaf: Leaf,
    roots: Roots,
    mesh: Mesh,
    material: EdgeMaterial | None = None,
    linked: Mapping[str, Credential] = NO_CREDENTIALS,
) -> Generation:
    """Put a new generation in force, whether anything differs or not. Raise BadLeaf and leave the old one."""
    generation = generation_after(live.current, table, leaf, roots, mesh, material, linked)
    live.put_in_force(generation)
    return generation


@contextlib.asynccontextmanager
async def half(member: Member, lookup: Lookup | None = None) -> AsyncIterator[Half]:
    """Run the data plane of a member until the end of the block."""
    live, metrics = Live(), Metrics()
    running = Half(member, live, metrics, Dataplane(live, metrics, lookup))
    try:
        running.follow()
        yield running
    finally:
        await running.dataplane.drain(0.05)


@contextlib.asynccontextmanager
async def edge(
    authority: Authority,
    listeners: list[Json],
    apps: Mapping[str, int],
    protocol: str = "http",
    settings: EdgeSettings = NO_EDGE,
    updates: Iterable[Update] = (),
) -> AsyncIterator[Half]:
    """Run a gateway in front of sidecars of these services, each with its app's port."""
    async with contextlib.AsyncExitStack() as stack:
        member = ingress("edge", authority, listeners)
        member.snapshot = replace(member.snapshot, edge=settings)
        for update in updates:
            member.take(update)
        for service, port in apps.items():
            rows = [intention("edge", service, "allow")]
            side = await stack.enter_async_context(
                half(sidecar(service, authority, local_port=port, protocol=protocol, intentions=rows))
            )
            upstream(member, service, [side.port("inbound")], chain_of(service, protocol))
        yield await stack.enter_async_context(half(member))


@dataclass(slots=True)
class Pair:
    """A caller's sidecar (`web`) and the sidecar that it calls (`api`), in front of an app."""

    web: Half
    api: Half

    @property
    def port(self) -> int:
        """Return where web's app calls api."""
        return self.web.port("upstream")


ALLOW_ALL: Json = {"SourceName": "*", "DestinationName": "api", "Precedence": 8, "Action": "allow"}


@contextlib.asynccontextmanager
async def pair(
    authority: Authority,
    app_port: int,
    *,
    protocol: str = "http",
    chain: Json | None = None,
    intentions: Iterable[Json] = (ALLOW_ALL,),
    config: Json | None = None,
) -> AsyncIterator[Pair]:
    """Run both sidecars. `chain` is what Consul says of the upstream, `config` api's proxy settings."""
    api = sidecar("api", authority, local_port=app_port, protocol=protocol, intentions=intentions, config=config)
    async with half(api) as called:
        (port,) = free_ports(1)
        web = sidecar("web", authority, upstreams={"api": port})
        answer = chain
        if answer is None and protocol != "http":
            answer = chain_of("api", protocol)
        upstream(web, "api", [called.port("inbound")], answer)
        async with half(web) as caller:
            yield Pair(caller, called)
