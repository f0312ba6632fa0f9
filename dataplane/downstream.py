"""A connection from a caller: reads requests, has them decided, and writes the answers in order.

One request at a time is under way; what a caller sends ahead waits. A request costs no task unless a connection has to
be dialled. What is awaited from the caller is one of `states`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from dataplane.attempts import IDEMPOTENT, Attempts, no_answer
from dataplane.bodies import Body, ChunkedBody, LengthBody
from dataplane.clock import NEVER, Clock
from dataplane.exchange import REQUEST_TIMEOUT, STREAM_TIMEOUT, Decide, Forward, Parse, Reply, refusal
from dataplane.heads import END, MAX_HEAD, BadHead, RequestHead, ResponseHead, looks_wrong, parse_request, without
from dataplane.plans import Key, Plan, Plans
from dataplane.states import ANSWERING, BODY, CLOSED, CLOSING, HEAD, SKIPPING, TUNNEL
from policies.retries import Failure

if TYPE_CHECKING:
    from dataplane.listener import Keeper
    from dataplane.metrics import ConnectionCounts, HttpCounts
    from dataplane.upstream import Upstream
    from policies.identity import Peer

MAX_AHEAD = 64 * 1024  # bytes that a caller may send ahead of its answer
MAX_SKIPPED = 64 * 1024  # bytes of an unwanted body that are worth keeping a connection for
SKIP_SECONDS = 10.0  # for them to come
LINGER_SECONDS = 1.0  # for a caller to read an answer that it did not wait for

_OUR_WORD = frozenset({b"x-lictor-reason"})


class Downstream(asyncio.Protocol):
    """The connection. `peer` is None outside the mesh, `tls`: does the caller speak it; `memo` is the decider's own."""

    __slots__ = (
        "_advancing",
        "_ahead",
        "_answering",
        "_attempts",
        "_body",
        "_clock",
        "_close_after",
        "_connections",
        "_counts",
        "_decide",
        "_expires",
        "_forward",
        "_head",
        "_input_paused",
        "_loop",
        "_plans",
        "_request",
        "_started",
        "_state",
        "_status",
        "_upstream",
        "_writing_paused",
        "caller_lines",
        "client_address",
        "deadline",
        "keeper",
        "memo",
        "parse",
        "peer",
        "peer_certificate",
        "tls",
        "transport",
    )

    def __init__(
        self,
        keeper: Keeper,
        decide: Decide,
        clock: Clock,
        counts: tuple[HttpCounts, ConnectionCounts],
        expires: float = NEVER,
        plans: Plans | None = None,
    ) -> None:
        self.keeper = keeper
        self._decide = decide
        self._clock = clock
        self._counts, self._connections = counts
        self._loop = asyncio.get_running_loop()
        self._expires = expires
        self._state = HEAD
        self._ahead = b""
        self._advancing = False
        self._answering = False  # the head of the answer has been sent
        self._attempts: Attempts | None = None  # while it takes more than a write to a warm connection
        self._body: Body | None = None
        self._close_after = False
        self._forward: Forward | None = None
        self._head: RequestHead | None = None
        self._input_paused = self._writing_paused = False
        self._plans = plans if plans is not None else Plans()
        self._request = b""  # as it was sent over a warm connection, if it may be sent again
        self._started, self._status = 0.0, 0
        self._upstream: Upstream | None = None
        self.caller_lines = b""  # what a gateway tells of the caller's certificate
        self.client_address = ""
        self.deadline = self._in(keeper.protection.idle_timeout)
        self.memo: object = None
        self.parse: Parse = parse_request  # a forward proxy reads other heads
        self.peer: Peer | None = None
        self.peer_certificate, self.tls = b"", False
        self.transport: asyncio.Transport

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peername = self.keeper.client or transport.get_extra_info("peername")
        self.client_address = str(peername[0]) if peername else ""
        self.peer = transport.get_extra_info("peer")
        self.tls = bool(transport.get_extra_info("tls"))
        if self.tls:
            self.peer_certificate = transport.get_extra_info("certificate") or b""
        self._connections.accepted += 1
        self._clock.add(self)
        self.keeper.joined(self)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        state = self._state
        if state is HEAD:
            self._ahead = self._ahead + data if self._ahead else data
            if not self._advancing:
                self._advance()
        elif state is BODY:
            self._read_body(data)
        elif state is TUNNEL:
            if self._upstream is not None:
                self._upstream.send(data)
        elif state is ANSWERING:
            self._ahead += data
            if len(self._ahead) > MAX_AHEAD:
                self.pause_input()
        elif state is SKIPPING:
            self._skip(data)

    def eof_received(self) -> bool:
        """The caller left: nobody waits for an answer, as Envoy and Go read it too. In a tunnel it has said all."""
        return self._state is TUNNEL and self._upstream is not None and self._upstream.caller_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: nobody waits for an answer."""
        del exc
        self._state = CLOSED
        self._clock.discard(self)
        self._connections.closed += 1
        self._end_attempts()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.give_up()
        self.keeper.left(self)

    def pause_writing(self) -> None:
        """The caller reads slowly: let the upstream wait."""
        self._writing_paused = True
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._writing_paused = False
        if self._upstream is not None and not self._upstream.transport.is_closing():
            self._upstream.transport.resume_reading()

    # --- the listener's calls ---

    def drain(self) -> None:
        """Close when idle; else after the answer that is under way."""
        self._close_after = True
        if self._state is HEAD and not self._ahead:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    @property
    def receiving(self) -> bool:
        """Return whether the caller owes a body, and is free to send it."""
        return self._state is BODY and not self._input_paused

    def too_slow(self, reason: str) -> None:
        """End it: the caller sends, or reads, next to nothing."""
        self._connections.cut[reason] += 1
        if self._state is BODY:
            self._broken_body(BadHead(408, reason))
        else:
            self.transport.abort()

    def expire(self) -> None:
        """The clock: a deadline has passed."""
        self.deadline = NEVER
        if self._state is HEAD:
            if self._ahead:
                self._refuse(Reply(408, "head_timeout"))
            else:
                self.transport.close()
        elif self._clock.now >= self._expires:
            self._counts.reasons["certificate_ended"] += 1
            self.transport.abort()
        elif self._state in {ANSWERING, BODY}:
            self._timed_out()
        elif self._state is CLOSING:
            self.transport.close()
        else:
            self.transport.abort()

    # --- requests ---

    def _advance(self) -> None:
        """Take requests off the input until one has to be waited for."""
        self._advancing = True
        while self._state is HEAD and self._ahead and not self.transport.is_closing():
            data = self._ahead
            if data.startswith(b"\r\n"):
                self._ahead = data = data[2:]
            end = data.find(END)
            if end < 0:
                self._await_head(data)
                break
            self._ahead = data[end + 4 :]
            self._take(data[: end + 4])
        self._advancing = False

    def _take(self, raw: bytes) -> None:
        """Take a request whose head is there."""
        self._started = self._loop.time()
        self._answering = False
        key = (self._decide, self.tls, self.client_address, self.peer_certificate, raw)
        try:
            plan = self._plans.known.get(key) or self._decided(self.parse(raw), key)
            self._follow(plan)
        except BadHead as error:
            self._refuse(refusal(error))

    def _await_head(self, data: bytes) -> None:
        if len(data) > MAX_HEAD:
            self._refuse(refusal(BadHead(431, "head_too_large")))
        elif looks_wrong(data):
            self._refuse(refusal(BadHead(400, "malformed")))
        elif self.deadline > self._clock.now + self.keeper.protection.head_timeout:
            self.deadline = self._clock.now + self.keeper.protection.head_timeout

    def _decided(self, head: RequestHead, key: Key) -> Plan:
        decision = self._decide(self, head)
        if isinstance(decision, Reply):
            return Plan(head, decision, b"", self.memo)
        plan = Plan(head, decision, decision.request(head, self), self.memo)
        if decision.repeats:
            self._plans.keep(key, plan)
        return plan

    def _follow(self, plan: Plan) -> None:
        """Send a request on, or answer it."""
        self._head = head = plan.head
        self.memo = plan.memo
        if head.close or self._clock.now >= self._expires or self.keeper.retiring:
            self._close_after = True
        self._state = ANSWERING
        each = self.keeper.each
        decision, request = each(self, plan) if each is not None else (plan.decision, plan.request)
        if head.chunked or head.content_length:
            request += self._begin_body(head)
        if isinstance(decision, Reply):
            self.answer_here(decision)
            return
        self._forward = decision
        self.deadline = self._in(decision.request_timeout or decision.idle_timeout)
        self._send(decision, head, request)

    def _begin_body(self, head: RequestHead) -> bytes:
        """Return what is there of the body."""
        if head.expects:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit = self.keeper.protection.max_body  # of others the decider knows the length
        self._body = body = ChunkedBody(400, limit) if head.chunked else LengthBody(head.content_length)
        out, self._ahead = body.feed(self._ahead)
        self._state = ANSWERING if body.done else BODY
        return out

    def _send(self, forward: Forward, head: RequestHead, request: bytes) -> None:
        pool = forward.choose(head, self)
        if forward.retry is None:
            upstream = pool.take()
            if upstream is not None:
                # Kept in case the warm connection turns out dead. Only what is whole can be sent twice.
                whole = self._state is ANSWERING and head.method in IDEMPOTENT
                self._request = request if whole else b""
                self.ask(upstream, request)
                return
        self._attempts = Attempts(self, forward, head, pool, request)
        if forward.retry is None:
            self._attempts.dial()
        else:
            self._attempts.start()

    def ask(self, upstream: Upstream, request: bytes) -> None:
        """Send the request, or what there is of it."""
        head = self._head
        self._upstream = upstream
        if self._writing_paused:
            upstream.transport.pause_reading()
        upstream.ask(self, request, head.method if head is not None else "")

    def _end_attempts(self) -> None:
        if self._attempts is not None:
            self._attempts.cancel()
            self._attempts = None

    def _read_body(self, data: bytes) -> None:
        body, upstream = self._body, self._upstream
        if body is None:
            return
        try:
            out, rest = body.feed(data)
        except BadHead as error:
            self._broken_body(error)
            return
        if self._forward is not None and self._forward.request_timeout is None:
            self._refresh_idle()
        if self._attempts is not None:
            self._attempts.keep(out)
        if upstream is not None:
            upstream.send(out)
        if body.done:
            self._state = ANSWERING
            self._ahead = rest
            if self._attempts is not None:
                self._attempts.completed()

    def _broken_body(self, error: BadHead) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.give_up()
        if self._answering:
            self.transport.abort()
        else:
            self._refuse(refusal(error))

    @property
    def request_complete(self) -> bool:
        """Return whether the whole request has been sent on."""
        return self._state is ANSWERING

    @property
    def gone(self) -> bool:
        """Return whether the caller has left."""
        return self._state is CLOSED

    @property
    def asked(self) -> RequestHead | None:
        """Return the head of the request at hand, whoever answers it."""
        return self._head

    @property
    def under_way(self) -> RequestHead | None:
        """Return the head of the request that is being served by an endpoint, or the one that became a tunnel."""
        return self._head if self._forward is not None else None

    @property
    def idle(self) -> bool:
        """Return whether nothing is under way and nothing of a next request has come."""
        return self._state is HEAD and not self._ahead

    @property
    def is_tunnel(self) -> bool:
        """Return whether it has become a tunnel."""
        return self._state is TUNNEL

    def last(self) -> None:
        """Let the request at hand be the last one: its answer says so. If it cannot any more, the next one's will."""
        if self._state is HEAD or not self._answering:
            self._close_after = True

    @property
    def wants_upgrade(self) -> bool:
        """Return whether the request asked for a WebSocket."""
        return self._head is not None and self._head.upgrade

    def pause_input(self) -> None:
        """Let the caller wait."""
        if not self._input_paused and not self.transport.is_closing():
            self._input_paused = True
            self.transport.pause_reading()

    def resume_input(self) -> None:
        """Go on reading."""
        if self._input_paused and not self.transport.is_closing():
            self._input_paused = False
            self.transport.resume_reading()

    def _refresh_idle(self) -> None:
        self.deadline = self._in(self._forward.idle_timeout if self._forward is not None else None)

    def _in(self, seconds: float | None) -> float:
        """Return the deadline that many seconds from now; a certificate's end comes before any."""
        deadline = self._clock.now + seconds if seconds is not None else NEVER
        return deadline if deadline < self._expires else self._expires  # noqa: FURB136 - a call more, at every request

    # --- the upstream's calls ---

    def answer(self, head: ResponseHead, body: bytes, *, done: bool, reframed: bool) -> None:
        """Write the head of the answer and what is there of its body."""
        forward = self._forward
        if self._attempts is not None:
            if self._attempts.refuses(head):
                self._drop_answer(done=done)
                return
            self._end_attempts()
        if forward is not None:
            if head.status >= 400 and not forward.in_mesh:  # noqa: PLR2004 - an error
                head = head.with_lines(without(head.lines, _OUR_WORD))
            head = forward.response_lines(head, self)
        extra = b"transfer-encoding: chunked\r\n" if reframed else b""
        if self._close_after or self._state is BODY:
            self._close_after = True
            extra += b"connection: close\r\n"
        self._answering = True
        if done:
            self._upstream = None  # it may serve others already: a caller who reads slowly is no concern of theirs
        self.transport.write(head.render(extra) + body if body else head.render(extra))
        if done:
            self._finish(head.status)
        else:
            self._status = head.status

    def _drop_answer(self, *, done: bool) -> None:
        """Let go of an answer that is not passed on, and of its connection unless that is free already."""
        upstream, self._upstream = self._upstream, None
        if upstream is None or done:
            return
        if self._writing_paused:
            upstream.give_up()
        else:
            upstream.discard()

    def answer_more(self, body: bytes, *, done: bool) -> None:
        """Write more of the answer's body."""
        if done:
            self._upstream = None
        if body:
            self.transport.write(body)
        if done:
            self._finish(self._status)
        elif self._forward is not None and self._forward.request_timeout is None:
            self._refresh_idle()

    def inform(self, head: ResponseHead) -> None:
        """Pass on an informational answer."""
        self.transport.write(head.render())

    def switch(self, head: ResponseHead) -> None:
        """Become a tunnel after 101, or 2xx to a CONNECT."""
        self._end_attempts()
        self._counts.answered(head.status, self._loop.time() - self._started)
        self.transport.write(head.render(b"connection: Upgrade\r\n" if self.wants_upgrade else b""))
        self._state = TUNNEL
        self.deadline = self._expires
        ahead, self._ahead = self._ahead, b""
        self.resume_input()
        if ahead and self._upstream is not None:
            self._upstream.send(ahead)

    def tunnel(self, data: bytes) -> None:
        """Pass on bytes of a tunnel."""
        self.transport.write(data)

    def tunnel_ended(self, reason: str = "") -> None:
        """The endpoint closed the tunnel, or it was cut for a reason that is counted."""
        self._upstream = None
        if reason:
            self._counts.reasons[reason] += 1
        self.transport.close()

    def upstream_lost(self, upstream: Upstream) -> None:
        """The connection ended before any answer: once more if that is harmless, else say so."""
        self._upstream = None
        if self._attempts is None:
            forward, head = self._forward, self._head
            assert forward is not None  # noqa: S101 - something was asked
            assert head is not None  # noqa: S101 - the same
            if not self._request:
                self.upstream_broke(Failure.ENDED)
                return
            self._attempts = Attempts(self, forward, head, upstream.pool, self._request)
        self._attempts.lost(upstream)

    def upstream_broke(self, failure: Failure) -> None:
        """There will be no answer."""
        self._upstream = None
        if self._answering:
            self.upstream_cut()
        elif self._attempts is not None:
            self._attempts.failed(failure)
        else:
            self.answer_here(no_answer(failure))

    def upstream_cut(self) -> None:
        """The answer ended in the middle: the caller must not take it for whole."""
        self._upstream = None
        self._counts.reasons["cut_answer"] += 1
        self.transport.abort()

    # --- answers made here ---

    def _timed_out(self) -> None:
        forward = self._forward
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self._state is ANSWERING:
                upstream.overdue()
            else:
                upstream.give_up()  # it was the caller who took too long
        if self._answering:
            self.upstream_cut()
        else:
            stalled = forward is not None and forward.request_timeout is None
            self.answer_here(STREAM_TIMEOUT if stalled else REQUEST_TIMEOUT)

    def answer_here(self, reply: Reply) -> None:
        """Answer in the place of an endpoint."""
        self._end_attempts()
        head, body = self._head, self._body
        if self._forward is not None:
            reply = replace(reply, change=self._forward.response_lines)
        self._counts.reasons[reply.reason] += 1
        unread = body is not None and not body.done
        if unread and (head is None or head.chunked or head.content_length > MAX_SKIPPED):
            self._close_after = True
        self._answering = True
        self.transport.write(
            reply.render(
                self._clock.date,
                close=self._close_after,
                head_request=head is not None and head.method == "HEAD",
                downstream=self,
            )
        )
        if unread and not self._close_after:
            self._state = SKIPPING
            self._status = reply.status
            self.deadline = self._in(SKIP_SECONDS)
            self.resume_input()
        else:
            self._finish(reply.status)

    def _skip(self, data: bytes) -> None:
        """Throw away the rest of a body whose answer was given."""
        if self._body is None:
            return
        _, self._ahead = self._body.feed(data)
        if self._body.done:
            self._finish(self._status)

    def _refuse(self, reply: Reply) -> None:
        """Answer what could not be read as a request, and close."""
        self._head = None
        self._body = None
        self._close_after = True
        self._ahead = b""
        self._state = BODY  # whatever comes now belongs to something that was not understood
        self.answer_here(reply)

    def _close(self) -> None:
        """Close; where the caller may still be sending, give it a moment to read the answer first."""
        if self._state is BODY:
            self._state = CLOSING
            self.deadline = self._clock.now + LINGER_SECONDS
            self.resume_input()
            with contextlib.suppress(OSError):  # of asyncio's own transport, when the caller has just been reset
                self.transport.write_eof()
        else:
            self._state = CLOSING
            self.transport.close()

    def _finish(self, status: int) -> None:
        """The answer is whole."""
        self._counts.answered(status, self._loop.time() - self._started if self._started else 0.0)
        self._upstream = self._forward = self._head = self._body = None
        self._request = b""
        if self._close_after:
            self._close()
            return
        self._state = HEAD
        self.deadline = self._in(self.keeper.protection.idle_timeout)
        if self._input_paused:
            self.resume_input()
        if self._ahead and not self._advancing:
            self._advance()
