"""All the pools of a process, kept over swaps of the table, and what the pools of one target share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from dataplane.circuits import Circuit
from dataplane.clock import Clock
from dataplane.clusters import ClusterPools, Failover
from dataplane.dialling import Dialler
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.outliers import Outliers
from dataplane.pool import Pool, Route
from policies.balance import Endpoint, build
from policies.errors import Problem
from policies.identity import SpiffeId
from policies.outliers import State
from policies.retries import RetryBudget
from policies.table import Cluster, Leg

if TYPE_CHECKING:
    from dataplane.names import Lookup
    from policies.egress import Origination

_LOCAL_APP = "local_app"
_How: TypeAlias = "tuple[str, SpiffeId | None, Origination | None]"  # an endpoint is dialled


@dataclass(frozen=True, slots=True)
class _Target:
    """What all pools of a target share."""

    circuit: Circuit
    outliers: Outliers


class Pools:
    """All pools of a process, kept over swaps of the table."""

    def __init__(self, live: Live, clock: Clock, metrics: Metrics, lookup: Lookup | None = None) -> None:
        self._dialler = Dialler(live, clock, lookup)
        self._dialler.renamed = self._renamed
        self._clock = clock
        self._metrics = metrics
        self._targets: dict[str, _Target] = {}
        self._pools: dict[tuple[str, Route], Pool] = {}
        self._budgets: dict[tuple[str, float], RetryBudget] = {}
        self._named: dict[int, Cluster] = {}  # kept, so that an identity is not given to another
        self._clusters: dict[int, ClusterPools] = {}  # by identity: a cluster that did not change is the same object

    def of_cluster(self, cluster: Cluster) -> ClusterPools:
        """Return the pools of a cluster, made when first asked for."""
        known = self._clusters.get(id(cluster))
        if known is None:
            target = self._target(cluster.target) if id(cluster) in self._named else self._follow(cluster)
            known = ClusterPools(self._resolved(cluster), self._of_endpoint, target.outliers)
            self._clusters[id(cluster)] = known
        return known

    def of_leg(self, leg: Leg) -> ClusterPools | Failover | None:
        """Return who takes what goes to an arm: the clusters in which anybody is healthy, in order; None: nobody."""
        filled = [pools for pools in map(self.of_cluster, leg.clusters) if not pools.empty]
        if len(filled) > 1:
            return Failover(filled)
        return filled[0] if filled else None

    def budget(self, target: str, percent: float) -> RetryBudget:
        """Return what a target has for retries; the table may change, this goes on."""
        known = self._budgets.get((target, percent))
        if known is None:
            known = self._budgets[target, percent] = RetryBudget(percent, self._clock.now)
        return known

    def serves(self, pool: Pool, leg: Leg) -> bool:
        """Return whether an endpoint of an arm is one of the table in force; the arm may be of one before."""
        route = pool.route
        return all(id(cluster) in self._named for cluster in leg.clusters) or any(
            (endpoint.address, endpoint.port) == (route.address, route.port)
            for cluster in self._named.values()
            if _how(cluster) == _how(route)
            for endpoint in self._endpoints(cluster)
        )

    def of_app(self, address: str, port: int) -> Pool:
        """Return the pool of the local app."""
        return self._pool(_LOCAL_APP, Route(address, port))

    def _of_endpoint(self, cluster: Cluster, endpoint: Endpoint) -> Pool:
        return self._pool(cluster.target, _route(cluster, endpoint))

    def _pool(self, name: str, route: Route) -> Pool:
        known = self._pools.get((name, route))
        if known is None:
            target = self._target(name)
            known = Pool(route, self._dialler, self._clock, target.circuit, target.outliers)
            if route.host and route.host == route.address:
                known.stay_with(self._dialler.outside.names.addresses(route.host))
            self._pools[name, route] = known
        return known

    def _target(self, name: str) -> _Target:
        known = self._targets.get(name)
        if known is None:
            counts = self._metrics.for_upstream(name)
            known = self._targets[name] = _Target(Circuit(counts), Outliers(name, self._clock, counts))
        return known

    def _follow(self, cluster: Cluster) -> _Target:
        target = self._target(cluster.target)
        target.circuit.obey(cluster.limits)
        endpoints = self._endpoints(cluster)
        places = {(endpoint.address, endpoint.port) for endpoint in endpoints}  # instances may share one
        target.outliers.obey(cluster.passive_health, len(places))
        return target

    def describe(self) -> list[dict[str, object]]:
        """Return every endpoint with its connections and why it is left out, for people."""
        idle = {
            (cluster.target, _route(cluster, endpoint)): None
            for cluster in self._named.values()
            for endpoint in self._endpoints(cluster)
        }
        return [
            {
                "target": name,
                "endpoint": str(route),
                "connections": pool.connections if pool is not None else 0,
                "busy": pool.active if pool is not None else 0,
                "spiffe_id": str(route.spiffe_id or ""),
                **(self._ejection(name, pool) if pool is not None and pool.troubled else {}),
            }
            for (name, route), pool in {**idle, **self._pools}.items()
        ]

    def _ejection(self, name: str, pool: Pool) -> dict[str, object]:
        outlier = self._targets[name].outliers.of(pool)
        if outlier.state is State.ADMITTED or outlier.cause is None:
            return {}
        until = time.time() + outlier.until - self._clock.now
        return {
            "ejected": {
                "state": outlier.state.value,
                "because": outlier.cause.value,
                "until": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
                "times": outlier.times,
            }
        }

    def keep_only(self, clusters: Iterable[Cluster]) -> None:
        """Forget clusters that no table names any more and close the pools of endpoints that are gone."""
        named = {id(cluster): cluster for cluster in clusters}
        if named.keys() == self._named.keys():
            return
        before, self._named = self._named, named
        gone = [before[key] for key in before.keys() - named.keys()]
        self._follow_the_outside(named.values())
        for cluster in gone:
            self._clusters.pop(id(cluster), None)
        touched = {named[key].target for key in named.keys() - before.keys()} | {cluster.target for cluster in gone}
        for cluster in named.values():  # several may be of one target: the last one of the table rules
            if cluster.target in touched:
                self._follow(cluster)
        changed = {cluster.target for cluster in gone} & {name for name, _ in self._pools}
        wanted: dict[tuple[str, _How], set[tuple[str, int]]] = {}
        for cluster in named.values() if changed else ():
            if cluster.target in changed:
                addresses = wanted.setdefault((cluster.target, _how(cluster)), set())
                addresses.update((endpoint.address, endpoint.port) for endpoint in self._endpoints(cluster))
        for name, route in tuple(self._pools) if changed else ():
            if name not in changed or name == _LOCAL_APP:
                continue
            if (route.address, route.port) not in wanted.get((name, _how(route)), ()):
                self._pools.pop((name, route)).close()

    # --- the outside ---

    def _follow_the_outside(self, clusters: Iterable[Cluster]) -> None:
        outside = [cluster for cluster in clusters if cluster.spiffe_id is None]
        if not outside and self._dialler.met is None:
            return
        names = {endpoint.host for cluster in outside for endpoint in cluster.endpoints if endpoint.host}
        self._dialler.outside.names.follow(names)
        self._dialler.outside.originations.follow({one.origination for one in outside if one.origination is not None})

    def _endpoints(self, cluster: Cluster) -> tuple[Endpoint, ...]:
        """Return the endpoints of a cluster by what is known of its host names."""
        if cluster.spiffe_id is not None or not any(endpoint.host for endpoint in cluster.endpoints):
            return cluster.endpoints
        from policies.host_names import resolved  # noqa: PLC0415 - only who leads outside has names

        return resolved(cluster.endpoints, self._dialler.outside.names.addresses, strict=cluster.strict_dns)

    def _resolved(self, cluster: Cluster) -> Cluster:
        endpoints = self._endpoints(cluster)
        if endpoints == cluster.endpoints:
            return cluster
        return replace(cluster, endpoints=endpoints, chooser=build(endpoints, cluster.balancer))

    def _renamed(self, name: str) -> None:
        """A host name has other addresses than before."""
        for number, cluster in self._named.items():
            if cluster.spiffe_id is None and any(endpoint.host == name for endpoint in cluster.endpoints):
                self._follow(cluster)
                if number in self._clusters:
                    self._clusters[number].follow(self._resolved(cluster))
        addresses = self._dialler.outside.names.addresses(name)
        for key, pool in tuple(self._pools.items()):
            if pool.route.host != name:
                continue
            if pool.route.address == name:
                pool.stay_with(addresses)
            elif pool.route.address not in addresses:
                self._pools.pop(key).close()

    @property
    def settled(self) -> bool:
        """Return whether every host name has been looked up once, and every file read."""
        return self._dialler.met is None or self._dialler.met.settled

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with host names and files of the outside just now."""
        return self._dialler.met.problems if self._dialler.met is not None else ()

    def close(self) -> None:
        """Close every idle connection; busy ones close when they come back."""
        self._dialler.close()
        for pool in self._pools.values():
            pool.close()


def _route(cluster: Cluster, endpoint: Endpoint) -> Route:
    return Route(endpoint.address, endpoint.port, *_how(cluster), endpoint.host, cluster.raw)


def _how(dialled: Cluster | Route) -> _How:
    return (dialled.sni, dialled.spiffe_id, dialled.origination)
