"""What a gateway does with every request before it is routed: limits, and the fields about whom it is from.

Rules that match on such a field, here and at the service, see what the gateway found, never what a caller claims.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from typing import TYPE_CHECKING, cast

from dataplane.edge.guests import Guest, Reception
from dataplane.exchange import Decide, Forward, Reply
from dataplane.heads import without
from policies.edge.forwarding import (
    Forwarding,
    client_chain,
    forwarded_value,
    is_request_id,
    is_traceparent,
)
from policies.edge.rate_limit import TokenBuckets, address_key

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.heads import RequestHead
    from dataplane.plans import Each, Plan
    from policies.protection import Protection

# Of whoever is not trusted; with `_` too, since to a CGI or WSGI app both are one name.
_CLAIMS = re.compile(
    rb"(?im)^(?:x[-_]forwarded[-_](?:for|proto|host|port|prefix|by|server|ssl|scheme)|forwarded|x[-_]real[-_]ip"
    rb"|x[-_]envoy[-_][^:\r\n]*|x[-_]request[-_]id|traceparent|tracestate):[^\r\n]*\r\n"
)
_CHAIN = re.compile(rb"(?im)^x[-_]forwarded[-_](?:for|proto|host):[^\r\n]*\r\n")
_FORWARDED = re.compile(rb"(?im)^forwarded:[^\r\n]*\r\n")
_REQUEST_ID = re.compile(rb"(?im)^x[-_]request[-_]id:[^\r\n]*\r\n")
_TRACE = re.compile(rb"(?im)^(?:traceparent|tracestate):[^\r\n]*\r\n")
_OURS = frozenset({b"forwarded"})  # the others nobody may name in Connection, or are written behind the rest
_XFCC = frozenset({b"x-forwarded-client-cert"})
_CERTIFICATE = frozenset({b"client-cert"})
_SCHEMES = frozenset({"http", "https"})
_BLOCK = 4096  # bytes of randomness that are fetched at once
_NO_TRACE, _NO_PARENT = "0" * 32, "0" * 16
_TOO_LARGE = Reply(413, "body_too_large", b"Payload Too Large")


def edge_decider(decide: Decide, reception: Reception) -> Decide:
    """Return the decision with the gateway's own part before it."""
    settings = reception.settings.forwarding

    def forwarded(downstream: Downstream, head: RequestHead) -> Forward | Reply:
        forward(cast("Guest", downstream.keeper), head, "https" if downstream.tls else "http", settings)
        _certify(head, downstream.caller_lines)
        return decide(downstream, head)

    return forwarded


def each_request(reception: Reception) -> Each | None:
    """Return what is asked for every request, also for one whose decision is known; None: nothing."""
    limits = _Limits(reception) if _limits_requests(reception.settings.protection) else None
    ids = Ids(reception.settings.forwarding)
    if limits is None and not ids.wanted:
        return None

    def each(downstream: Downstream, plan: Plan) -> tuple[Forward | Reply, bytes]:
        guest = cast("Guest", downstream.keeper)
        if limits is not None and (refusal := limits.refuse(downstream, guest, plan.head)) is not None:
            return refusal, b""
        if not plan.request or not ids.wanted:
            return plan.decision, plan.request
        return plan.decision, b"%b%b\r\n" % (plan.request[:-2], ids.lines(guest, plan.head))

    return each


# --- limits --------------------------------------------------------------------------------------------------------


def _limits_requests(protection: Protection) -> bool:
    return bool(
        protection.max_body
        or protection.max_requests_per_connection
        or protection.per_address
        or protection.per_identity
    )


class _Limits:
    """Limits that are counted by requests."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._protection = protection = reception.settings.protection
        self._addresses = TokenBuckets(protection.per_address) if protection.per_address else None
        self._identities = TokenBuckets(protection.per_identity) if protection.per_identity else None

    def refuse(self, downstream: Downstream, guest: Guest, head: RequestHead) -> Reply | None:
        """Return the refusal of a request that is one too many, or too large. Its fields are the gateway's by now."""
        protection = self._protection
        guest.requests += 1
        if guest.requests == protection.max_requests_per_connection:
            downstream.last()
        if self._addresses is not None:
            said = head.get_all("x-forwarded-for") if guest.trusted else ()  # a route may have taken it away
            client = said[0].partition(",")[0] if said else guest.client[0]
            if wait := self._addresses.take(address_key(client), self._reception.now):
                return self._too_many("rate_limit_address", guest, wait)
        identity = _identity(downstream) if self._identities is not None else ""
        if self._identities is not None and identity and (wait := self._identities.take(identity, self._reception.now)):
            return self._too_many("rate_limit_identity", guest, wait)
        if protection.max_body and head.content_length > protection.max_body:
            self._reception.tell("body_too_large", guest)
            return _TOO_LARGE
        return None

    def _too_many(self, reason: str, guest: Guest, wait: float) -> Reply:
        self._reception.tell(reason, guest)
        return Reply(429, reason, b"Too Many Requests", b"retry-after: %d\r\n" % math.ceil(wait))


def _identity(downstream: Downstream) -> str:
    """Return who a caller has proved to be, "" if it has not: of the mesh by its name, since leaves come and go."""
    if downstream.peer is not None:
        return str(downstream.peer.spiffe_id)
    return hashlib.sha256(downstream.peer_certificate).hexdigest() if downstream.peer_certificate else ""


# --- who it is from ------------------------------------------------------------------------------------------------


def forward(guest: Guest, head: RequestHead, scheme: str, settings: Forwarding) -> None:
    """Take claims off a head and write what is known."""
    if settings.forwarded and head.strip is not None:
        head.strip -= _OURS  # the caller's Connection may name its own, which is replaced anyway
    if guest.trusted:
        _from_trusted(guest, head, scheme, settings)
        return
    client, host = guest.client[0], head.host.decode("latin-1")
    lines = _CLAIMS.sub(b"", head.lines)
    lines += _field("x-forwarded-for", client) + _field("x-forwarded-proto", scheme) + _field("x-forwarded-host", host)
    if settings.forwarded:
        lines += _field("forwarded", forwarded_value((client,), host, scheme))
    head.change(lines)
    head.proto = True


def _from_trusted(guest: Guest, head: RequestHead, scheme: str, settings: Forwarding) -> None:
    asked = head.get_all
    chain = client_chain(asked("x-forwarded-for"), guest.client[0], settings.trusted_proxies)
    protos, hosts = asked("x-forwarded-proto"), asked("x-forwarded-host")
    proto = protos[0].lower() if len(protos) == 1 and protos[0].lower() in _SCHEMES else scheme
    host = hosts[0] if len(hosts) == 1 and hosts[0] else head.host.decode("latin-1")
    lines = _CHAIN.sub(b"", head.lines)
    if settings.request_id and not is_request_id(asked("x-request-id")):
        lines = _REQUEST_ID.sub(b"", lines)
    if settings.traceparent and not is_traceparent(asked("traceparent")):
        lines = _TRACE.sub(b"", lines)
    lines += _field("x-forwarded-for", ", ".join(chain)) + _field("x-forwarded-proto", proto)
    lines += _field("x-forwarded-host", host)
    if settings.forwarded:
        lines = _FORWARDED.sub(b"", lines) + _field("forwarded", forwarded_value(chain, host, proto))
    head.change(lines)
    head.proto = True


def _certify(head: RequestHead, lines: bytes) -> None:
    """Put what is known of the caller's certificate in the place of what it claims, whoever it is."""
    claims = (head.client_cert or frozenset()) | (_XFCC if head.xfcc else frozenset())
    if claims or lines:
        head.change((without(head.lines, claims) if claims else head.lines) + lines)
    if lines and head.strip is not None:
        head.strip -= _CERTIFICATE
    head.client_cert, head.xfcc = None, False


class Ids:
    """Request ids and the beginnings of traces, which are new for every request that brings none from a trusted proxy.

    They stand behind all other fields, so a route's header changes do not see them.
    """

    def __init__(self, settings: Forwarding) -> None:
        self._settings = settings
        self.wanted = settings.request_id or settings.traceparent
        self._random = ""  # hexadecimal digits, and how many of them have been used
        self._used = 0
        self._sampled = round(settings.sampled * 655.36)  # of 65536

    def lines(self, guest: Guest, head: RequestHead) -> bytes:
        """Return the lines that a head still lacks."""
        lacks_id, lacks_trace = self._settings.request_id, self._settings.traceparent
        if guest.trusted:  # from others the fields were taken
            lacks_id = lacks_id and not head.get_all("x-request-id")
            lacks_trace = lacks_trace and not head.get_all("traceparent")
        return (self._new_request_id() if lacks_id else b"") + (self._new_traceparent() if lacks_trace else b"")

    def _digits(self, count: int) -> str:
        """Return hexadecimal digits that nobody can guess."""
        end = self._used + count
        if end > len(self._random):
            self._random, end = os.urandom(_BLOCK).hex(), count
        self._used = end
        return self._random[end - count : end]

    def _new_request_id(self) -> bytes:
        """Return a random UUID (RFC 9562 section 5.4)."""
        d = self._digits(32)
        variant = "89ab"[int(d[16], 16) & 3]
        return f"x-request-id: {d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}\r\n".encode()

    def _new_traceparent(self) -> bytes:
        """Return the beginning of a trace (W3C Trace Context section 3.2)."""
        d = self._digits(52)
        trace, parent = d[:32], d[32:48]
        if trace == _NO_TRACE or parent == _NO_PARENT:
            return self._new_traceparent()
        return f"traceparent: 00-{trace}-{parent}-0{int(int(d[48:], 16) < self._sampled)}\r\n".encode()


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1")
