"""A connection from a caller: reads requests, has them decided, and writes the answers in order.

One request at a time is under way; what a caller sends ahead waits. A request costs no task unless a connection has to
be dialled. The states of a connection:

    HEAD ──head──▶ BODY ──last byte──▶ ANSWERING ──answer whole──▶ HEAD …
      └──head without body──────────────────▲            101 ──▶ TUNNEL

An answer made here may be ready while a body still arrives: a short one is read and thrown away (SKIPPING) so that
the connection can be kept, else the connection closes once the caller had a moment to read the answer (CLOSING).
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, cast

import structlog

from dataplane.bodies import Body, ChunkedBody, LengthBody
from dataplane.clock import NEVER, Clock
from dataplane.exchange import Decide, Forward, Reply, refusal
from dataplane.heads import END, MAX_HEAD, BadHead, RequestHead, ResponseHead, looks_wrong, parse_request
from dataplane.pool import Overflow, Pool
from policies.errors import ConnectFailed, ConnectTimedOut

if TYPE_CHECKING:
    from dataplane.listener import Listener
    from dataplane.metrics import ConnectionCounts, HttpCounts
    from dataplane.upstream import Upstream
    from policies.identity import Peer

log = structlog.get_logger(__name__)

IDLE_SECONDS = 300.0  # between requests
HEAD_SECONDS = 10.0  # from a head's first byte to its last
ATTEMPTS = 3  # endpoints that are dialled for one request
MAX_AHEAD = 64 * 1024  # bytes that a caller may send ahead of its answer
MAX_SKIPPED = 64 * 1024  # bytes of an unwanted body that are worth keeping a connection for
SKIP_SECONDS = 10.0  # for them to come
LINGER_SECONDS = 1.0  # for a caller to read an answer that it did not wait for

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_LOST = b"upstream connect error or disconnect/reset before headers. reset reason: "


class State(enum.Enum):
    """What is awaited from the caller."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWERING = enum.auto()
    TUNNEL = enum.auto()
    SKIPPING = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


class Downstream(asyncio.Protocol):
    """The connection. `peer` is None on a plaintext listener; `memo` is the decider's to keep things in."""

    __slots__ = (
        "_advancing",
        "_ahead",
        "_answering",
        "_body",
        "_clock",
        "_close_after",
        "_connections",
        "_counts",
        "_decide",
        "_dialling",
        "_expires",
        "_forward",
        "_head",
        "_input_paused",
        "_listener",
        "_loop",
        "_payload",
        "_resend",
        "_started",
        "_state",
        "_status",
        "_upstream",
        "_writing_paused",
        "client_address",
        "deadline",
        "memo",
        "peer",
        "peer_certificate",
        "transport",
    )

    def __init__(
        self,
        listener: Listener,
        decide: Decide,
        clock: Clock,
        counts: tuple[HttpCounts, ConnectionCounts],
        expires: float = NEVER,
    ) -> None:
        self._listener = listener
        self._decide = decide
        self._clock = clock
        self._counts, self._connections = counts
        self._loop = asyncio.get_running_loop()
        self._expires = expires
        self._state = State.HEAD
        self._ahead = b""
        self._advancing = False
        self._answering = False  # the head of the answer has been sent
        self._body: Body | None = None
        self._close_after = False
        self._dialling: asyncio.Task[None] | None = None
        self._forward: Forward | None = None
        self._head: RequestHead | None = None
        self._input_paused = False
        self._payload = b""
        self._resend = False
        self._started = 0.0
        self._status = 0
        self._upstream: Upstream | None = None
        self._writing_paused = False
        self.client_address = ""
        self.deadline = clock.now + IDLE_SECONDS
        self.memo: object = None
        self.peer: Peer | None = None
        self.peer_certificate = b""
        self.transport: asyncio.Transport

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        peername = transport.get_extra_info("peername")
        self.client_address = str(peername[0]) if peername else ""
        self.peer = transport.get_extra_info("peer")
        if self.peer is not None:
            self.peer_certificate = transport.get_extra_info("certificate") or b""
        self._connections.accepted += 1
        self._clock.add(self)
        self._listener.joined(self)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        state = self._state
        if state is State.HEAD:
            self._ahead = self._ahead + data if self._ahead else data
            self._advance()
        elif state is State.BODY:
            self._read_body(data)
        elif state is State.TUNNEL:
            if self._upstream is not None:
                self._upstream.send(data)
        elif state is State.ANSWERING:
            self._ahead += data
            if len(self._ahead) > MAX_AHEAD:
                self.pause_input()
        elif state is State.SKIPPING:
            self._skip(data)

    def eof_received(self) -> bool:
        """The caller left: nobody waits for an answer. Envoy and Go read an end of input the same way."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: nobody waits for an answer."""
        del exc
        self._state = State.CLOSED
        self._clock.discard(self)
        self._connections.closed += 1
        if self._dialling is not None:
            self._dialling.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.give_up()
        self._listener.left(self)

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
        if self._state is State.HEAD and not self._ahead:
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def expire(self) -> None:
        """The clock: a deadline has passed."""
        self.deadline = NEVER
        if self._state is State.HEAD:
            if self._ahead:
                self._refuse(Reply(408, "head_timeout"))
            else:
                self.transport.close()
        elif self._clock.now >= self._expires:
            self._counts.reasons["certificate_ended"] += 1
            self.transport.abort()
        elif self._state in {State.ANSWERING, State.BODY}:
            self._timed_out()
        elif self._state is State.CLOSING:
            self.transport.close()
        else:
            self.transport.abort()

    # --- requests ---

    def _advance(self) -> None:
        """Take requests off the input until one has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        while self._state is State.HEAD and self._ahead and not self.transport.is_closing():
            if not self._take_request():
                break
        self._advancing = False

    def _take_request(self) -> bool:
        data = self._ahead
        if data.startswith(b"\r\n"):
            self._ahead = data = data[2:]
        end = data.find(END)
        if end < 0:
            self._await_head(data)
            return False
        self._ahead = data[end + 4 :]
        self._started = self._loop.time()
        try:
            head = parse_request(data[: end + 4])
            self._begin(head)
        except BadHead as error:
            self._refuse(refusal(error))
        return True

    def _await_head(self, data: bytes) -> None:
        if len(data) > MAX_HEAD:
            self._refuse(refusal(BadHead(431, "head_too_large")))
        elif looks_wrong(data):
            self._refuse(refusal(BadHead(400, "malformed")))
        elif self.deadline > self._clock.now + HEAD_SECONDS:
            self.deadline = self._clock.now + HEAD_SECONDS

    def _begin(self, head: RequestHead) -> None:
        self._head = head
        self._close_after = self._close_after or head.close or self._clock.now >= self._expires
        self._answering = False
        decision = self._decide(self, head)
        if isinstance(decision, Reply):
            self._state = State.ANSWERING
            if head.chunked or head.content_length:
                self._begin_body(head)
            self._answer_here(decision)
            return
        self._forward = decision
        self.deadline = self._in(decision.request_timeout or decision.idle_timeout)
        request = decision.request(head, self)
        if head.chunked or head.content_length:
            request += self._begin_body(head)
        else:
            self._state = State.ANSWERING
        self._send(decision, head, request)

    def _begin_body(self, head: RequestHead) -> bytes:
        """Return what is there of the body."""
        if head.expects:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body = body = ChunkedBody(400) if head.chunked else LengthBody(head.content_length)
        out, self._ahead = body.feed(self._ahead)
        self._state = State.ANSWERING if body.done else State.BODY
        return out

    def _send(self, forward: Forward, head: RequestHead, request: bytes) -> None:
        pool = forward.choose(head, self)
        upstream = pool.take()
        if upstream is None:
            self._dial(forward, pool, request)
            return
        # Kept in case the warm connection turns out dead. Only what is whole can be sent twice.
        self._resend = self._state is State.ANSWERING and head.method in _IDEMPOTENT
        self._payload = request if self._resend else b""
        self._ask(upstream, request)

    def _ask(self, upstream: Upstream, request: bytes) -> None:
        head = self._head
        self._upstream = upstream
        if self._writing_paused:
            upstream.transport.pause_reading()
        upstream.ask(self, request, head_request=head is not None and head.method == "HEAD")

    def _dial(self, forward: Forward, pool: Pool, request: bytes) -> None:
        self._resend = False
        self._payload = b""
        if self._state is State.BODY:
            self.pause_input()
        self._dialling = self._loop.create_task(self._dial_and_ask(forward, pool, request))

    async def _dial_and_ask(self, forward: Forward, pool: Pool | None, request: bytes) -> None:
        tried: set[Pool] = set()
        failure = b"remote connection failure"
        while pool is not None and len(tried) < ATTEMPTS:
            try:
                upstream = await pool.dial(forward.connect_timeout)
            except Overflow:
                failure = b"overflow"
            except ConnectTimedOut as error:
                failure = b"connection timeout"
                log.debug("connect_failed", error=str(error))
            except ConnectFailed as error:
                failure = b"remote connection failure"
                log.debug("connect_failed", error=str(error))
            else:
                self._dialling = None
                if self._state is State.CLOSED:
                    upstream.abort()
                    return
                self._ask(upstream, request)
                self.resume_input()
                return
            tried.add(pool)
            pool = forward.another(tried)
        self._dialling = None
        self._answer_here(Reply(503, failure.decode().replace(" ", "_"), _LOST + failure))

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
        if body.done:
            self._state = State.ANSWERING
            self._ahead = rest
        if upstream is not None:
            upstream.send(out)

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
        return self._state is State.ANSWERING

    @property
    def under_way(self) -> RequestHead | None:
        """Return the head of the request that is being served by an endpoint, or the one that became a tunnel."""
        return self._head if self._forward is not None else None

    @property
    def idle(self) -> bool:
        """Return whether nothing is under way and nothing of a next request has come."""
        return self._state is State.HEAD and not self._ahead

    @property
    def is_tunnel(self) -> bool:
        """Return whether it has become a tunnel."""
        return self._state is State.TUNNEL

    def last(self) -> None:
        """Let the request at hand be the last one: its answer says so."""
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
        return min(self._clock.now + seconds, self._expires) if seconds is not None else self._expires

    # --- the upstream's calls ---

    def answer(self, head: ResponseHead, body: bytes, *, done: bool, reframed: bool) -> None:
        """Write the head of the answer and what is there of its body."""
        forward = self._forward
        if forward is not None:
            head = forward.response_lines(head, self)
        extra = b"transfer-encoding: chunked\r\n" if reframed else b""
        if self._close_after or self._state is State.BODY:
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
        """Become a tunnel after 101."""
        self._counts.answered(head.status, self._loop.time() - self._started)
        self.transport.write(head.render(b"connection: Upgrade\r\n"))
        self._state = State.TUNNEL
        self.deadline = self._expires
        ahead, self._ahead = self._ahead, b""
        self.resume_input()
        if ahead and self._upstream is not None:
            self._upstream.send(ahead)

    def tunnel(self, data: bytes) -> None:
        """Pass on bytes of a tunnel."""
        self.transport.write(data)

    def tunnel_ended(self) -> None:
        """The endpoint closed the tunnel."""
        self._upstream = None
        self.transport.close()

    def upstream_lost(self, upstream: Upstream) -> None:
        """The connection ended before any answer: once more if that is harmless, else say so."""
        self._upstream = None
        forward, head = self._forward, self._head
        if upstream.reused and self._resend and forward is not None and head is not None:
            request = self._payload
            pool = forward.choose(head, self)
            pool.counts.retries += 1
            self._dial(forward, pool, request)
            return
        self.upstream_broke("connection termination", 503)

    def upstream_broke(self, reason: str, status: int) -> None:
        """There will be no answer."""
        self._upstream = None
        if self._answering:
            self.upstream_cut()
            return
        self._answer_here(Reply(status, reason.replace(" ", "_"), _LOST + reason.encode()))

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
            upstream.give_up()
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._answering:
            self._counts.reasons["cut_answer"] += 1
            self.transport.abort()
        elif forward is not None and forward.request_timeout is None:
            self._answer_here(Reply(504, "stream_timeout", b"stream timeout"))
        else:
            self._answer_here(Reply(504, "request_timeout", b"upstream request timeout"))

    def _answer_here(self, reply: Reply) -> None:
        head, body = self._head, self._body
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
            )
        )
        if unread and not self._close_after:
            self._state = State.SKIPPING
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
        self._state = State.BODY  # whatever comes now belongs to something that was not understood
        self._answer_here(reply)

    def _close(self) -> None:
        """Close; where the caller may still be sending, give it a moment to read the answer first."""
        if self._state is State.BODY:
            self._state = State.CLOSING
            self.deadline = self._clock.now + LINGER_SECONDS
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.resume_input()
        else:
            self._state = State.CLOSING
            self.transport.close()

    def _finish(self, status: int) -> None:
        """The answer is whole."""
        self._counts.answered(status, self._loop.time() - self._started if self._started else 0.0)
        self._upstream = None
        self._forward = None
        self._head = None
        self._body = None
        self._payload = b""
        self._resend = False
        if self._close_after:
            self._close()
            return
        self._state = State.HEAD
        self.deadline = self._in(IDLE_SECONDS)
        self.resume_input()
        if self._ahead:
            self._advance()
