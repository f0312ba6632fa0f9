"""The way out: how what may leave the mesh reaches an endpoint of the service that its filter chain stands for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dataplane.inbound import Entry, told
from dataplane.outbound import ToEndpoint
from dataplane.routing import NO_UPSTREAM
from dataplane.tcp import Relay, dial_clusters
from policies.table import Cluster, FilterChain, Leg, Route, Table

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.exchange import Forward, Reply
    from dataplane.heads import RequestHead, ResponseHead
    from dataplane.inbound import Find
    from dataplane.pool import Pool
    from dataplane.pools import Pools
    from policies.retries import RetryBudget, RetryPolicy

_WHOLE = 100.0
_HOST = re.compile(rb"\r\n(?i:host):[^\r\n]*")


class ToOutside:
    """The decision to let a request through to a service outside. Balancing is that of any endpoint of a cluster.

    An endpoint that has a name is told that name as Host, unless the link says otherwise. Where endpoints have several
    names one is chosen before the request is written, and only one of the same name may take its place.
    """

    __slots__ = (
        "_chosen",
        "_endpoint",
        "_host",
        "budget",
        "idle_timeout",
        "in_mesh",
        "repeats",
        "request_timeout",
        "retry",
    )

    def __init__(self, endpoint: ToEndpoint, chain: FilterChain, cluster: Cluster) -> None:
        self._endpoint = endpoint
        hosts = {one.host for one in cluster.endpoints} if chain.auto_host_rewrite else {""}
        self._host = next(iter(hosts)) if len(hosts) == 1 else None  # None: that of the endpoint chosen
        self._chosen: Pool | None = None
        self.request_timeout = chain.request_timeout
        self.idle_timeout = chain.idle_timeout
        self.retry: RetryPolicy | None = None
        self.budget: RetryBudget | None = None
        self.in_mesh = False
        self.repeats = self._host is not None

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint whose turn it is, or that the request was written for."""
        return self._chosen or self._endpoint.choose(head, downstream)

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return the pool of an endpoint that was not tried."""
        pool = self._endpoint.another(tried)
        while pool is not None and self._chosen is not None and pool.route.host != self._chosen.route.host:
            tried.add(pool)
            pool = self._endpoint.another(tried)
        return pool

    def connect_timeout(self, pool: Pool) -> float:
        """Return the chain's."""
        return self._endpoint.connect_timeout(pool)

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head with the caller's certificate told. The head itself keeps the Host that was judged."""
        request, host = told(head, downstream), self._host
        if host is None:
            self._chosen = self._endpoint.choose(head, downstream)
            host = self._chosen.route.host
        return _HOST.sub(b"\r\nHost: " + host.encode("latin-1", "replace"), request, count=1) if host else request

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer, with the cookie by which the next request finds its way."""
        return self._endpoint.response_lines(head, downstream)


def to_outside(pools: Pools, sni: str) -> Find:
    """Return what lies behind the filter chain of an SNI in any table."""

    def find(table: Table) -> Entry | None:
        chain = table.egress.chains.get(sni) if table.egress is not None else None
        if chain is None:
            return None
        return Entry(chain, chain.spiffe_id, way_out(pools, chain, chain.cluster))

    return find


def way_out(pools: Pools, chain: FilterChain, cluster: Cluster) -> Forward | Reply:
    """Return the decision to send requests to a cluster of a chain, or the answer where nobody is there."""
    leg = Leg(_WHOLE, (cluster,))
    clusters = pools.of_leg(leg)
    if clusters is None:
        return NO_UPSTREAM
    return ToOutside(ToEndpoint(Route(match=None, legs=(leg,)), leg, clusters, pools), chain, cluster)


async def dial_outside(relay: Relay, pools: Pools, chain: FilterChain) -> None:
    """Connect a judged relay to an endpoint of the service."""
    await dial_clusters(relay, pools.of_leg(Leg(_WHOLE, (chain.cluster,))), chain.cluster.target)
