"""A connection towards an endpoint: sends one request at a time and passes the answer to whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
from typing import TYPE_CHECKING, cast

import structlog

from dataplane.bodies import Body, ChunkedBody, LengthBody, UntilClose
from dataplane.clock import NEVER
from dataplane.heads import END, MAX_HEAD, BadHead, ResponseHead, looks_wrong, parse_response, without
from policies.retries import Failure

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.pool import Pool

log = structlog.get_logger(__name__)

MAX_INFORMATIONAL = 16  # answers of status 1xx that one read may bring
MAX_UNWANTED = 16 * 1024  # bytes of an answer that are read for the sake of its connection
UNWANTED_SECONDS = 5.0  # for them to come
TUNNEL_SECONDS = 3600.0  # without a byte either way; Envoy's for tcp
EXPIRY_MARGIN = 2.0  # seconds before a certificate ends in which a connection takes no new request
_UNAVAILABLE = 503
# What a sidecar of ours says when it could not reach its app: the endpoint is as gone as one that takes no connection.
_APP_IS_GONE = re.compile(rb"(?im)^x-lictor-reason: (?:remote_connection_failure|connection_timeout)\r?$")
_EMPTY = frozenset({204, 304})  # No Content, Not Modified
_CONNECT = "CONNECT"
_OK = 200
_REDIRECTS = 300
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_SWITCHING = 101
_CONTINUE = 100


class State(enum.Enum):
    """Where the connection stands."""

    IDLE = enum.auto()
    HEAD = enum.auto()  # a request was sent, its answer's head is awaited
    BODY = enum.auto()
    UNWANTED = enum.auto()  # the rest of an answer that nobody waits for
    TUNNEL = enum.auto()  # after 101, or CONNECT: bytes both ways
    CALLER_ENDED = enum.auto()  # of CONNECT: one way alone is left
    ENDPOINT_ENDED = enum.auto()
    CLOSED = enum.auto()


# A member looked up through its class costs as much as a call.
_IDLE, _HEAD, _BODY = State.IDLE, State.HEAD, State.BODY
_UNWANTED, _TUNNEL, _CLOSED = State.UNWANTED, State.TUNNEL, State.CLOSED
_TUNNELS = frozenset({State.TUNNEL, State.CALLER_ENDED, State.ENDPOINT_ENDED})


class Upstream(asyncio.Protocol):
    """The connection. Made by `Pool.dial`; busy until its answer is complete."""

    __slots__ = (
        "_asker",
        "_body",
        "_input",
        "_keep",
        "_method",
        "_pool",
        "_state",
        "counted",
        "deadline",
        "expires",
        "lent",
        "reused",
        "transport",
        "unwanted",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._asker: Downstream | None = None
        self._state = _IDLE
        self._input = b""
        self._body: Body | None = None
        self._method = ""
        self._keep = True
        self.transport: asyncio.Transport
        self.reused = False
        self.unwanted = 0  # bytes of such an answer that may still come
        self.lent = False  # a request has it, or is about to
        self.counted = False  # its place in the pool is its own to give back
        self.deadline = NEVER
        self.expires = NEVER

    # --- asked by Downstream and Pool ---

    def usable(self, now: float) -> bool:
        """Return whether another request may be sent."""
        return self._state is _IDLE and now < self.expires - EXPIRY_MARGIN and not self.transport.is_closing()

    def ask(self, asker: Downstream, request: bytes, method: str) -> None:
        """Send a request's head and what is there of its body. Where there is no request, be a tunnel at once."""
        self._asker = asker
        self._method = method
        if not request:
            self._state = _TUNNEL
            self._came_through()
            asker.switch(ResponseHead(_OK, b"HTTP/1.1 200 Connection established", b""))
            if self._input:
                asker.tunnel(self._input)
                self.transport.resume_reading()
            return
        self._state = _HEAD
        self.deadline = self.expires
        self.transport.write(request)

    def send(self, data: bytes) -> None:
        """Send more of the body, or of the tunnel."""
        if self._method == _CONNECT:
            self._came_through()
        self.transport.write(data)

    def _came_through(self) -> None:
        """Wait anew for something to come through a tunnel. WebSockets have pings of their own."""
        ends = self._pool.clock.now + TUNNEL_SECONDS if self._method == _CONNECT else NEVER
        self.deadline = min(self.expires, ends)

    def caller_ended(self) -> bool:
        """The caller has said all: tell the endpoint of a tunnel. Return whether the other way is still open."""
        return self._end_one_way(State.CALLER_ENDED, self.transport)

    def _end_one_way(self, ended: State, reader: asyncio.Transport) -> bool:
        if self._state is _TUNNEL and self._method == _CONNECT and not reader.is_closing():
            with contextlib.suppress(OSError):  # when it has just been reset
                reader.write_eof()
                self._state = ended
        return self._state is ended

    def give_up(self) -> None:
        """Nobody waits for the answer any more: the connection cannot be used again."""
        self._asker = None
        if self._state in _TUNNELS:
            self.transport.close()  # after what is still to be written
        else:
            self.abort()

    def discard(self) -> None:
        """Nobody wants the rest of the answer: read a short one, so that the connection can serve another request."""
        asker, self._asker = self._asker, None
        if asker is None or not asker.request_complete or not self._keep or isinstance(self._body, UntilClose):
            self.abort()
            return
        self._pool.end(self)
        self._state = _UNWANTED
        self.unwanted = MAX_UNWANTED
        self.deadline = min(self.expires, self._pool.clock.now + UNWANTED_SECONDS)

    def overdue(self) -> None:
        """The answer did not come in time: the endpoint has failed, and the connection is of no use any more."""
        if self._state is _HEAD:
            self._pool.failed()
        self.give_up()

    @property
    def pool(self) -> Pool:
        """Return the endpoint's."""
        return self._pool

    def abort(self) -> None:
        """Close at once."""
        if self._state is not _CLOSED:
            self.transport.abort()

    def expire(self) -> None:
        """Close: it was idle for long enough, or a certificate of it has ended."""
        self.deadline = NEVER
        if self._asker is not None and self._state in _TUNNELS and self._pool.clock.now < self.expires:
            asker, self._asker = self._asker, None
            asker.tunnel_ended("idle_tunnel")
        self.abort()

    @property
    def address(self) -> str:
        """Return the IP address of the other end, "" when it is gone."""
        peername = self.transport.get_extra_info("peername")
        return str(peername[0]) if peername else ""

    @property
    def closed(self) -> bool:
        """Return whether it has ended."""
        return self._state is _CLOSED

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._pool.clock.add(self)

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        asker = self._asker
        if asker is None:
            self._read_unwanted(data)
            return
        try:
            if self._state is _HEAD:
                self._read_head(asker, self._input + data if self._input else data)
            elif self._state is _BODY:
                self._read_body(asker, data)
            elif self._state in _TUNNELS:
                self._came_through()
                asker.tunnel(data)
        except BadHead as error:
            if self._state is _HEAD:
                self._pool.failed()
            self._asker = None
            self.abort()
            log.debug("upstream_protocol_error", reason=error.reason)
            asker.upstream_broke(Failure.NOT_HTTP)

    def eof_received(self) -> bool:
        """The endpoint has said all: in a tunnel the caller may go on, else that is the end."""
        return self._asker is not None and self._end_one_way(State.ENDPOINT_ENDED, self._asker.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the asker, if there is one."""
        del exc
        asker, state, body = self._asker, self._state, self._body
        self._asker = None
        self._state = _CLOSED
        self._pool.clock.discard(self)
        self._pool.lost(self)
        if asker is None:
            return
        if state is _HEAD:
            if self._pool.clock.now < self.expires:  # else a certificate has ended, which is no failure
                self._pool.failed()
            asker.upstream_lost(self)
        elif state in _TUNNELS:
            asker.tunnel_ended()
        else:
            last = body.end() if body is not None else None
            if last is None:
                asker.upstream_cut()
            else:
                asker.answer_more(last, done=True)

    def pause_writing(self) -> None:
        """The endpoint is slow: let the downstream wait."""
        if self._asker is not None:
            self._asker.pause_input()

    def resume_writing(self) -> None:
        """Go on."""
        if self._asker is not None:
            self._asker.resume_input()

    # --- the answer ---

    def _read_head(self, asker: Downstream, data: bytes) -> None:
        for _ in range(MAX_INFORMATIONAL):
            end = data.find(END)
            if end < 0:
                if len(data) > MAX_HEAD or looks_wrong(data):
                    raise BadHead(502, "malformed")
                self._input = data
                return
            self._input = b""
            head = parse_response(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= _OK:
                if self._method == _CONNECT and head.status < _REDIRECTS:
                    self._switch(asker, _without_framing(head), data)
                else:
                    self._begin_answer(asker, head, data)
                return
            if head.status == _SWITCHING:
                self._switch(asker, head, data)
                return
            if head.status != _CONTINUE:  # 100 was sent to the downstream by this proxy itself
                asker.inform(head)
            if not data:
                return
        raise BadHead(502, "too_many_informational")

    def _begin_answer(self, asker: Downstream, head: ResponseHead, data: bytes) -> None:
        pool = self._pool
        if head.status >= 500 or pool.troubled:  # noqa: PLR2004 - a server's error
            pool.answered(head.status, app_is_gone=_app_is_gone(head))
        self._keep = not head.close
        if head.content_length == len(data) and self._method != "HEAD" and head.status not in _EMPTY:
            self._finished()  # most answers are one read: nothing has to be counted
            asker.answer(head, data, done=True, reframed=False)
            return
        self._body = body = self._framing(head)
        out, rest = body.feed(data) if data and not body.done else (b"", data)
        if rest:
            self._keep = False  # more than the answer: nothing that may be taken for the next one
        if body.done:
            self._finished()
            asker.answer(head, out, done=True, reframed=False)
        else:
            self._state = _BODY
            asker.answer(head, out, done=False, reframed=isinstance(body, UntilClose))

    def _switch(self, asker: Downstream, head: ResponseHead, data: bytes) -> None:
        if head.status == _SWITCHING and not asker.wants_upgrade:
            raise BadHead(502, "unasked_upgrade")
        self._state = _TUNNEL
        self._came_through()
        if self._pool.troubled:
            self._pool.answered(_SWITCHING)
        asker.switch(head)
        if data:
            asker.tunnel(data)

    def _framing(self, head: ResponseHead) -> Body:
        if self._method == "HEAD" or head.status in _EMPTY:
            return LengthBody(0)
        if head.chunked:
            return ChunkedBody(502)
        if head.content_length is not None:
            return LengthBody(head.content_length)
        return UntilClose()

    def _read_body(self, asker: Downstream, data: bytes) -> None:
        body = self._body
        assert body is not None  # noqa: S101 - state BODY has one
        out, rest = body.feed(data)
        if rest:
            self._keep = False
        if body.done:
            self._finished()
        asker.answer_more(out, done=body.done)

    def _read_unwanted(self, data: bytes) -> None:
        if self._state is _IDLE and self._pool.route.raw:
            self._input += data  # the endpoint speaks first, to a caller who is about to be told
            self.transport.pause_reading()
            return
        body = self._body
        self.unwanted -= len(data)
        if self._state is not _UNWANTED or body is None or self.unwanted < 0:
            self.abort()  # nobody asked for so much: not a peer to go on with
            return
        try:
            _, rest = body.feed(data)
        except BadHead:
            rest = data
        if rest:
            self.abort()
        elif body.done:
            self._body = None
            self._state = _IDLE
            self._pool.put_back(self)

    def _finished(self) -> None:
        """The answer is whole: ready for the next request, unless either side wants to close."""
        asker, self._asker = self._asker, None
        self._body = None
        self._state = _IDLE
        if self._keep and asker is not None and asker.request_complete:
            self._pool.release(self)
        else:
            self._pool.spent(self)


def _without_framing(head: ResponseHead) -> ResponseHead:
    """Return an answer that begins a tunnel without what would frame a body (RFC 9110 section 9.3.6)."""
    return head.with_lines(without(head.lines, _FRAMING))


def _app_is_gone(head: ResponseHead) -> bool:
    return head.status == _UNAVAILABLE and _APP_IS_GONE.search(head.lines) is not None
