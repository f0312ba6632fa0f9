"""The way out: how what may leave the mesh reaches an endpoint of the service that its filter chain stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.inbound import Entry, told
from dataplane.outbound import ToEndpoint
from dataplane.routing import NO_UPSTREAM
from dataplane.tcp import Relay, dial_clusters
from policies.table import FilterChain, Leg, Route, Table

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.heads import RequestHead, ResponseHead
    from dataplane.inbound import Find
    from dataplane.pool import Pool
    from dataplane.pools import Pools
    from policies.retries import RetryBudget, RetryPolicy

_WHOLE = 100.0


class ToOutside:
    """The decision to let a request through to a service outside. Balancing is that of any endpoint of a cluster."""

    __slots__ = ("_endpoint", "budget", "idle_timeout", "in_mesh", "repeats", "request_timeout", "retry")

    def __init__(self, endpoint: ToEndpoint, chain: FilterChain) -> None:
        self._endpoint = endpoint
        self.request_timeout = chain.request_timeout
        self.idle_timeout = chain.idle_timeout
        self.retry: RetryPolicy | None = None
        self.budget: RetryBudget | None = None
        self.in_mesh = False
        self.repeats = True

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint whose turn it is."""
        return self._endpoint.choose(head, downstream)

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return the pool of an endpoint that was not tried."""
        return self._endpoint.another(tried)

    def connect_timeout(self, pool: Pool) -> float:
        """Return the chain's."""
        return self._endpoint.connect_timeout(pool)

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head with the caller's certificate told."""
        return told(head, downstream)

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer, with the cookie by which the next request finds its way."""
        return self._endpoint.response_lines(head, downstream)


def to_outside(pools: Pools, sni: str) -> Find:
    """Return what lies behind the filter chain of an SNI in any table."""

    def find(table: Table) -> Entry | None:
        chain = table.egress.chains.get(sni) if table.egress is not None else None
        if chain is None:
            return None
        leg = Leg(_WHOLE, (chain.cluster,))
        clusters = pools.of_leg(leg)
        if clusters is None:
            return Entry(chain, chain.spiffe_id, NO_UPSTREAM)
        endpoint = ToEndpoint(Route(match=None, legs=(leg,)), leg, clusters, pools)
        return Entry(chain, chain.spiffe_id, ToOutside(endpoint, chain))

    return find


async def dial_outside(relay: Relay, pools: Pools, chain: FilterChain) -> None:
    """Connect a judged relay to an endpoint of the service."""
    await dial_clusters(relay, pools.of_leg(Leg(_WHOLE, (chain.cluster,))), chain.cluster.target)
