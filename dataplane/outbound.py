"""The outbound half: which route, arm, cluster and endpoint take a request; and the ingress in front of it.

An `Outbound` of the table is prepared once: its arms become `ToEndpoint` decisions that serve every request alike.
Per request there is a match of routes, one draw, one turn of the balancer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dataplane.downstream import Downstream
from dataplane.exchange import Decide, Reply
from dataplane.heads import FORWARDED_PROTO, RequestHead, ResponseHead, without
from dataplane.live import Live
from dataplane.modifiers import compile_edits
from dataplane.pool import ClusterPools, Pool, Pools
from policies.balance import HashPolicy, combined_hash
from policies.splits import pick
from policies.table import Leg, Outbound, Route, Table, VirtualHost

_XFCC = frozenset({b"x-forwarded-client-cert"})
_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
_NO_UPSTREAM = Reply(503, "no_healthy_upstream", b"no healthy upstream")
_NO_ROUTE = Reply(404, "no_route")
_NO_HOST = Reply(404, "no_host_matches")
_NOT_READY = Reply(503, "upstream_not_ready", b"no healthy upstream")


class ToEndpoint:
    """The decision to send a request to an endpoint of one arm."""

    __slots__ = (
        "_edge",
        "_pools",
        "_request_edits",
        "_response_edits",
        "connect_timeout",
        "idle_timeout",
        "request_timeout",
    )

    def __init__(self, route: Route, leg: Leg, pools: ClusterPools, virtual_host: VirtualHost | None = None) -> None:
        self._pools = pools
        self._edge = virtual_host is not None
        levels = (leg, route, virtual_host)
        self._request_edits = compile_edits([level.request_headers for level in levels if level is not None])
        self._response_edits = compile_edits([level.response_headers for level in levels if level is not None])
        self.connect_timeout = pools.cluster.connect_timeout
        self.request_timeout = route.request_timeout
        self.idle_timeout = route.idle_timeout

    @property
    def empty(self) -> bool:
        """Return whether nobody is there to take a request."""
        return self._pools.empty

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint whose turn it is."""
        pools = self._pools
        return pools.choose(_hash(pools, head, downstream) if pools.hashes else None)

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return the pool of an endpoint that was not tried."""
        return self._pools.another(tried)

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head with this route's changes. What the app says about certificates is not believed."""
        extra = b"" if head.proto else FORWARDED_PROTO
        if self._edge:
            head.lines = _without_forwarded(head)
            extra = _forwarded(head, downstream)
        for edit in self._request_edits:
            head.lines = edit.apply(head.lines, _Variables(downstream))
        return head.render(extra, _XFCC if head.xfcc else frozenset())

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer with this route's changes."""
        for edit in self._response_edits:
            head.lines = edit.apply(head.lines, _Variables(downstream))
        return head


@dataclass(frozen=True, slots=True)
class _Variables:
    """The variables of header modifiers that mean something here."""

    downstream: Downstream

    def __call__(self, name: str) -> str | None:
        match name:
            case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
                return self.downstream.client_address
            case "DOWNSTREAM_REMOTE_ADDRESS":
                peername = self.downstream.transport.get_extra_info("peername") or ("", 0)
                return f"{peername[0]}:{peername[1]}"
            case "DOWNSTREAM_LOCAL_ADDRESS":
                sockname = self.downstream.transport.get_extra_info("sockname") or ("", 0)
                return f"{sockname[0]}:{sockname[1]}"
            case "DOWNSTREAM_PEER_URI_SAN":
                return str(self.downstream.peer.spiffe_id) if self.downstream.peer else ""
            case "PROTOCOL":
                return "HTTP/1.1"
            case _:
                return None


def _without_forwarded(head: RequestHead) -> bytes:
    return without(head.lines, _FORWARDED) if head.forwarded else head.lines


def _forwarded(head: RequestHead, downstream: Downstream) -> bytes:
    return b"x-forwarded-for: %b\r\nx-forwarded-proto: http\r\nx-forwarded-host: %b\r\n" % (
        downstream.client_address.encode(),
        head.host,
    )


def _hash(pools: ClusterPools, head: RequestHead, downstream: Downstream) -> int | None:
    policies = pools.cluster.balancer.hash_policies
    found = {policy: _hashed_value(policy, head, downstream) for policy in policies}
    return combined_hash(policies, {policy: text for policy, text in found.items() if text is not None})


def _hashed_value(policy: HashPolicy, head: RequestHead, downstream: Downstream) -> str | None:
    match policy.field_name:
        case "source_ip":
            return downstream.client_address
        case "header":
            values = head.get_all(policy.value.lower())
            return ",".join(values) if values else None
        case "cookie":
            return _pair(policy.value, [part.strip() for line in head.get_all("cookie") for part in line.split(";")])
        case "query_parameter":
            return _pair(policy.value, head.query.split("&"))
        case _:
            return None


def _pair(name: str, pairs: Sequence[str]) -> str | None:
    return next((value for key, _, value in (pair.partition("=") for pair in pairs) if key == name), None)


# --- routes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arm:
    weight: float
    decision: ToEndpoint | Reply


@dataclass(frozen=True, slots=True)
class _PreparedRoute:
    route: Route
    arms: tuple[_Arm, ...]
    only: ToEndpoint | Reply | None  # the one arm's, so that no draw is made


class PreparedOutbound:
    """An outbound with its decisions made ready."""

    __slots__ = ("_only", "_routes")

    def __init__(self, outbound: Outbound, pools: Pools, virtual_host: VirtualHost | None = None) -> None:
        self._routes = tuple(_prepare(route, pools, virtual_host) for route in outbound.routes)
        plain = len(self._routes) == 1 and self._routes[0].route.match is None
        self._only = self._routes[0] if plain and not self._routes[0].route.prefix_rewrite else None

    def decide(self, head: RequestHead) -> ToEndpoint | Reply:
        """Return what happens to a request."""
        chosen = self._only or self._match(head)
        if chosen is None:
            return _NO_ROUTE
        if chosen.only is not None:
            return chosen.only
        arm = pick(chosen.arms, random.random())
        return arm.decision if arm is not None else _NO_UPSTREAM

    def _match(self, head: RequestHead) -> _PreparedRoute | None:
        path, query = head.path, head.query
        for prepared in self._routes:
            match = prepared.route.match
            if match is None or match.matches(head.method, path, query, head):
                if prepared.route.prefix_rewrite:
                    _rewrite(head, prepared.route)
                return prepared
        return None


def _prepare(route: Route, pools: Pools, virtual_host: VirtualHost | None) -> _PreparedRoute:
    arms = tuple(_Arm(leg.weight, _arm_decision(route, leg, pools, virtual_host)) for leg in route.legs)
    only = arms[0].decision if len(arms) == 1 and arms[0].weight > 0 else None
    return _PreparedRoute(route, arms, only)


def _arm_decision(route: Route, leg: Leg, pools: Pools, virtual_host: VirtualHost | None) -> ToEndpoint | Reply:
    """Return the first cluster of the arm that has anybody left: failover in order."""
    for cluster in leg.clusters:
        prepared = pools.of_cluster(cluster)
        if not prepared.empty:
            return ToEndpoint(route, leg, prepared, virtual_host)
    return _NO_UPSTREAM


def _rewrite(head: RequestHead, route: Route) -> None:
    """Put PrefixRewrite in the place of what was matched; the query stays."""
    path, mark, query = head.target.partition(b"?")
    matched = route.match.path if route.match is not None else None
    rewrite = route.prefix_rewrite.encode("latin-1", "replace")
    if matched is not None and matched.kind == "exact":
        changed = rewrite
    else:
        changed = rewrite + path[len(matched.source if matched is not None else "/") :]
    head.lines += b"x-envoy-original-path: %b\r\n" % head.target
    head.target = changed + mark + query


# --- deciders ------------------------------------------------------------------------------------------------------


def upstream_decider(live: Live, pools: Pools, upstream: str) -> Decide:
    """Return the decision about every request on an upstream's loopback listener."""
    table: Table | None = None
    prepared: PreparedOutbound | None = None

    def decide(downstream: Downstream, head: RequestHead) -> ToEndpoint | Reply:
        nonlocal table, prepared
        del downstream
        generation = live.current
        if generation is None:
            return _NOT_READY
        if generation.table is not table:
            table = generation.table
            outbound = table.outbounds.get(upstream)
            prepared = PreparedOutbound(outbound, pools) if outbound is not None else None
        return prepared.decide(head) if prepared is not None else _NOT_READY

    return decide


def ingress_decider(live: Live, pools: Pools, port: int) -> Decide:
    """Return the decision about every request on a listener of the ingress gateway."""
    table: Table | None = None
    hosts = Hosts((), port)

    def decide(downstream: Downstream, head: RequestHead) -> ToEndpoint | Reply:
        nonlocal table, hosts
        del downstream
        generation = live.current
        if generation is None:
            return _NOT_READY
        if generation.table is not table:
            table = generation.table
            hosts = Hosts(_prepared_hosts(table, pools, port), port)
        found = hosts.find(head.host.decode("latin-1").lower())
        return found.decide(head) if found is not None else _NO_HOST

    return decide


def _prepared_hosts(table: Table, pools: Pools, port: int) -> Sequence[tuple[VirtualHost, PreparedOutbound]]:
    return tuple(
        (host, PreparedOutbound(table.outbounds[host.outbound], pools, host))
        for listener in table.ingress
        if listener.port == port
        for host in listener.virtual_hosts
        if host.outbound in table.outbounds
    )


class Hosts:
    """Virtual hosts by Envoy's rules: exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.

    An explicit host is also taken with the listener's own port; the default hosts end in `.*`, which takes any port.
    """

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes")

    def __init__(self, hosts: Sequence[tuple[VirtualHost, PreparedOutbound]], port: int) -> None:
        self._exact: dict[str, PreparedOutbound] = {}
        self._suffixes: list[tuple[str, PreparedOutbound]] = []
        self._prefixes: list[tuple[str, PreparedOutbound]] = []
        self._any: PreparedOutbound | None = None
        for virtual_host, prepared in hosts:
            for name in virtual_host.hosts:
                self._add(name, prepared, port)
        self._suffixes.sort(key=lambda pair: -len(pair[0]))
        self._prefixes.sort(key=lambda pair: -len(pair[0]))

    def _add(self, name: str, prepared: PreparedOutbound, port: int) -> None:
        if name == "*":
            self._any = prepared
        elif name.startswith("*"):
            self._suffixes += [(name[1:], prepared), (f"{name[1:]}:{port}", prepared)]
        elif name.endswith("*"):
            self._prefixes.append((name[:-1], prepared))
        else:
            self._exact[name] = self._exact[f"{name}:{port}"] = prepared

    def find(self, host: str) -> PreparedOutbound | None:
        """Return what stands behind a Host (lower case), or None."""
        found = self._exact.get(host)
        if found is not None:
            return found
        for suffix, prepared in self._suffixes:
            if host.endswith(suffix) and len(host) > len(suffix):
                return prepared
        for prefix, prepared in self._prefixes:
            if host.startswith(prefix) and len(host) > len(prefix):
                return prepared
        return self._any
