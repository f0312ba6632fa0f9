"""One upstream: from its chain and its instances to an `Outbound` of routes, legs and clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policies.balance import Balancer, Endpoint, LoadBalancer, build, reused
from policies.chain import Chain, ChainRoute, Resolver, Router, Splitter
from policies.durations import limit
from policies.errors import EntryError
from policies.identity import SpiffeId
from policies.instances import Instance, healthy_endpoints
from policies.limits import DEFAULT_LIMITS, Limits
from policies.modifiers import complaints
from policies.outliers import DEFAULT_HEALTH, PassiveHealth
from policies.retries import RetrySettings
from policies.table import DEFAULT_IDLE_TIMEOUT, DEFAULT_REQUEST_TIMEOUT, Cluster, Leg, Outbound, Route

_WHOLE = 100.0

Protection = tuple[Limits, PassiveHealth]
UNPROTECTED: Protection = (DEFAULT_LIMITS, DEFAULT_HEALTH)
ClusterKey = tuple[str, LoadBalancer, float, Protection]  # of a cluster, what does not change with its endpoints


@dataclass(frozen=True, slots=True)
class Sources:
    """All that an upstream is compiled from. `instances` by the name of the target, None where not heard yet."""

    chain: Chain
    instances: Mapping[str, tuple[Instance, ...] | None]
    datacenter: str
    trust_domain: str
    protection: Protection
    retries: RetrySettings
    circuit: str = ""


def compile_outbound(sources: Sources, known: dict[ClusterKey, Cluster]) -> Outbound | None:
    """Return the outbound; None as long as the instances of a primary target have not been heard.

    `known` are the clusters of the previous table and of this one so far, and grows: one that is the same stays the
    same object. Raise EntryError, FilterError for an upstream that cannot be compiled.
    """
    try:
        return _Compilation(sources, known).outbound()
    except _NotHeardError:
        return None


def clusters_of(outbounds: Mapping[str, Outbound]) -> dict[ClusterKey, Cluster]:
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
class _Compilation:
    """One upstream on its way to an `Outbound`. What several routes lead to is made once."""

    sources: Sources
    known: dict[ClusterKey, Cluster]
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
