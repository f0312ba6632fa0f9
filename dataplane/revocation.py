"""Live revocation: what becomes of open connections when the intentions in force deny what they do.

    tcp connection, tunnel of a WebSocket   closed at once
    idle session                            closed when every request on it would be denied now; else the next is judged
    exchange under way                      finishes its answer; one that does not end within GRACE_SECONDS is cut

A session that was busy and whose every request is denied now has its next one answered with 403, and is closed by that
(`inbound`) or, when none comes, here. All other connections go on: nothing is closed because something else changed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from dataplane.clock import NEVER, Clock
from dataplane.downstream import Downstream
from dataplane.tcp import Relay

if TYPE_CHECKING:
    from dataplane.heads import RequestHead
    from dataplane.listener import Holder
    from dataplane.metrics import ConnectionCounts
    from policies.identity import Peer
    from policies.intentions import Decision, Policy
    from policies.table import Guarded

log = structlog.get_logger(__name__)

GRACE_SECONDS = 30.0  # for an answer that is under way when its request is denied
_LOOK_SECONDS = 1.0  # between looks at the exchanges that may still finish


@dataclass(slots=True)
class _Reprieve:
    """An exchange that would be denied now and may finish. `closes`: no request of this caller would be allowed."""

    head: RequestHead
    until: float
    closes: bool
    because: str


class Revocation:
    """Watches over the connections of an inbound listener or a filter chain. `deadline` is on the clock's scale."""

    def __init__(self, listener: Holder, counts: ConnectionCounts, clock: Clock) -> None:
        self._listener = listener
        self._counts = counts
        self._clock = clock
        self._guard: Guarded | None = None  # in force until now
        self._reprieves: dict[Downstream, _Reprieve] = {}
        self.deadline = NEVER
        clock.add(self)

    def close(self) -> None:
        """The listener and its connections are gone."""
        self._reprieves.clear()
        self._clock.discard(self)

    def follow(self, guard: Guarded) -> None:
        """Judge what is open by what has just been put in force. New connections and requests judge themselves."""
        before, self._guard = self._guard, guard
        if before is None or _same_rules(before, guard):
            return
        policy_of = functools.cache(lambda source: _policy(guard, source))
        is_revoked = functools.cache(
            lambda source: policy_of(source).denies_all and not _policy(before, source).denies_all
        )
        for connection in tuple(self._listener.connections):
            if isinstance(connection, Relay) and connection.caller is not None:
                self._judge_tcp(connection, policy_of(_source(connection.caller)))
            elif isinstance(connection, Downstream) and connection.peer is not None:
                if guard.protocol != "http":
                    connection.drain()  # what comes next is judged as tcp, on a connection of its own
                source = _source(connection.peer)
                self._judge_http(connection, policy_of(source), is_new=is_revoked(source))
        # Changes may come faster than looks: a look that is due stays due.
        self.deadline = min(self.deadline, self._clock.now + _LOOK_SECONDS) if self._reprieves else NEVER

    def _judge_tcp(self, relay: Relay, policy: Policy) -> None:
        if not policy.connection.allowed:
            self._tell("connection", _source(relay.caller), policy.connection.because)
            relay.abort()

    def _judge_http(self, session: Downstream, policy: Policy, *, is_new: bool) -> None:
        head = session.under_way
        if head is None:
            if is_new and session.idle:
                self._close(session, policy.connection.because)
            return  # what has begun to come in is judged when it is there
        decision = policy.constant or policy.request(head.method, head.path, head)
        if decision.allowed:
            self._reprieves.pop(session, None)
        elif session.is_tunnel:
            self._cut("tunnel", session, head, decision.because)
        else:
            self._reprieve(session, head, decision, closes=policy.denies_all)

    def _reprieve(self, session: Downstream, head: RequestHead, decision: Decision, *, closes: bool) -> None:
        before = self._reprieves.get(session)
        until = before.until if before is not None and before.head is head else self._clock.now + GRACE_SECONDS
        self._reprieves[session] = _Reprieve(head, until, closes, decision.because)

    def expire(self) -> None:
        """The clock: see which exchanges have finished, and which have had their time."""
        now = self._clock.now
        for session, reprieve in tuple(self._reprieves.items()):
            under_way = session.under_way is reprieve.head
            if under_way and now < reprieve.until and not session.is_tunnel:
                continue
            del self._reprieves[session]
            if under_way:
                self._cut("tunnel" if session.is_tunnel else "answer", session, reprieve.head, reprieve.because)
            elif reprieve.closes and session.idle:
                self._close(session, reprieve.because)
        self.deadline = now + _LOOK_SECONDS if self._reprieves else NEVER

    # --- what is done ---

    def _close(self, session: Downstream, because: str) -> None:
        self._tell("session", _source(session.peer), because)
        session.drain()

    def _cut(self, what: str, session: Downstream, head: RequestHead, because: str) -> None:
        self._tell(what, _source(session.peer), because, path=head.path)
        session.abort()

    def _tell(self, what: str, source: str, because: str, **more: str) -> None:
        self._counts.revoked[what] += 1
        log.info("revoked", what=what, source=source, because=because, **more)


def _source(peer: Peer | None) -> str:
    assert peer is not None  # noqa: S101 - `follow` leaves out who is not verified
    return peer.spiffe_id.service


def _policy(guard: Guarded, source: str) -> Policy:
    return guard.intentions.for_source(source, guard.default)


def _same_rules(one: Guarded, other: Guarded) -> bool:
    return one.intentions is other.intentions and (one.default, one.protocol) == (other.default, other.protocol)
