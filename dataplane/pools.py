"""All the pools of a process, kept over swaps of the table, and what the pools of one target share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
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
    from dataplane.egress.names import Lookup
    from policies.egress.links import Origination

FOLLOWED_AT_ONCE, CLOSED_AT_ONCE = 32, 16  # clusters, targets, until others have their turn
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
        self._due: dict[int, Cluster] = {}  # those of them whose limits are not obeyed yet
        self._clusters: dict[int, ClusterPools] = {}  # by identity: a cluster that did not change is the same object

    def of_cluster(self, cluster: Cluster) -> ClusterPools:
        """Return the pools of a cluster, made when first asked for."""
        known = self._clusters.get(id(cluster))
        if known is None:
            followed = id(cluster) in self._named and id(cluster) not in self._due
            target = self._target(cluster.target) if followed else self._follow(cluster)
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

    def steps(self, clusters: Iterable[Cluster]) -> Iterator[None]:
        """Forget clusters that no table names any more and close the pools of endpoints that are gone, in short steps.

        From the first one on, whoever is asked for goes by these clusters.
        """
        named = {id(cluster): cluster for cluster in clusters}
        if named.keys() == self._named.keys():
            return
        before, self._named = self._named, named
        gone = [before[key] for key in before.keys() - named.keys()]
        for cluster in gone:
            self._clusters.pop(id(cluster), None)
        targets = {cluster.target for cluster in gone}
        touched = targets | {named[key].target for key in named.keys() - before.keys()}
        # Several may be of one target: the last one of the table rules.
        self._due = {key: cluster for key, cluster in named.items() if cluster.target in touched}
        self._follow_the_outside(named.values())
        yield
        for number, cluster in enumerate(tuple(self._due.values()), 1):
            self._follow(cluster)
            del self._due[id(cluster)]
            if number % FOLLOWED_AT_ONCE == 0:
                yield
        yield from self._close_gone(targets, tuple(named.values()))

    def _close_gone(self, targets: set[str], clusters: tuple[Cluster, ...]) -> Iterator[None]:
        """Close the pools of these targets that no endpoint of these clusters is behind, target by target."""
        routes: dict[str, list[Route]] = {}
        for name, route in self._pools if targets else ():
            if name in targets and name != _LOCAL_APP:
                routes.setdefault(name, []).append(route)
        behind: dict[str, list[Cluster]] = {}
        for cluster in clusters:
            if cluster.target in routes:
                behind.setdefault(cluster.target, []).append(cluster)
        yield
        for number, (name, known) in enumerate(routes.items(), 1):
            wanted = self._wanted(behind.get(name, ()))
            for route in known:
                if (route.address, route.port) not in wanted.get(_how(route), ()):
                    self._close(name, route)
            if number % CLOSED_AT_ONCE == 0:
                yield

    def _wanted(self, clusters: Iterable[Cluster]) -> dict[_How, set[tuple[str, int]]]:
        wanted: dict[_How, set[tuple[str, int]]] = {}
        for cluster in clusters:
            addresses = wanted.setdefault(_how(cluster), set())
            addresses.update((endpoint.address, endpoint.port) for endpoint in self._endpoints(cluster))
        return wanted

    def _close(self, name: str, route: Route) -> None:
        pool = self._pools.pop((name, route), None)  # gone already if its host name has changed meanwhile
        if pool is not None:
            pool.close()

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
        from policies.egress.host_names import resolved  # noqa: PLC0415 - only who leads outside has names

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
