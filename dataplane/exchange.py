"""What a decision about a request looks like: forward it, or answer it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dataplane.heads import BadHead, RequestHead, ResponseHead

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.pool import Pool
    from policies.retries import RetryBudget, RetryPolicy

_PHRASES = {
    200: b"OK",
    301: b"Moved Permanently",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    408: b"Request Timeout",
    413: b"Payload Too Large",
    417: b"Expectation Failed",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
_UNREADABLE = frozenset(
    {"malformed", "bad_request_line", "http_version", "http_0.9", "transfer_encoding", "head_too_large"}
)

Change = Callable[[ResponseHead, "Downstream"], ResponseHead]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer made here. `reason` goes into x-lictor-reason and the counters; `lines` are further fields.

    `change` is what the route does to the fields of its answers, also of those that no app gave.
    """

    status: int
    reason: str
    body: bytes = b""
    lines: bytes = b""
    change: Change | None = None

    def render(self, date: bytes, *, close: bool, head_request: bool, downstream: Downstream | None = None) -> bytes:
        """Return the whole answer. Its `change` needs the downstream that it is for."""
        first = b"HTTP/1.1 %d %b" % (self.status, _PHRASES.get(self.status, b""))
        head = ResponseHead(self.status, first, self._fields(date, close=close))
        if self.change is not None and downstream is not None:
            head = self.change(head, downstream)
        return head.render() + (b"" if head_request else self.body)

    def _fields(self, date: bytes, *, close: bool) -> bytes:
        fields = [
            b"content-length: %d" % len(self.body),
            b"date: " + date,
            b"server: lictor",
            b"x-lictor-reason: " + self.reason.encode("latin-1", "replace"),
        ]
        if self.body:
            fields.append(b"content-type: text/plain")
        if close:
            fields.append(b"connection: close")
        return b"\r\n".join(fields) + b"\r\n" + self.lines


REQUEST_TIMEOUT = Reply(504, "request_timeout", b"upstream request timeout")
STREAM_TIMEOUT = Reply(504, "stream_timeout", b"stream timeout")


def refusal(error: BadHead) -> Reply:
    """Return the answer to what could not be read as a request; with Envoy's words where its codec would say them."""
    body = _PHRASES.get(error.status, b"") if error.reason in _UNREADABLE else b""
    return Reply(error.status, error.reason, body)


class Forward(Protocol):
    """A decision to pass a request on. One object serves all requests that are decided alike.

    `request_timeout` and `idle_timeout` are seconds or None. `in_mesh` says whether the endpoint is a sidecar: of its
    answers alone a field of this proxy's own is believed. `repeats` says that until the next swap the same head, from
    the same address with the same certificate, is decided the same way and gives the same `request`.
    """

    repeats: bool
    retry: RetryPolicy | None
    budget: RetryBudget | None
    in_mesh: bool

    request_timeout: float | None
    idle_timeout: float | None

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        """Return the pool of the endpoint that takes this request."""
        ...

    def another(self, tried: set[Pool]) -> Pool | None:
        """Return a pool to try after a failed connect, or None."""
        ...

    def connect_timeout(self, pool: Pool) -> float:
        """Return how many seconds the connect to an endpoint may take."""
        ...

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        """Return the head as it goes to the endpoint."""
        ...

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        """Return the answer's head with this decision's changes to its fields."""
        ...


Decide = Callable[["Downstream", RequestHead], "Forward | Reply"]
Parse = Callable[[bytes], RequestHead]
