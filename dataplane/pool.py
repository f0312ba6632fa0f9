"""Upstream connections: pools of one endpoint each, and clusters that choose among pools.

A pool keeps idle connections, the one used last on top, so that the rest cool down and close. Connections outlive a
swap of the table; they are closed when their endpoint is gone, when idle too long, or shortly before a certificate of
theirs ends.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dataplane.clock import Clock
from dataplane.handshakes import connect_tls
from dataplane.live import Live
from dataplane.metrics import Metrics, UpstreamCounts
from dataplane.tls_transport import TlsTransport
from dataplane.upstream import EXPIRY_MARGIN, Upstream
from policies.balance import Endpoint, Question, Schedule
from policies.errors import ConnectFailed, ConnectTimedOut
from policies.identity import SpiffeId
from policies.table import Cluster

IDLE_SECONDS = 60.0
MAX_CONNECTIONS = 1024  # to one endpoint, Envoy's default
MAX_IDLE = 256


class Overflow(Exception):
    """An endpoint has all the connections that it may have."""


@dataclass(frozen=True, slots=True)
class Route:
    """How an endpoint is dialled: `spiffe_id` None is plaintext to the local app."""

    address: str
    port: int
    sni: str = ""
    spiffe_id: SpiffeId | None = None


class Pool:
    """The connections to one endpoint."""

    __slots__ = ("_closed", "_live", "active", "clock", "connections", "counts", "idle", "route")

    def __init__(self, route: Route, live: Live, clock: Clock, counts: UpstreamCounts) -> None:
        self.route = route
        self.clock = clock
        self.counts = counts
        self._live = live
        self.idle: list[Upstream] = []
        self.connections = 0  # open, busy or idle
        self.active = 0  # busy
        self._closed = False

    def take(self) -> Upstream | None:
        """Return a warm connection, or None when one must be dialled."""
        now = self.clock.now
        while self.idle:
            connection = self.idle.pop()
            if connection.usable(now):
                self.active += 1
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def dial(self, timeout: float) -> Upstream:
        """Return a new, busy connection. Raise ConnectFailed, ConnectTimedOut or Overflow."""
        if self.connections >= MAX_CONNECTIONS:
            raise Overflow
        self.connections += 1
        self.active += 1
        try:
            connection = await self._connect(timeout)
        except BaseException as error:
            self.connections -= 1
            self.active -= 1
            if isinstance(error, ConnectFailed | ConnectTimedOut):
                self.counts.connect_failures += 1
            raise
        connection.counted = True
        self.counts.connections += 1
        return connection

    async def _connect(self, timeout: float) -> Upstream:
        route = self.route
        if route.spiffe_id is None:
            return await _connect_plain(route, timeout, lambda: Upstream(self))
        generation = self._live.current
        if generation is None or generation.leaf_ends <= self.clock.wall:
            message = "our own leaf has ended and there is no new one"
            raise ConnectFailed(message)
        made: list[Upstream] = []

        def protocol(transport: TlsTransport) -> asyncio.Protocol:
            connection = Upstream(self)
            ends = min(transport.peer.not_after.timestamp(), generation.leaf_ends)
            connection.expires = self.clock.now + ends - self.clock.wall
            made.append(connection)
            return connection

        await connect_tls(
            (route.address, route.port),
            generation.contexts.client,
            generation.check_peer,
            (route.sni, route.spiffe_id),
            timeout,
            protocol,
        )
        return made[0]

    def release(self, connection: Upstream) -> None:
        """Take back a connection that is ready for another request."""
        self.active -= 1
        if self._closed or len(self.idle) >= MAX_IDLE or not connection.usable(self.clock.now):
            connection.abort()
            return
        connection.deadline = min(self.clock.now + IDLE_SECONDS, connection.expires - EXPIRY_MARGIN)
        self.idle.append(connection)

    def lost(self, connection: Upstream, *, busy: bool) -> None:
        """Forget a connection that is closed."""
        if not connection.counted:  # `dial` has not had it, or gave up: the place is given back there
            return
        self.connections -= 1
        if busy:
            self.active -= 1
        elif connection in self.idle:
            self.idle.remove(connection)

    def close(self) -> None:
        """Close what is idle; what is busy is closed when it comes back."""
        self._closed = True
        for connection in tuple(self.idle):
            connection.abort()
        self.idle.clear()


async def _connect_plain(route: Route, timeout: float, factory: Callable[[], Upstream]) -> Upstream:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            transport, connection = await loop.create_connection(factory, route.address, route.port)
    except TimeoutError as error:
        message = f"{route.address}:{route.port}: no connection within {timeout:g} s"
        raise ConnectTimedOut(message) from error
    except OSError as error:
        message = f"{route.address}:{route.port}: {error.strerror or error}"
        raise ConnectFailed(message) from error
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if connection.closed:
        message = f"{route.address}:{route.port}: closed as soon as it was there"
        raise ConnectFailed(message)
    return connection


class ClusterPools:
    """A cluster in use: its balancer, and a pool for each of its endpoints that has had its turn."""

    __slots__ = ("_balancer", "_counter", "_pool_of", "_pools", "_schedule", "_turns", "cluster")

    def __init__(self, cluster: Cluster, pool_of: Callable[[Cluster, Endpoint], Pool]) -> None:
        self.cluster = cluster
        self._pool_of = pool_of
        self._balancer = cluster.chooser
        self._pools: dict[Endpoint, Pool] = {}
        self._schedule = self._balancer.turns if isinstance(self._balancer, Schedule) else ()
        self._turns: list[Pool | None] = [None] * len(self._schedule)
        self._counter = random.randrange(len(self._turns)) if self._turns else 0

    @property
    def hashes(self) -> bool:
        """Return whether the request's hash decides."""
        return self.cluster.balancer.policy in {"ring_hash", "maglev"}

    @property
    def empty(self) -> bool:
        """Return whether there is no healthy endpoint."""
        return self._balancer is None

    def choose(self, request_hash: int | None = None) -> Pool:
        """Return the pool of the endpoint that takes a request. The cluster must not be empty."""
        turns = self._turns
        if turns:
            self._counter = turn = (self._counter + 1) % len(turns)
            pool = turns[turn]
            if pool is None:
                pool = turns[turn] = self._pool(self._schedule[turn])
            return pool
        if self._balancer is None:
            message = "an empty cluster cannot be asked"
            raise RuntimeError(message)
        return self._pool(self._balancer.pick(Question(0, random.random, self._busy, request_hash)))

    def _pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = self._pool_of(self.cluster, endpoint)
        return pool

    def _busy(self, endpoint: Endpoint) -> int:
        return self._pool(endpoint).active

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return a pool that was not tried yet, or None."""
        endpoints = self.cluster.endpoints
        some = random.sample(endpoints, min(len(endpoints), len(tried) + 1))  # one of them is new
        return next((pool for pool in map(self._pool, some) if pool not in tried), None)


class Pools:
    """All pools of a process, kept over swaps of the table."""

    def __init__(self, live: Live, clock: Clock, metrics: Metrics) -> None:
        self._live = live
        self._clock = clock
        self._metrics = metrics
        self._pools: dict[tuple[str, Route], Pool] = {}
        self._named: dict[int, Cluster] = {}  # kept, so that an identity is not given to another
        self._clusters: dict[int, ClusterPools] = {}  # by identity: a cluster that did not change is the same object

    def of_cluster(self, cluster: Cluster) -> ClusterPools:
        """Return the pools of a cluster, made when first asked for."""
        known = self._clusters.get(id(cluster))
        if known is None:
            known = self._clusters[id(cluster)] = ClusterPools(cluster, self._of_endpoint)
        return known

    def of_app(self, address: str, port: int) -> Pool:
        """Return the pool of the local app."""
        return self._pool("local_app", Route(address, port))

    def _of_endpoint(self, cluster: Cluster, endpoint: Endpoint) -> Pool:
        return self._pool(cluster.target, _route(cluster, endpoint))

    def _pool(self, name: str, route: Route) -> Pool:
        known = self._pools.get((name, route))
        if known is None:
            known = Pool(route, self._live, self._clock, self._metrics.for_upstream(name))
            self._pools[name, route] = known
        return known

    def describe(self) -> list[dict[str, object]]:
        """Return every endpoint with its connections, for people."""
        idle = {
            (cluster.target, _route(cluster, endpoint)): None
            for cluster in self._named.values()
            for endpoint in cluster.endpoints
        }
        return [
            {
                "target": name,
                "endpoint": f"{route.address}:{route.port}",
                "connections": pool.connections if pool is not None else 0,
                "busy": pool.active if pool is not None else 0,
                "spiffe_id": str(route.spiffe_id or ""),
            }
            for (name, route), pool in {**idle, **self._pools}.items()
        ]

    def keep_only(self, clusters: Iterable[Cluster]) -> None:
        """Forget clusters that no table names any more and close the pools of endpoints that are gone."""
        named = {id(cluster): cluster for cluster in clusters}
        if named.keys() == self._named.keys():
            return
        self._named = named
        self._clusters = {key: pools for key, pools in self._clusters.items() if key in named}
        wanted: dict[tuple[str, str, SpiffeId], set[tuple[str, int]]] = {}
        for cluster in named.values():
            addresses = wanted.setdefault((cluster.target, cluster.sni, cluster.spiffe_id), set())
            addresses.update((endpoint.address, endpoint.port) for endpoint in cluster.endpoints)
        for name, route in tuple(self._pools):
            if route.spiffe_id is None:  # the local app
                continue
            if (route.address, route.port) not in wanted.get((name, route.sni, route.spiffe_id), ()):
                self._pools.pop((name, route)).close()

    def close(self) -> None:
        """Close every idle connection; busy ones close when they come back."""
        for pool in self._pools.values():
            pool.close()


def _route(cluster: Cluster, endpoint: Endpoint) -> Route:
    return Route(endpoint.address, endpoint.port, cluster.sni, cluster.spiffe_id)
