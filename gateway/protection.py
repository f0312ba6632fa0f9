"""The YAML's `proxy_protocol`, `forwarding` and `protection`: whom a gateway believes, and how much it takes from one.

proxy_protocol:
  accept_from: [10.0.0.0/8]   # on these ports they must send a header, of version 1 or 2; nobody else may
  ports: [8080, 8443]
  send_to: [db]               # tcp services that are told the caller's address
  version: 2                  # of what is sent
forwarding:
  trusted_proxies: [10.0.0.0/8]   # whose X-Forwarded-For, request ids and traces are believed
  forwarded: false            # RFC 7239's field too
  request_id: true
  traceparent: true
  sampled: 100                # percent of the traces that begin here
protection:                   # 0 is no limit
  max_connections: 10000
  max_connections_per_address: 1000
  head_timeout: 10s
  idle_timeout: 60s
  min_rate: 500               # bytes a second over `slow_after`, of bodies and of answers
  slow_after: 20s
  max_body: 0                 # bytes
  max_requests_per_connection: 0
  rate_limit:
    per_address: {rate: 50, burst: 100}     # requests a second, and at once
    per_identity: {rate: 50, burst: 100}    # by the caller's certificate
"""

from __future__ import annotations

import ipaddress
import math

from policies.edge.forwarding import DEFAULT_FORWARDING, Forwarding, Networks
from policies.edge.proxy_protocol import NO_PROXY_PROTOCOL, ProxyProtocol
from policies.edge.rate_limit import Rate
from policies.errors import IdentityError
from policies.identity import parse_service_name
from policies.protection import DEFAULT_PROTECTION, Protection
from sidecar.yaml_reader import MAX_PORT, Section

_WHOLE = 100.0


def read_proxy_protocol(document: Section) -> ProxyProtocol:
    """Return who sends and gets PROXY headers."""
    block = document.section("proxy_protocol")
    version = block.text("version", str(NO_PROXY_PROTOCOL.version), choices=("1", "2"))
    settings = ProxyProtocol(
        accept_from=_networks(block, "accept_from"),
        ports=tuple(_ports(block)),
        send_to=block.texts("send_to"),
        version=int(version),
    )
    block.done()
    if bool(settings.accept_from) != bool(settings.ports):
        block.note("ports", "`accept_from` and `ports` are of no use without each other", "name both")
    for service in settings.send_to:
        try:
            parse_service_name(service)
        except IdentityError as error:
            block.note("send_to", str(error))
    return settings


def read_forwarding(document: Section) -> Forwarding:
    """Return what is said about callers, and who is believed."""
    block, default = document.section("forwarding"), DEFAULT_FORWARDING
    settings = Forwarding(
        trusted_proxies=_networks(block, "trusted_proxies"),
        forwarded=block.flag("forwarded", default=default.forwarded),
        request_id=block.flag("request_id", default=default.request_id),
        traceparent=block.flag("traceparent", default=default.traceparent),
        sampled=_decimal(block, "sampled", default.sampled),
    )
    block.done()
    if not 0 <= settings.sampled <= _WHOLE:
        block.note("sampled", f"{settings.sampled:g} is no percentage", "give 0 to 100")
    return settings


def read_protection(document: Section, default: Protection = DEFAULT_PROTECTION) -> Protection:
    """Return the limits; of what is not said, those of `default`."""
    block = document.section("protection")
    rates = block.section("rate_limit")
    settings = Protection(
        max_connections=_count(block, "max_connections", default.max_connections),
        max_connections_per_address=_count(block, "max_connections_per_address", default.max_connections_per_address),
        head_timeout=_timeout(block, "head_timeout", default.head_timeout),
        idle_timeout=_timeout(block, "idle_timeout", default.idle_timeout),
        min_rate=_count(block, "min_rate", default.min_rate),
        slow_after=_timeout(block, "slow_after", default.slow_after),
        max_body=_count(block, "max_body", default.max_body),
        max_requests_per_connection=_count(block, "max_requests_per_connection", default.max_requests_per_connection),
        per_address=_rate(rates, "per_address"),
        per_identity=_rate(rates, "per_identity"),
    )
    rates.done()
    block.done()
    return settings


def _networks(block: Section, key: str) -> Networks:
    found = []
    for text in block.texts(key):
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            block.note(key, str(error), "write 10.0.0.0/8, or one address")
    return tuple(found)


def _ports(block: Section) -> list[int]:
    found = []
    for text in block.texts("ports"):
        if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_PORT:
            found.append(int(text))
        else:
            block.note("ports", f"{text!r} is not a port", "give numbers from 1 to 65535")
    return found


def _count(block: Section, key: str, default: int) -> int:
    number = block.number(key, default)
    if number < 0:
        block.note(key, f"{number} is below 0", "0 is no limit")
    return number


def _timeout(block: Section, key: str, default: float) -> float:
    """Return seconds, infinitely many for 0."""
    seconds = block.duration(key, default)
    if seconds < 0:
        block.note(key, "is below 0", "0 is no limit")
    return seconds or math.inf


def _decimal(block: Section, key: str, default: float) -> float:
    text = block.text(key, f"{default:g}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        block.note(key, f"{text!r} is not a number")
        return default
    return number


def _rate(rates: Section, key: str) -> Rate | None:
    if not rates.has(key):
        return None
    block = rates.section(key)
    rate, burst = _decimal(block, "rate", 0.0), block.number("burst", 0)
    block.done()
    if rate <= 0:
        block.note("rate", "is not above 0", "give requests a second, such as 50 or 0.5")
        return None
    if burst < 0 or (block.has("burst") and not burst):
        block.note("burst", f"{burst} is below 1", "give how many requests may come at once")
        return None
    return Rate(rate, burst or max(1, math.ceil(rate)))
