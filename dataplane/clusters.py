"""Which endpoint takes a request: the turn of a cluster's balancer, past the ejected ones, and failover.

While nobody is ejected a choice is a turn of the balancer and no more. Else the turns of ejected endpoints go to the
next; one whose time is over gets one request in its own turn, as its trial.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from policies.balance import HASHING, Endpoint, Question, Schedule, rehash
from policies.table import Cluster

if TYPE_CHECKING:
    from dataplane.outliers import Outliers
    from dataplane.pool import Pool

_DRAWS = 16  # of a balancer without turns, until its choice is no ejected endpoint


class ClusterPools:
    """A cluster in use: its balancer, and a pool for each of its endpoints that has had its turn."""

    __slots__ = (
        "_balancer",
        "_counter",
        "_out",
        "_pool_of",
        "_pools",
        "_schedule",
        "_turns",
        "cluster",
        "hashes",
        "outliers",
    )

    def __init__(self, cluster: Cluster, pool_of: Callable[[Cluster, Endpoint], Pool], outliers: Outliers) -> None:
        self.outliers = outliers
        self._out = outliers.out
        self._pool_of = pool_of
        self.follow(cluster)

    def follow(self, cluster: Cluster) -> None:
        """Go by these endpoints from now on."""
        self.cluster = cluster
        self.hashes = cluster.balancer.policy in HASHING  # the hash of a request decides
        self._balancer = cluster.chooser
        self._pools: dict[Endpoint, Pool] = {}
        self._schedule = self._balancer.turns if isinstance(self._balancer, Schedule) else ()
        self._turns: list[Pool | None] = [None] * len(self._schedule)
        self._counter = random.randrange(len(self._turns)) if self._turns else 0

    @property
    def empty(self) -> bool:
        """Return whether there is no healthy endpoint."""
        return self._balancer is None

    @property
    def available(self) -> bool:
        """Return whether anybody may be asked: healthy and not ejected, or ejected for long enough."""
        if not self._out:
            return self._balancer is not None
        return len(self._out) < self.outliers.endpoints or self.outliers.trial_due

    def choose(self, request_hash: int | None = None) -> Pool:
        """Return the pool of the endpoint that takes a request. The cluster must not be empty."""
        if self._out:
            return self._choose_admitted(request_hash)
        turns = self._turns
        if turns:
            self._counter = turn = (self._counter + 1) % len(turns)
            pool = turns[turn]
            if pool is None:
                pool = turns[turn] = self._pool(self._schedule[turn])
            return pool
        return self._draw(request_hash)

    def _draw(self, request_hash: int | None) -> Pool:
        if self._balancer is None:
            message = "an empty cluster cannot be asked"
            raise RuntimeError(message)
        return self._pool(self._balancer.pick(Question(0, random.random, self._busy, request_hash)))

    def _choose_admitted(self, request_hash: int | None) -> Pool:
        for pool in self._candidates(request_hash):
            if pool not in self._out or self.outliers.may_try(pool):
                return pool
        self.outliers.take_back_all()
        return next(self._candidates(request_hash))

    def _candidates(self, request_hash: int | None) -> Iterator[Pool]:
        """Go through the balancer's choices, then through all endpoints."""
        for attempt in range(len(self._turns)):
            del attempt
            self._counter = turn = (self._counter + 1) % len(self._turns)
            yield self._pool(self._schedule[turn])
        if self._turns:
            return
        for attempt in range(_DRAWS):
            yield self._draw(rehash(request_hash, attempt) if request_hash is not None else None)
        endpoints = self.cluster.endpoints
        start = random.randrange(len(endpoints))
        for position in range(len(endpoints)):
            yield self._pool(endpoints[(start + position) % len(endpoints)])

    def _pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = self._pool_of(self.cluster, endpoint)
        return pool

    def _busy(self, endpoint: Endpoint) -> int:
        return self._pool(endpoint).active

    def connect_timeout(self, pool: Pool) -> float:
        """Return how many seconds the connect to an endpoint may take."""
        del pool
        return self.cluster.connect_timeout

    def holds(self, pool: Pool) -> bool:
        """Return whether it is the pool of an endpoint that has had its turn here."""
        return pool in self._pools.values()

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return a pool that was not tried yet, or None: an ejected one only when no other is left."""
        pool = self.another_admitted(tried)
        if pool is None and self._out:
            pool = next((pool for pool in map(self._pool, self.cluster.endpoints) if pool not in tried), None)
            if pool is not None:
                self.outliers.try_anyway(pool)
        return pool

    def another_admitted(self, tried: set[Pool]) -> Pool | None:
        """Return a pool that was not tried yet and is not ejected, or None."""
        endpoints = self.cluster.endpoints
        left_out = len(tried) + len(self._out)
        some = random.sample(endpoints, min(len(endpoints), left_out + 1))  # one of them is neither
        return next((pool for pool in map(self._pool, some) if pool not in tried and pool not in self._out), None)


class Failover:
    """The clusters of one arm, in order: the next one is asked only when nobody is left in those before it."""

    __slots__ = ("_clusters", "cluster", "empty", "hashes")

    def __init__(self, clusters: Sequence[ClusterPools]) -> None:
        self._clusters = tuple(clusters)
        self.cluster = clusters[0].cluster
        self.hashes = clusters[0].hashes
        self.empty = False
        for pools in clusters:
            pools.outliers.backed_up = True

    @property
    def available(self) -> bool:
        """Return whether anybody may be asked."""
        return any(pools.available for pools in self._clusters)

    def choose(self, request_hash: int | None = None) -> Pool:
        """Return the pool of the endpoint that takes a request."""
        for pools in self._clusters:
            if pools.available:
                return pools.choose(request_hash)
        for pools in self._clusters:
            pools.outliers.take_back_all()
        return self._clusters[0].choose(request_hash)

    def connect_timeout(self, pool: Pool) -> float:
        """Return how many seconds the connect to an endpoint may take: its own cluster says so."""
        owner = next((pools for pools in self._clusters if pools.holds(pool)), self._clusters[0])
        return owner.connect_timeout(pool)

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return a pool that was not tried yet, or None: of the first cluster that has one, ejected ones last."""
        return _first(pools.another_admitted(tried) for pools in self._clusters) or _first(
            pools.another(tried) for pools in self._clusters
        )


def _first(pools: Iterable[Pool | None]) -> Pool | None:
    return next((pool for pool in pools if pool is not None), None)
