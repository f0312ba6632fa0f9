"""The inbound half: who may come in, what of the request is judged, and how it reaches the local app.

A connection's caller is known from its certificate, so what the intentions say to that caller is looked up once a
connection and table; most requests then cost a comparison. The path is normalised first, and what was judged is what
is sent on. X-Forwarded-Client-Cert is replaced, never appended to: only the certificate at hand is proof.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dataplane.downstream import Downstream
from dataplane.exchange import Decide, Forward, Reply
from dataplane.heads import FORWARDED_PROTO, RequestHead, ResponseHead
from dataplane.live import Live
from dataplane.pool import Pool
from dataplane.pools import Pools
from policies.errors import MeshError
from policies.identity import SpiffeId
from policies.intentions import Policy
from policies.paths import must_redirect, normalize
from policies.retries import RetryBudget, RetryPolicy
from policies.table import Guarded, Inbound, Table
from policies.untold import Untold

log = structlog.get_logger(__name__)

_XFCC = frozenset({b"x-forwarded-client-cert"})
_DENIED = b"RBAC: access denied"
_BY_INTENTION = "denied_by_intention"
_GRPC_DENIED = b"content-type: application/grpc\r\ngrpc-status: 7\r\ngrpc-message: RBAC: access denied\r\n"


class ToApp:
    """The decision to let a request through to the local app."""

    __slots__ = (
        "_connect_timeout",
        "_pool",
        "budget",
        "idle_timeout",
        "in_mesh",
        "repeats",
        "request_timeout",
        "retry",
    )

    def __init__(self, inbound: Inbound, pools: Pools) -> None:
        self._pool = pools.of_app(inbound.local_address, inbound.local_port)
        self._connect_timeout = inbound.local_connect_timeout
        self.request_timeout = inbound.local_request_timeout
        self.idle_timeout = inbound.local_idle_timeout
        self.retry: RetryPolicy | None = None
        self.budget: RetryBudget | None = None
        self.in_mesh = False
        self.repeats = True

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the app's pool."""
        del head, downstream
        return self._pool

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return None: there is only one local app."""
        del tried
        return None

    def connect_timeout(self, pool: Pool) -> float:
        """Return the app's."""
        del pool
        return self._connect_timeout

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head with the caller's certificate told to the app."""
        return told(head, downstream)

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the app's answer as it is."""
        del downstream
        return head


@dataclass(frozen=True, slots=True)
class Entry:
    """What a table says of an entrance: who may come in, as whom it is answered, and what lies behind."""

    guard: Guarded
    identity: SpiffeId
    forward: Forward | Reply


Find = Callable[[Table], Entry | None]


def to_app(pools: Pools) -> Find:
    """Return what lies behind the mTLS listener of a sidecar in any table."""

    def find(table: Table) -> Entry | None:
        inbound = table.inbound
        return Entry(inbound, table.identity, ToApp(inbound, pools)) if inbound is not None else None

    return find


@dataclass(slots=True)
class Caller:
    """What is kept of a connection: what a table's intentions say to its caller, and the lines about it."""

    table: Table
    guard: Guarded
    policy: Policy
    forward: Forward | Reply
    lines: bytes


def told(head: RequestHead, downstream: Downstream) -> bytes:
    """Return the head of a request that may come in, with the caller's certificate told to who takes it."""
    caller = downstream.memo
    assert isinstance(caller, Caller)  # noqa: S101 - `decide` has put it there
    extra = caller.lines if head.proto else caller.lines + FORWARDED_PROTO
    return head.render(extra, _XFCC if head.xfcc else frozenset())


def inbound_decider(live: Live, find: Find) -> Decide:
    """Return the decision about every request at an entrance."""
    untold = Untold()

    def decide(downstream: Downstream, head: RequestHead) -> Forward | Reply:
        generation = live.current
        assert generation is not None  # noqa: S101 - a listener opens after the first generation
        caller = downstream.memo
        if not isinstance(caller, Caller) or caller.table is not generation.table:
            made = _caller(generation.table, find, downstream)
            if made is None:
                downstream.last()
                return Reply(503, "no_inbound", b"no healthy upstream")
            if isinstance(caller, Caller) and made.policy.denies_all and not caller.policy.denies_all:
                downstream.last()  # the session of a caller to whom nothing is open any more
            downstream.memo = caller = made
        answer = judge_request(caller, head)
        if isinstance(answer, Reply) and answer.reason == _BY_INTENTION:
            _tell(untold, caller.policy, downstream, head)
        return answer

    return decide


def _tell(untold: Untold, policy: Policy, downstream: Downstream, head: RequestHead) -> None:
    """Write why a request was denied, once in a while for each source. Paths may hold what is nobody's concern."""
    source = downstream.peer.spiffe_id.service if downstream.peer is not None else ""
    left_out = untold.due(source, time.monotonic())
    if left_out is not None:
        decision = policy.constant or policy.request(head.method, head.path, head)
        log.info("request_denied", source=source, method=head.method, because=decision.because, untold=left_out)


def _caller(table: Table, find: Find, downstream: Downstream) -> Caller | None:
    entry, peer = find(table), downstream.peer
    if entry is None:
        return None
    guard = entry.guard
    if peer is None:
        message = "an inbound connection without a verified peer"
        raise MeshError(message)
    return Caller(
        table=table,
        guard=guard,
        policy=guard.intentions.for_source(peer.spiffe_id.service, guard.default),
        forward=entry.forward,
        lines=b"" if guard.sanitize_xfcc else _xfcc(entry.identity, downstream),
    )


def _xfcc(identity: SpiffeId, downstream: Downstream) -> bytes:
    """Return the caller's certificate as Envoy tells it (`By`, `Hash`, `Subject`, `URI`)."""
    assert downstream.peer is not None  # noqa: S101 - checked by the caller
    digest = hashlib.sha256(downstream.peer_certificate).hexdigest()
    text = f'By={identity};Hash={digest};Subject="";URI={downstream.peer.spiffe_id}'
    return b"x-forwarded-client-cert: " + text.encode() + b"\r\n"


def judge_request(caller: Caller, head: RequestHead) -> Forward | Reply:
    """Return what becomes of a request, whose path is normalised by this."""
    rules = caller.guard.normalization
    target = head.target
    path, mark, query = target.partition(b"?")
    text = path.decode("latin-1")
    if rules.enabled:
        normal = None if b"#" in target else normalize(text, rules)
        if normal is None:
            return Reply(400, "bad_path")
        if normal is not text:
            if must_redirect(text, rules):
                return Reply(307, "escaped_slash", b"", b"location: " + normal.encode() + mark + query + b"\r\n")
            head.target = normal.encode("latin-1") + mark + query
            text = normal
    if rules.underscores != "ALLOW" and not _underscores(head, drop=rules.underscores == "DROP_HEADER"):
        return Reply(400, "header_with_underscore")
    decision = caller.policy.constant or caller.policy.request(head.method, text, head)
    if decision.allowed:
        return caller.forward
    return _denial(head)


def _denial(head: RequestHead) -> Reply:
    if any(value.startswith("application/grpc") for value in head.get_all("content-type")):
        return Reply(200, _BY_INTENTION, b"", _GRPC_DENIED)
    return Reply(403, _BY_INTENTION, _DENIED)


def _underscores(head: RequestHead, *, drop: bool) -> bool:
    """Take out fields with an underscore in their name, or return False when the request is to be refused."""
    lines = head.lines.split(b"\r\n")
    kept = [line for line in lines if b"_" not in line.partition(b":")[0]]
    if len(kept) != len(lines) and not drop:
        return False
    head.lines = b"\r\n".join(kept)
    return True
