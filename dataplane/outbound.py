"""The outbound half: the decision to send a request to an endpoint, and the listeners where such decisions are made.

`routing` finds the route and the arm, `hosts` the virtual host of an ingress listener; an arm is made ready once, as a
`ToEndpoint` that serves every request alike and takes one turn of the balancer for each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dataplane.clusters import ClusterPools, Failover
from dataplane.downstream import Downstream
from dataplane.exchange import Decide, Reply
from dataplane.hashing import makes_cookies, new_cookies, request_hash
from dataplane.heads import FORWARDED_PROTO, RequestHead, ResponseHead
from dataplane.live import Live
from dataplane.modifiers import Edit, Moment, compile_edits
from dataplane.pool import Pool
from dataplane.pools import Pools
from dataplane.routing import NO_UPSTREAM, Decision, PreparedOutbound
from policies.table import Leg, Outbound, Route, Table, VirtualHost

if TYPE_CHECKING:
    from dataplane.edge.hosts import Hosts
    from policies.edge.tls import Hsts, RedirectToTls

_XFCC = frozenset({b"x-forwarded-client-cert"})
_NO_HOST = Reply(404, "no_host_matches")
_NOT_READY = Reply(503, "upstream_not_ready", b"no healthy upstream")


class ToEndpoint:
    """The decision to send a request to an endpoint of one arm."""

    __slots__ = (
        "_all",
        "_cookies",
        "_leg",
        "_pools",
        "_request_edits",
        "_response_edits",
        "budget",
        "idle_timeout",
        "in_mesh",
        "repeats",
        "request_timeout",
        "retry",
    )

    def __init__(
        self,
        route: Route,
        leg: Leg,
        pools: ClusterPools | Failover,
        everything: Pools,
        virtual_host: VirtualHost | None = None,
    ) -> None:
        self._pools = pools
        self._all = everything
        self._leg = leg
        self._cookies = pools.hashes and makes_cookies(pools.cluster.balancer.hash_policies)
        self._request_edits = _request_edits(route, leg, virtual_host)
        self._response_edits = _response_edits(route, leg, virtual_host)
        self.request_timeout = route.request_timeout
        self.idle_timeout = route.idle_timeout
        self.in_mesh = True
        # A split draws for each request; variables may tell of the connection and of the time.
        self.repeats = len(route.legs) == 1 and not any(edit.varies for edit in self._request_edits)
        self.retry = retry = route.retry
        self.budget = everything.budget(pools.cluster.target, retry.budget_percent) if retry is not None else None

    @property
    def empty(self) -> bool:
        """Return whether nobody is there to take a request."""
        return self._pools.empty

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint whose turn it is."""
        pools = self._pools
        return pools.choose(
            request_hash(pools.cluster.balancer.hash_policies, head, downstream) if pools.hashes else None
        )

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return the pool of an endpoint of this arm that was not tried and is not gone since the decision."""
        pool = self._pools.another(tried)
        while pool is not None and not self._all.serves(pool, self._leg):
            tried.add(pool)
            pool = self._pools.another(tried)
        return pool

    def connect_timeout(self, pool: Pool) -> float:
        """Return that of the target which the endpoint is of."""
        return self._pools.connect_timeout(pool)

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head with this route's changes. What the app says about certificates is not believed."""
        extra = b"" if head.proto else FORWARDED_PROTO
        if self._request_edits:
            head.end_hop()
            _change(head, downstream, self._request_edits)
        return head.render(extra, _XFCC if head.xfcc else frozenset())

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer with this route's changes and the cookie by which the next request finds its way."""
        if self._cookies and (asked := downstream.under_way) is not None:
            cookies = new_cookies(self._pools.cluster.balancer.hash_policies, asked, downstream)
            head = head.with_lines(head.lines + cookies)
        return _changed(head, downstream, self._response_edits) if self._response_edits else head


def _request_edits(route: Route, leg: Leg, virtual_host: VirtualHost | None) -> tuple[Edit, ...]:
    levels = (leg, route, virtual_host)
    return compile_edits([level.request_headers for level in levels if level is not None])


def _change(head: RequestHead, downstream: Downstream, edits: tuple[Edit, ...]) -> None:
    for edit in edits:
        head.change(edit.apply(head.lines, Moment(downstream, head)))


def _response_edits(route: Route, leg: Leg, virtual_host: VirtualHost | None) -> tuple[Edit, ...]:
    levels = (leg, route, virtual_host)
    return compile_edits([level.response_headers for level in levels if level is not None])


def _changed(head: ResponseHead, downstream: Downstream, edits: tuple[Edit, ...]) -> ResponseHead:
    for edit in edits:
        head = head.with_lines(edit.apply(head.lines, Moment(downstream, downstream.asked, head)))
    return head


def _nobody(route: Route, leg: Leg, virtual_host: VirtualHost | None) -> Reply:
    """Return the answer where no endpoint is left: the route's changes are made to it too.

    Variables in them see the request as it would have been sent.
    """
    edits, of_request = _response_edits(route, leg, virtual_host), _request_edits(route, leg, virtual_host)
    if not edits:
        return NO_UPSTREAM

    def change(head: ResponseHead, downstream: Downstream) -> ResponseHead:
        if downstream.asked is not None:
            _change(downstream.asked, downstream, of_request)
        return _changed(head, downstream, edits)

    return replace(NO_UPSTREAM, change=change)


def _prepare(outbound: Outbound, pools: Pools, virtual_host: VirtualHost | None = None) -> PreparedOutbound:
    return PreparedOutbound(outbound, lambda route, leg: _arm_decision(route, leg, pools, virtual_host))


def _arm_decision(route: Route, leg: Leg, pools: Pools, virtual_host: VirtualHost | None) -> ToEndpoint | Reply:
    prepared = pools.of_leg(leg)
    if prepared is None:
        return _nobody(route, leg, virtual_host)
    return ToEndpoint(route, leg, prepared, pools, virtual_host)


# --- deciders ------------------------------------------------------------------------------------------------------


def upstream_decider(live: Live, pools: Pools, upstream: str) -> Decide:
    """Return the decision about every request on an upstream's loopback listener."""
    table: Table | None = None
    behind = _Behind(upstream, pools)

    def decide(downstream: Downstream, head: RequestHead) -> Decision:
        nonlocal table
        del downstream
        generation = live.current
        if generation is None:
            return _NOT_READY
        if generation.table is not table:
            table = generation.table
            behind.follow(table)
        prepared = behind.prepared
        return prepared.decide(head) if prepared is not None else _NOT_READY

    return decide


def ingress_decider(live: Live, pools: Pools, port: int) -> Decide:
    """Return the decision about every request on a listener of the ingress gateway."""
    from dataplane.edge.hosts import Hosts  # noqa: PLC0415 - a sidecar has no such listener
    from dataplane.edge.redirects import HTTPS, redirect_reply  # noqa: PLC0415 - the same

    table: Table | None = None
    virtual_hosts: tuple[VirtualHost, ...] = ()
    hosts: Hosts[_Behind] = Hosts((), port)
    redirect: RedirectToTls | None = None
    nobody = _NO_HOST

    def decide(downstream: Downstream, head: RequestHead) -> Decision:
        nonlocal table, virtual_hosts, hosts, redirect, nobody
        del downstream
        generation = live.current
        if generation is None:
            return _NOT_READY
        if generation.table is not table:
            table = generation.table
            listener = next((listener for listener in table.ingress if listener.port == port), None)
            now = listener.virtual_hosts if listener is not None else ()
            redirect = listener.redirect if listener is not None else None
            nobody = _no_host(listener.hsts if listener is not None else None)
            if now is not virtual_hosts:
                virtual_hosts = now
                hosts = Hosts([(host, _Behind(host.outbound, pools, host)) for host in now], port)
        if redirect is not None and HTTPS not in head.get_all("x-forwarded-proto"):  # by now the gateway's own word
            return redirect_reply(redirect, head)
        found = hosts.find(head.host.decode("latin-1").lower())
        if found is None:
            return nobody
        if found.table is not table:
            found.follow(table)
        prepared = found.prepared
        return prepared.decide(head) if prepared is not None else _NOT_READY

    return decide


def _no_host(hsts: Hsts | None) -> Reply:
    if hsts is None:
        return _NO_HOST
    return replace(_NO_HOST, lines=b"strict-transport-security: %b\r\n" % str(hsts).encode())


class _Behind:
    """What stands behind a listener or a virtual host, made ready when it is asked for and kept while it is the same.

    A table takes over from the one before what has not changed, so that a change costs those whom it concerns.
    """

    __slots__ = ("_key", "_outbound", "_pools", "_virtual_host", "prepared", "table")

    def __init__(self, key: str, pools: Pools, virtual_host: VirtualHost | None = None) -> None:
        self._key = key
        self._pools = pools
        self._virtual_host = virtual_host
        self._outbound: Outbound | None = None
        self.table: Table | None = None
        self.prepared: PreparedOutbound | None = None

    def follow(self, table: Table) -> None:
        """Go by this table from now on."""
        self.table = table
        outbound = table.outbounds.get(self._key)
        if outbound is not self._outbound:
            self._outbound = outbound
            self.prepared = _prepare(outbound, self._pools, self._virtual_host) if outbound is not None else None
