"""Heads of HTTP/1.1 messages: read strictly, written back from the very bytes that were read.

llhttp (through httptools) decides whether a head is well formed; one scan finds the few fields that a proxy acts on;
all other lines are passed on as they came. Bodies are framed by `bodies`. Source: RFC 9112, RFC 9110 section 7.6.1.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import httptools

MAX_HEAD = 60 * 1024  # bytes, as Envoy
MAX_FIELDS = 100
END = b"\r\n\r\n"
FORWARDED_PROTO = b"x-forwarded-proto: http\r\n"  # what the app spoke: told by the first proxy on the way

# The first letters alone come before, with and without capitals: most fields are none of these.
_REQUEST_FIELDS = re.compile(
    rb"\r\n(?=[CEHKPTUXcehkptux])(?i:(host|connection|keep-alive|proxy-connection|transfer-encoding|content-length"
    rb"|te|upgrade|expect|x[-_]forwarded[-_]client[-_]cert|client[-_]cert(?:[-_]chain)?|x-forwarded-proto)"
    rb"):[ \t]*([^\r\n]*)"
)
_RESPONSE_FIELDS = re.compile(
    rb"\r\n(?=[CKPTUckptu])(?i:(connection|keep-alive|proxy-connection|transfer-encoding|content-length|upgrade))"
    rb":[ \t]*([^\r\n]*)"
)
_ALL_FIELDS = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)((?:[/?][^#]*)?)")
# RFC 3986 section 3.2.2, but for the comma: two Hosts that somebody has joined are still two.
_HOST = re.compile(rb"(?:(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-fv:.]+\])(?::[0-9]{0,5})?")
_OLD_REQUEST_LINE = re.compile(rb"[A-Z]+ [^\t ]+")
_FIRST_LETTER = ord("A")
_MAX_LENGTH_DIGITS = 18  # below 2^63: what some next hop would count with
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t -~\x80-\xff]*)?")
_NO_CONTENT = 204
# `Connection` may not name these away: that would be an attack on what the next hop believes.
_PROTECTED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"cookie"}
    | {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-client-cert"}
)
_XFCC = b"x-forwarded-client-cert"
_KNOWN, _KNOWN_SIZE = 128, 1024  # heads of answers, and fields of requests, that are remembered; bytes of the longest
_CONNECTION = frozenset({b"connection"})
_FEW, _SHORT = 6, 256  # names that are worth a pattern of their own, and bytes of them
_LONGEST_HOST = 255  # bytes of one that is remembered


class BadHead(Exception):
    """A message that is not forwarded. `status` is what to answer; `reason` a short word for counters."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Sink:
    """A parser's target that listens to nothing: only its verdict is asked for."""


_SINK = _Sink()


class _Said:
    """What the field lines of a request say to a proxy. `lines` are all of them, each ending in CRLF."""

    __slots__ = (
        "chunked",
        "client_cert",
        "close",
        "content_length",
        "expects",
        "host",
        "lines",
        "names_upgrade",
        "proto",
        "strip",
        "upgrade",
        "xfcc",
    )

    def __init__(self, lines: bytes) -> None:
        self.lines = lines
        self.host = b""
        self.content_length = 0
        self.chunked = False
        self.close = False
        self.upgrade = False  # to a WebSocket
        self.names_upgrade = False  # in Connection
        self.expects = False
        self.proto = False  # X-Forwarded-Proto
        self.xfcc = False
        self.client_cert: frozenset[bytes] | None = None  # how Client-Cert and Client-Cert-Chain are spelt, if at all
        self.strip: frozenset[bytes] | None = None  # fields that must not be passed on


class RequestHead(_Said):
    """A request's head. A decision may change all of it but how its body is framed."""

    __slots__ = ("_fields", "method", "target")

    def __init__(self, method: str, target: bytes, said: _Said) -> None:
        self.method = method
        self.target = target
        self.lines = said.lines
        self.host = said.host
        self.content_length = said.content_length
        self.chunked = said.chunked
        self.close = said.close
        self.upgrade = said.upgrade
        self.names_upgrade = said.names_upgrade
        self.expects = said.expects
        self.proto = said.proto
        self.xfcc = said.xfcc
        self.client_cert = said.client_cert
        self.strip = said.strip
        self._fields: dict[str, list[str]] | None = None

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> str:
        """Return the query without its `?`."""
        return self.target.partition(b"?")[2].decode("latin-1")

    def get_all(self, name: str) -> Sequence[str]:
        """Return the values of a field (lower case), trimmed; also `host`, `:authority`, `:method`, `:path`."""
        if self._fields is None:
            self._fields = _fields_of(self.lines)
            self._fields[":authority"] = self._fields.get("host", [])
            self._fields[":method"] = [self.method]
            self._fields[":path"] = [self.target.decode("latin-1")]
        return self._fields.get(name, ())

    def change(self, lines: bytes) -> None:
        """Put other field lines in the place of these; what is asked from now on is asked of them."""
        self.lines = lines
        self._fields = None

    def end_hop(self) -> None:
        """Take out what must not be passed on: what is added from now on is, whatever the caller's Connection names."""
        if self.strip:
            self.change(without(self.lines, self.strip))
            self.strip = None

    def render(self, extra: bytes = b"", drop: frozenset[bytes] = frozenset()) -> bytes:
        """Return the head as it goes on: without hop-by-hop fields and `drop`, with `extra` lines at the end."""
        names = self.strip | drop if self.strip else drop
        lines = without(self.lines, names) if names else self.lines
        if self.upgrade:
            extra += b"connection: Upgrade\r\nupgrade: websocket\r\n"
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (self.method.encode(), self.target, lines, extra)


def _fields_of(lines: bytes) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in _ALL_FIELDS.findall(lines):
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip(" \t"))
    return fields


@functools.lru_cache(maxsize=256)
def _lines_named(names: frozenset[bytes]) -> re.Pattern[bytes]:
    return re.compile(rb"\n(?i:" + b"|".join(sorted(map(re.escape, names))) + rb"):[^\r\n]*\r(?=\n)")


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Return the lines without every field of these (lower case) names."""
    if len(names) <= _FEW and len(b"".join(names)) <= _SHORT:
        return _lines_named(names).sub(b"", b"\n" + lines)[1:]  # what begins with one letter is found fastest
    # A caller may name thousands in Connection, or one of 60 KB: such a pattern takes the loop's time to compile.
    kept = [line for line in lines.split(b"\r\n") if line.partition(b":")[0].lower() not in names]
    return b"\r\n".join(kept)


def looks_wrong(partial: bytes) -> bool:
    """Return whether an incomplete head can never become a good one, so that nobody waits for its end."""
    return partial.count(b"\n") != partial.count(b"\r\n")  # asked at every byte of a slow head: a pattern costs tenfold


def names_a_host(value: bytes) -> bool:
    """Return whether a Host is a `host [":" port]` (RFC 9110 section 7.2), or empty."""
    return _known_host(value) if len(value) <= _LONGEST_HOST else _HOST.fullmatch(value) is not None


@functools.lru_cache(maxsize=1024)
def _known_host(value: bytes) -> bool:
    return not value or _HOST.fullmatch(value) is not None


def parse_request(head: bytes) -> RequestHead:
    """Return the head in `head`, which ends with the empty line. Raise BadHead for what is not passed on."""
    first, _, lines = head.partition(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3:  # noqa: PLR2004 - method, target, version
        raise BadHead(426, "http_0.9") if _OLD_REQUEST_LINE.fullmatch(first) else BadHead(400, "bad_request_line")
    _check_with_llhttp(head, words)
    lines = lines[:-2]
    said = _known_fields(lines) if len(lines) <= _KNOWN_SIZE else _read_fields(lines)
    request = RequestHead(words[0].decode(), words[1], said)
    if request.upgrade and (request.method != "GET" or request.chunked or request.content_length):
        raise BadHead(400, "upgrade_with_body")  # RFC 6455 section 4.1: nobody sends a body and a tunnel in one
    if not request.target.startswith(b"/"):
        _settle_target(request)
    return request


def _read_fields(lines: bytes) -> _Said:  # noqa: C901, PLR0912 - one branch a field: a table
    """Return what they say, for every request that has them: callers send the same ones under another line."""
    said = _Said(lines)
    hosts = framings = 0
    for name, value in _REQUEST_FIELDS.findall(b"\r\n" + lines):
        match name.lower():
            case b"host":
                hosts += 1
                said.host = value.rstrip(b" \t")
            case b"connection" if value.lower() == b"keep-alive":  # what most callers say, and no more
                said.strip = said.strip | _CONNECTION if said.strip else _CONNECTION
            case b"content-length":
                framings += 1
                said.content_length = _length(value, 400)
            case b"transfer-encoding":
                framings += 1
                if value.strip(b" \t").lower() != b"chunked":
                    raise BadHead(501, "transfer_encoding")
                said.chunked = True
            case b"x-forwarded-client-cert":
                said.xfcc = True
            case b"x-forwarded-proto":
                said.proto = True
            case lowered if lowered.startswith(b"client"):
                said.client_cert = (said.client_cert or frozenset()) | {lowered}
            case lowered:
                _hop_by_hop(said, lowered, value)
    if hosts != 1:
        raise BadHead(400, "no_host" if hosts == 0 else "two_hosts")
    if framings > 1:
        raise BadHead(400, "two_framings")
    if not names_a_host(said.host):
        raise BadHead(400, "bad_host")
    if not said.names_upgrade:
        said.upgrade = False  # RFC 9110 section 7.8: the field came by mistake
    return said


_known_fields = functools.lru_cache(maxsize=_KNOWN)(_read_fields)


def _length(value: bytes, status: int) -> int:
    if len(value) > _MAX_LENGTH_DIGITS:
        raise BadHead(status, "content_length")
    return int(value)


def _check_with_llhttp(head: bytes, words: list[bytes]) -> None:
    if words[2] != b"HTTP/1.1":
        raise BadHead(426 if words[2] in {b"HTTP/1.0", b"HTTP/0.9"} else 400, "http_version")
    if head[0] < _FIRST_LETTER:  # llhttp reads over line ends before a method, which then is one that no rule knows
        raise BadHead(400, "bad_request_line")
    if words[0] == b"CONNECT":
        raise BadHead(404, "connect")
    if len(head) > MAX_HEAD or head.count(b"\n") > MAX_FIELDS + 2:
        raise BadHead(431, "head_too_large")
    try:
        httptools.HttpRequestParser(_SINK).feed_data(head)
    except httptools.HttpParserUpgrade:
        return
    except httptools.HttpParserError as error:
        # A transfer coding that llhttp does not know is for us to answer: 501, not 400.
        unknown_coding = b"transfer-encoding" in head.lower() and "Transfer-Encoding" in str(error)
        if unknown_coding and b"content-length" not in head.lower():
            raise BadHead(501, "transfer_encoding") from error
        raise BadHead(400, "malformed") from error


def _hop_by_hop(said: _Said, name: bytes, value: bytes) -> None:
    """Act on a field that concerns this hop alone, and keep it from the next."""
    strip = {name}
    tokens = {token.strip().lower() for token in value.split(b",")}
    match name:
        case b"connection":
            said.close = said.close or b"close" in tokens
            if tokens & _PROTECTED:
                raise BadHead(400, "connection_names_protected_field")
            said.names_upgrade = said.names_upgrade or b"upgrade" in tokens
            strip |= tokens - {b"", b"close", b"keep-alive"}
        case b"te":
            if tokens == {b"trailers"}:
                return
        case b"upgrade":
            if tokens == {b"websocket"}:
                said.upgrade = True
            elif tokens != {b"h2c"}:  # an offer of h2c is simply not taken up
                raise BadHead(403, "upgrade")
        case b"expect":
            if tokens != {b"100-continue"}:
                raise BadHead(417, "expect")
            said.expects = True
    said.strip = (said.strip or frozenset()) | strip


def _settle_target(request: RequestHead) -> None:
    """Bring the target to origin form (RFC 9112 section 3.2)."""
    target = request.target
    if target == b"*":
        raise BadHead(404, "asterisk_form")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadHead(400, "bad_target")
    if not names_a_host(absolute[1]):
        raise BadHead(400, "bad_host")
    rest = absolute[2]  # with no user before the host, which nobody may send (RFC 9110 section 4.2.4), and no fragment
    request.target = rest if rest.startswith(b"/") else b"/" + rest
    request.host = absolute[1]
    request.lines = b"Host: %b\r\n%b" % (absolute[1], without(request.lines, frozenset({b"host"})))


class ResponseHead:
    """A response's head. `lines` are all field lines, each ending in CRLF.

    It is never changed: an app gives the same head again and again, and `parse_response` the same object for it.
    """

    __slots__ = ("_lines", "_rendered", "chunked", "close", "content_length", "first", "status", "strip")

    def __init__(self, status: int, first: bytes, lines: bytes) -> None:
        self.status = status
        self.first = first  # the status line without CRLF
        self._lines = lines
        self._rendered = b""
        self.content_length: int | None = None
        self.chunked = False
        self.close = False
        self.strip: frozenset[bytes] | None = None

    @property
    def lines(self) -> bytes:
        """Return all field lines."""
        return self._lines

    def with_lines(self, lines: bytes) -> ResponseHead:
        """Return a head with other field lines in the place of these, and the same framing."""
        changed = ResponseHead(self.status, self.first, lines)
        changed.content_length = self.content_length
        changed.chunked = self.chunked
        changed.close = self.close
        changed.strip = self.strip
        return changed

    def render(self, extra: bytes = b"") -> bytes:
        """Return the head as it goes on, with `extra` lines at the end."""
        if self._rendered and not extra:
            return self._rendered
        lines = without(self._lines, self.strip) if self.strip else self._lines
        rendered = b"%b\r\n%b%b\r\n" % (self.first, lines, extra)
        if not extra:
            self._rendered = rendered
        return rendered


@functools.lru_cache(maxsize=256)
def _is_status_line(line: bytes) -> bool:
    """Return whether it is one by RFC 9112 section 4: llhttp takes a status of 099, and NUL in the reason."""
    return _STATUS_LINE.fullmatch(line) is not None


def parse_response(head: bytes) -> ResponseHead:
    """Return the head in `head`, which ends with the empty line. Raise BadHead (502) for a malformed one."""
    return _known_response(head) if len(head) <= _KNOWN_SIZE else _read_response(head)


def _read_response(head: bytes) -> ResponseHead:
    first, _, lines = head.partition(b"\r\n")
    if len(head) > MAX_HEAD:
        raise BadHead(502, "head_too_large")
    parser = httptools.HttpResponseParser(_SINK)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadHead(502, "malformed") from error
    if not _is_status_line(first):
        raise BadHead(502, "status_line")
    old = first.startswith(b"HTTP/1.0 ")
    response = ResponseHead(parser.get_status_code(), b"HTTP/1.1" + first[8:] if old else first, lines[:-2])
    response.close = old
    framings = 0
    for name, value in _RESPONSE_FIELDS.findall(head):
        framings += _response_field(response, name.lower(), value)
    if framings > 1:
        raise BadHead(502, "two_framings")
    if framings and (response.status < 200 or response.status == _NO_CONTENT):  # noqa: PLR2004 - informational
        _without_body(response)
    return response


_known_response = functools.lru_cache(maxsize=_KNOWN)(_read_response)


def _without_body(response: ResponseHead) -> None:
    """Refuse the framing of a body that cannot be there (RFC 9112 section 6.3): some next hop might wait for it."""
    if response.chunked or response.content_length:
        raise BadHead(502, "body_not_allowed")
    response.strip = (response.strip or frozenset()) | {b"content-length"}


def _response_field(response: ResponseHead, name: bytes, value: bytes) -> bool:
    """Act on a field; return whether it frames the body."""
    match name:
        case b"content-length":
            response.content_length = _length(value, 502)
            return True
        case b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked":
                raise BadHead(502, "transfer_encoding")
            response.chunked = True
            return True
        case b"upgrade" if response.status == 101:  # noqa: PLR2004
            return False
    strip = {name}
    if name == b"connection":
        tokens = {token.strip().lower() for token in value.split(b",")}
        response.close = response.close or b"close" in tokens
        strip |= tokens - _PROTECTED - {b"", b"close", b"keep-alive", b"upgrade"}
    response.strip = (response.strip or frozenset()) | strip
    return False
