"""From a snapshot to the table: `compile_table`.

Every upstream is compiled by itself. One that cannot be (a chain that cannot be followed, a filter that does not fit
its rows) keeps what the previous table had for it and becomes a problem; all others go on.

An upstream is compiled from its `_Sources` and nothing else, and carries them along. Where they are the same as in the
previous table, so is the upstream: of a thousand only those are compiled anew that something has changed for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from policies.balance import Balancer, Endpoint, LoadBalancer, build, reused
from policies.chain import Chain, ChainRoute, Resolver, Router, Splitter
from policies.durations import limit
from policies.errors import EntryError, FilterError, Problem
from policies.identity import Roots, SpiffeId
from policies.instances import Instance, healthy_endpoints
from policies.limits import DEFAULT_LIMITS, Limits
from policies.modifiers import LEFT_OUT, complaints
from policies.outliers import DEFAULT_HEALTH, PassiveHealth
from policies.proxies import Registration
from policies.retries import RetrySettings
from policies.snapshot import Role, Snapshot
from policies.table import (
    DEFAULT_IDLE_TIMEOUT,
    DEFAULT_REQUEST_TIMEOUT,
    Cluster,
    Inbound,
    Leg,
    Outbound,
    Route,
    Table,
    UpstreamListener,
)
from policies.wanted import endpoint_watch
from policies.watches import ChainWatch

_WHOLE = 100.0


def compile_table(snapshot: Snapshot, previous: Table | None = None) -> tuple[Table, tuple[Problem, ...]]:
    """Return the table and the problems met. The snapshot must not be `missing` anything (ValueError)."""
    registration, roots, leaf = snapshot.registration, snapshot.roots, snapshot.leaf
    if registration is None or roots is None or leaf is None:
        message = "a table needs the registration, the roots and a leaf"
        raise ValueError(message)
    problems = [problem for group in snapshot.problems.values() for problem in group]
    outbounds = _outbounds(snapshot, registration, roots, previous, problems)
    listeners = tuple(
        UpstreamListener(stanza.key, stanza.bind_address, stanza.bind_port, stanza.forward_proxy)
        for stanza in registration.upstreams
        if stanza.key in outbounds and stanza.bind_port
    )
    table = Table(
        identity=leaf.spiffe_id,
        inbound=_inbound(snapshot, registration),
        outbounds=outbounds,
        listeners=previous.listeners if previous is not None and previous.listeners == listeners else listeners,
        edge=snapshot.edge,
    )
    if snapshot.role is not Role.SIDECAR:
        table = _of_gateway(table, snapshot, registration, outbounds, previous, problems)
    return table, tuple(problems)


def _of_gateway(
    table: Table,
    snapshot: Snapshot,
    registration: Registration,
    outbounds: dict[str, Outbound],
    previous: Table | None,
    problems: list[Problem],
) -> Table:
    """Return the table with a gateway's own listeners. Adds to its outbounds, and problems."""
    from policies.edge_listeners import edge_listeners, passthrough  # noqa: PLC0415 - a sidecar needs none of it
    from policies.filter_chains import compile_egress  # noqa: PLC0415 - the same

    ingress = edge_listeners(snapshot, registration, outbounds, previous, problems)
    return replace(
        table,
        ingress=ingress,
        egress=compile_egress(snapshot, previous.egress if previous is not None else None, problems),
        passthrough=passthrough(snapshot, registration, ingress, outbounds, problems),
    )


def _inbound(snapshot: Snapshot, registration: Registration) -> Inbound | None:
    mesh, intentions, default = snapshot.mesh, snapshot.intentions, snapshot.default_action
    if mesh is None or intentions is None or default is None or not registration.local_port:
        return None
    return Inbound(
        service=registration.service,
        protocol=registration.protocol,
        bind_address=registration.bind_address,
        bind_port=registration.bind_port,
        local_address=registration.local_address,
        local_port=registration.local_port,
        intentions=intentions,
        default=default,
        local_connect_timeout=registration.local_connect_timeout,
        local_request_timeout=registration.local_request_timeout,
        local_idle_timeout=registration.local_idle_timeout,
        max_connections=registration.max_inbound_connections,
        normalization=mesh.normalization,
        sanitize_xfcc=mesh.sanitize_xfcc,
    )


# --- upstreams -----------------------------------------------------------------------------------------------------


def _outbounds(
    snapshot: Snapshot, registration: Registration, roots: Roots, previous: Table | None, problems: list[Problem]
) -> dict[str, Outbound]:
    compiled: dict[str, Outbound] = {}
    before = previous.outbounds if previous is not None else {}
    known: dict[_ClusterKey, Cluster] | None = None
    here = registration.datacenter
    retries = {stanza.key: stanza.retries for stanza in registration.upstreams}
    for key, place in _places(snapshot, registration).items():
        chain, outbound, old = snapshot.chain(place.watch), None, before.get(key)
        try:
            if chain is not None:
                sources = _Sources(
                    chain,
                    {
                        name: snapshot.instances(endpoint_watch(place.watch, one, here))
                        for name, one in chain.targets.items()
                    },
                    here,
                    roots.trust_domain,
                    place.protection,
                    retries.get(key, registration.retries),
                    place.circuit,
                )
                if old is not None and old.made_from == sources:
                    outbound = old
                else:
                    known = _clusters_of(before) if known is None else known
                    outbound = _Compilation(sources, known).outbound()
        except (EntryError, FilterError) as error:
            problems.append(Problem(f"upstream {key}", str(error), "the last good state stays"))
            outbound = None
        except _NotHeardError:
            outbound = None
        kept = outbound or old
        if kept is not None:
            compiled[key] = kept
            problems.extend(Problem(f"upstream {key}", text, LEFT_OUT) for text in kept.left_out)
    return compiled


_Protection = tuple[Limits, PassiveHealth]
_UNPROTECTED = (DEFAULT_LIMITS, DEFAULT_HEALTH)
_ClusterKey = tuple[str, LoadBalancer, float, _Protection]


@dataclass(frozen=True, slots=True)
class _Place:
    """An upstream to compile. `circuit` is what tells its targets from those that others lead to."""

    watch: ChainWatch
    protection: _Protection = _UNPROTECTED
    circuit: str = ""


def _places(snapshot: Snapshot, registration: Registration) -> dict[str, _Place]:
    """Return all upstreams by their keys in the table: those of the registration, and what a gateway leads to."""
    upstreams, found, taken = snapshot.upstreams, dict[str, _Place](), set[str]()
    if snapshot.ingress is not None:
        from policies.ingress import exposed_circuits  # noqa: PLC0415 - only an ingress gateway has an entry

        exposures = exposed_circuits(snapshot.ingress, snapshot.gateway_services)
        found = {
            key: _Place(upstreams[one.service], (one.limits, one.passive_health), one.suffix)
            for key, one in exposures.items()
            if one.service in upstreams
        }
        passed_on = {rule.service for rule in snapshot.edge.passthrough} if snapshot.edge is not None else set()
        taken = {one.service for one in exposures.values()} - passed_on
    stanzas = {stanza.key: (stanza.limits, stanza.passive_health) for stanza in registration.upstreams}
    for key, watch in upstreams.items():
        if key in stanzas:
            found[key] = _Place(watch, stanzas[key])
        elif key not in taken:
            found.setdefault(key, _Place(watch))
    return found


def _clusters_of(outbounds: Mapping[str, Outbound]) -> dict[_ClusterKey, Cluster]:
    """Return the clusters of a table by what does not change with their endpoints."""
    return {
        (
            cluster.target,
            cluster.balancer,
            cluster.connect_timeout,
            (cluster.limits, cluster.passive_health),
        ): cluster
        for outbound in outbounds.values()
        for cluster in outbound.clusters
    }


class _NotHeardError(Exception):
    """The instances of a primary target have not been heard yet."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """All that an upstream is compiled from. `instances` by the name of the target, None where not heard yet."""

    chain: Chain
    instances: Mapping[str, tuple[Instance, ...] | None]
    datacenter: str
    trust_domain: str
    protection: _Protection
    retries: RetrySettings
    circuit: str = ""


@dataclass(frozen=True, slots=True)
class _Compilation:
    """One upstream on its way to an `Outbound`. What several routes lead to is made once."""

    sources: _Sources
    known: dict[_ClusterKey, Cluster]  # of the previous table and of this one so far
    legs: dict[str, tuple[Leg, ...]] = field(default_factory=dict)  # by node

    @property
    def chain(self) -> Chain:
        return self.sources.chain

    def outbound(self) -> Outbound:
        start, index = self.chain.nodes[self.chain.start], None
        if isinstance(start, Router):
            routes = tuple(self._route(route) for route in start.routes)
            index = start.index
        else:
            routes = (self._plain_route(self.chain.start),)
        clusters = {id(cluster): cluster for legs in self.legs.values() for leg in legs for cluster in leg.clusters}
        return Outbound(
            self.chain.service,
            self.chain.protocol,
            routes,
            index,
            tuple(clusters.values()),
            made_from=self.sources,
            left_out=complaints(level for route in routes for level in route.modifiers()),
        )

    def _plain_route(self, node: str) -> Route:
        return Route(match=None, legs=self._legs_of(node), request_timeout=self._timeout(0.0, node))

    def _route(self, route: ChainRoute) -> Route:
        return Route(
            match=route.match,
            legs=self._legs_of(route.next_node),
            prefix_rewrite=route.prefix_rewrite,
            request_timeout=self._timeout(route.request_timeout, route.next_node),
            idle_timeout=limit(route.idle_timeout, DEFAULT_IDLE_TIMEOUT),
            retry=self.sources.retries.of(route.retry),
            request_headers=route.request_headers,
            response_headers=route.response_headers,
        )

    def _timeout(self, of_route: float, node: str) -> float | None:
        """Return the route's own limit, else the longest that a resolver below sets, else Envoy's default."""
        if of_route:
            return limit(of_route, DEFAULT_REQUEST_TIMEOUT)
        below = max((resolver.request_timeout for resolver in self._resolvers(node)), default=0.0)
        return limit(below, DEFAULT_REQUEST_TIMEOUT)

    def _resolvers(self, name: str) -> Iterator[Resolver]:
        node = self.chain.nodes[name]
        if isinstance(node, Resolver):
            yield node
        elif isinstance(node, Splitter):
            for split in node.splits:
                yield from self._resolvers(split.next_node)

    def _legs_of(self, name: str) -> tuple[Leg, ...]:
        if name not in self.legs:
            self.legs[name] = tuple(self._legs(name))
        return self.legs[name]

    def _legs(self, name: str) -> Iterator[Leg]:
        node = self.chain.nodes[name]
        if isinstance(node, Resolver):
            yield Leg(_WHOLE, self._clusters(node))
        elif isinstance(node, Splitter):
            for split in node.splits:
                for leg in self._legs(split.next_node):
                    yield Leg(
                        weight=split.weight * leg.weight / _WHOLE,
                        clusters=leg.clusters,
                        request_headers=split.request_headers or leg.request_headers,
                        response_headers=split.response_headers or leg.response_headers,
                    )
        else:
            message = f"discovery chain of {self.chain.service}: router {name} stands below another node"
            raise EntryError(message)

    def _clusters(self, resolver: Resolver) -> tuple[Cluster, ...]:
        primary = self._cluster(resolver.target, resolver)
        if primary is None:
            raise _NotHeardError
        backups = (self._cluster(name, resolver) for name in resolver.failover)
        return (primary, *(backup for backup in backups if backup is not None))

    def _cluster(self, name: str, resolver: Resolver) -> Cluster | None:
        sources = self.sources
        instances = sources.instances[name]
        if instances is None:
            return None
        target = sources.chain.targets[name]
        datacenter = target.datacenter or sources.datacenter
        key = (
            target.id + sources.circuit,
            resolver.balancer,
            target.connect_timeout or resolver.connect_timeout,
            sources.protection,
        )
        before = self.known.get(key)
        found = healthy_endpoints(
            instances,
            subset=target.filter,
            only_passing=target.only_passing,
            local_datacenter=sources.datacenter,
        )
        endpoints = reused(found, before.endpoints if before is not None else ())
        same = before is not None and endpoints is before.endpoints
        cluster = Cluster(
            target=key[0],
            service=target.service,
            subset=target.subset,
            datacenter=datacenter,
            sni=target.sni,
            spiffe_id=SpiffeId(sources.trust_domain, datacenter, target.service),
            endpoints=endpoints,
            balancer=resolver.balancer,
            connect_timeout=key[2],
            limits=sources.protection[0],
            passive_health=sources.protection[1],
            chooser=before.chooser if before is not None and same else _chooser(endpoints, resolver.balancer),
        )
        self.known[key] = before if before is not None and before == cluster else cluster
        return self.known[key]


def _chooser(endpoints: tuple[Endpoint, ...], balancer: LoadBalancer) -> Balancer | None:
    return build(endpoints, balancer) if endpoints else None
