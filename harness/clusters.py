"""A cluster without a network: its balancer, its pools and what is known of its endpoints."""

from __future__ import annotations

from dataplane.circuits import Circuit
from dataplane.clock import Clock
from dataplane.clusters import ClusterPools
from dataplane.dialling import Dialler
from dataplane.egress.names import Resolver
from dataplane.live import Live
from dataplane.metrics import UpstreamCounts
from dataplane.outliers import Outliers
from dataplane.pool import Pool, Route
from policies.balance import Endpoint, LoadBalancer, build
from policies.identity import SpiffeId
from policies.outliers import PassiveHealth
from policies.table import Cluster

ENDPOINTS = tuple(Endpoint(f"n/{number}", "10.0.0.1", number, 1 + number % 3) for number in range(1, 6))


class QuietCluster:
    """The cluster. Nothing happens to its pools but what a test does."""

    def __init__(
        self, clock: Clock, size: int, settings: PassiveHealth, policy: str = "round_robin", *, backed_up: bool = False
    ) -> None:
        self.clock = clock
        self.counts = UpstreamCounts()
        self.outliers = Outliers("api", clock, self.counts, draw=lambda: 0.5)
        self.outliers.obey(settings, size)
        self.outliers.backed_up = backed_up
        endpoints, balancer = ENDPOINTS[:size], LoadBalancer(policy=policy, minimum_ring_size=16)
        cluster = Cluster(
            target="api",
            service="api",
            subset="",
            datacenter="dc1",
            sni="",
            spiffe_id=SpiffeId("t", "dc1", "api"),
            endpoints=endpoints,
            balancer=balancer,
            connect_timeout=1.0,
            chooser=build(endpoints, balancer),
        )
        circuit, dialler = Circuit(self.counts), Dialler(Live(), clock, Resolver())
        self.pools = [Pool(Route(one.address, one.port), dialler, clock, circuit, self.outliers) for one in endpoints]
        self.cluster = ClusterPools(cluster, lambda _, one: self.pools[one.port - 1], self.outliers)
