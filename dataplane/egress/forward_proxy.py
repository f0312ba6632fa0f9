"""The forward proxy, at both ends: the caller's sidecar passes on, the terminating gateway judges and goes outside.

    app ── CONNECT or absolute form ──▶ sidecar ── the same, in mutual TLS ──▶ gateway ── tunnel or request ──▶ host

The gateway looks the host up among those of its linked services and judges the caller by the intentions of that
service; what is linked to nobody is denied. A tunnel is bytes: TLS in it is the app's own. What is in the clear is
sent on as to any service outside, with TLS where the link has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from dataplane.egress.outside import way_out
from dataplane.exchange import Decide, Forward, Reply
from dataplane.inbound import Caller, judge_request
from dataplane.routing import NO_UPSTREAM
from policies.egress.forward_proxy import CONNECT, HTTP_PORT, ForwardPolicy, parse_authority
from policies.errors import MeshError
from policies.untold import Untold

if TYPE_CHECKING:
    from dataplane.clock import Clock
    from dataplane.clusters import ClusterPools
    from dataplane.downstream import Downstream
    from dataplane.heads import RequestHead, ResponseHead
    from dataplane.live import Live
    from dataplane.pool import Pool
    from dataplane.pools import Pools
    from policies.retries import RetryBudget, RetryPolicy
    from policies.table import Cluster

log = structlog.get_logger(__name__)

_DENIED = b"RBAC: access denied"
_OF_THE_PROXY = frozenset({b"proxy-authorization"})
_SHOWN = 200  # bytes of a host in the log


# --- at the caller -------------------------------------------------------------------------------------------------


def passing_on(decide: Decide) -> Decide:
    """Return the decision about the requests of an app to its proxy: to the gateway, as they came."""

    def pass_on(downstream: Downstream, head: RequestHead) -> Forward | Reply:
        decision = decide(downstream, head)
        if head.method != CONNECT:
            head.target = b"http://%b%b" % (head.host, head.target)
        return decision

    return pass_on


# --- at the gateway ------------------------------------------------------------------------------------------------


class Tunnel:
    """The decision to connect a caller with a host outside."""

    retry: RetryPolicy | None = None
    budget: RetryBudget | None = None
    in_mesh = False
    repeats = False
    idle_timeout: float | None = None

    __slots__ = ("_pools", "request_timeout")

    def __init__(self, pools: ClusterPools) -> None:
        self._pools = pools
        self.request_timeout: float | None = None

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint whose turn it is."""
        del head, downstream
        return self._pools.choose()

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return the pool of an endpoint that was not tried."""
        return self._pools.another(tried)

    def connect_timeout(self, pool: Pool) -> float:
        """Return that of the service."""
        return self._pools.connect_timeout(pool)

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return nothing: what is connected is a tunnel at once."""
        del head, downstream
        return b""

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer as it is."""
        del downstream
        return head


def forwarding_decider(live: Live, pools: Pools, clock: Clock) -> Decide:
    """Return the decision about every request to the gateway's own name."""
    denials = _Denials(clock)

    def decide(downstream: Downstream, head: RequestHead) -> Forward | Reply:
        generation, peer = live.current, downstream.peer
        egress = generation.table.egress if generation is not None else None
        if peer is None:
            message = "a caller of the forward proxy without a verified peer"
            raise MeshError(message)
        tunnel = head.method == CONNECT
        host = parse_authority(head.host.decode("latin-1"), None if tunnel else HTTP_PORT)
        found = egress.hosts.get(host) if egress is not None and host is not None else None
        policy = ForwardPolicy(peer.spiffe_id.service, egress) if egress is not None else None
        if generation is None or egress is None or policy is None or found is None:
            return denials.answer(downstream, head, "host_not_linked", lambda: "no linked service has this host")
        sni, forwarded = found
        chain = egress.chains[sni]
        if tunnel:
            decision = policy.request(CONNECT, "", head)
            if not decision.allowed:
                return denials.answer(downstream, head, "denied_by_intention", lambda: decision.because)
            return _tunnel(pools, forwarded.raw)
        head.strip = (head.strip or frozenset()) | _OF_THE_PROXY
        forward = way_out(pools, chain, forwarded.clear)
        # Who in the mesh asks is no concern of a host outside: nothing is told of the caller's certificate.
        downstream.memo = caller = Caller(generation.table, chain, policy, forward, b"")
        judged = judge_request(caller, head)
        if isinstance(judged, Reply) and judged.reason == "denied_by_intention":
            return denials.answer(
                downstream, head, judged.reason, lambda: policy.request(head.method, head.path, head).because, judged
            )
        return judged

    return decide


def _tunnel(pools: Pools, cluster: Cluster) -> Forward | Reply:
    found = pools.of_cluster(cluster)
    return NO_UPSTREAM if found.empty else Tunnel(found)


class _Denials:
    """What is answered to whom is denied, and told of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._untold = Untold()

    def answer(
        self,
        downstream: Downstream,
        head: RequestHead,
        reason: str,
        because: Callable[[], str],
        reply: Reply | None = None,
    ) -> Reply:
        """Return the reply, or one of 403.

        The line of the log is written once in a while for one like the last; `because` is asked for no other.
        """
        if head.method == CONNECT:
            downstream.last()  # what a caller has sent ahead was meant for the tunnel
        source = downstream.peer.spiffe_id.service if downstream.peer is not None else ""
        host = head.host[:_SHOWN].decode("latin-1")
        facts = {"source": source, "host": host, "method": head.method, "reason": reason}
        untold = self._untold.due(tuple(facts.values()), self._clock.now)
        if untold is not None:
            log.info("egress_denied", **facts, because=because(), untold=untold)
        return reply or Reply(403, reason, _DENIED)
