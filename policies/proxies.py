"""A proxy's own registration, as its agent returns it with central configuration merged in.

Source: `GET /v1/agent/service/:id`. `Proxy.Config` and each upstream's `Config` are opaque to Consul: keys come in any
case, values weakly typed, unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.errors import EntryError, Problem
from policies.limits import DEFAULT_LIMITS, Limits, parse_limits
from policies.outliers import DEFAULT_HEALTH, PassiveHealth, parse_passive_health
from policies.retries import DEFAULT_RETRIES, RetrySettings, parse_retry_settings
from policies.unmet import unmet
from policies.weak import Opaque, items, mapping

DEFAULT_CONNECT_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class UpstreamStanza:
    """One upstream of a registration. `key` names it: `api`, or `api?dc=dc2` for another datacenter."""

    key: str
    service: str
    datacenter: str
    bind_address: str
    bind_port: int
    protocol: str
    connect_timeout_ms: int
    limits: Limits = DEFAULT_LIMITS
    passive_health: PassiveHealth = DEFAULT_HEALTH
    retries: RetrySettings = DEFAULT_RETRIES
    forward_proxy: bool = False  # its listener is one for the app, and the service a terminating gateway


@dataclass(frozen=True, slots=True)
class Registration:
    """A `connect-proxy` or gateway as registered. `service` is the identity: the destination, or the gateway itself."""

    proxy_id: str
    kind: str
    service: str
    service_id: str
    datacenter: str
    address: str
    port: int
    local_address: str
    local_port: int
    protocol: str
    bind_address: str
    bind_port: int
    local_connect_timeout: float
    local_request_timeout: float | None
    local_idle_timeout: float | None
    max_inbound_connections: int
    upstreams: tuple[UpstreamStanza, ...]
    problems: tuple[Problem, ...]
    retries: RetrySettings = DEFAULT_RETRIES  # of upstreams that say nothing themselves
    gateway_addresses: tuple[str, ...] = ()  # that a gateway listens on
    strict_dns: bool = False  # of a terminating gateway: see `host_names`
    forward_proxy: bool = False  # the same: see `forward_proxy`
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT  # the same, where the resolver of a linked service has none


def parse_registration(answer: Mapping[str, Any]) -> Registration:
    """Return the registration. Raise EntryError when it is no proxy that can be run."""
    kind, proxy_id = str(answer.get("Kind") or ""), str(answer.get("ID") or "")
    proxy = mapping(answer.get("Proxy"))
    gateway = kind.endswith("-gateway")
    service = str((answer.get("Service") if gateway else proxy.get("DestinationServiceName")) or "")
    if kind != "connect-proxy" and not gateway:
        message = f"service {proxy_id} is of kind {kind or 'typical'!r}, expected connect-proxy or a gateway"
        raise EntryError(message)
    if not service:
        message = f"proxy {proxy_id} names no destination service"
        raise EntryError(message)
    config = Opaque(proxy.get("Config"))
    problems: list[Problem] = []
    address, port = str(answer.get("Address") or ""), int(answer.get("Port") or 0)
    retries = parse_retry_settings(config)
    to_app, to_outside = config.number("local_connect_timeout_ms", 0), config.number("connect_timeout_ms", 0)
    request_timeout = config.number("local_request_timeout_ms", 0)
    idle_timeout = config.number("local_idle_timeout_ms", 300_000)
    bind_address = config.text("bind_address", address or "0.0.0.0")  # noqa: S104 - Consul's documented default
    return Registration(
        proxy_id=proxy_id,
        kind=kind,
        service=service,
        service_id=str(proxy.get("DestinationServiceID") or ""),
        datacenter=str(answer.get("Datacenter") or ""),
        address=address,
        port=port,
        local_address=str(proxy.get("LocalServiceAddress") or "127.0.0.1"),
        local_port=int(proxy.get("LocalServicePort") or 0),
        protocol=config.text("protocol", "tcp").lower(),
        bind_address=bind_address,
        bind_port=int(config.number("bind_port", port)),
        local_connect_timeout=_connect_timeout(to_app),
        local_request_timeout=request_timeout / 1000 if request_timeout > 0 else None,
        local_idle_timeout=idle_timeout / 1000 if idle_timeout > 0 else None,
        max_inbound_connections=max(0, int(config.number("max_inbound_connections", 0))),
        upstreams=_upstreams(proxy_id, items(proxy.get("Upstreams")), retries, problems),
        retries=retries,
        gateway_addresses=_gateway_addresses(config, bind_address, mapping(answer.get("TaggedAddresses"))),
        problems=(*problems, *unmet(proxy_id, proxy)),
        forward_proxy=config.flag("forward_proxy"),
        connect_timeout=_connect_timeout(to_outside),
        strict_dns=config.text("envoy_dns_discovery_type").upper() == "STRICT_DNS",
    )


def _connect_timeout(milliseconds: float) -> float:
    """Return seconds; what is below a millisecond is not set."""
    return milliseconds / 1000 if milliseconds >= 1 else DEFAULT_CONNECT_TIMEOUT


def _gateway_addresses(config: Opaque, bind_address: str, tagged: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the addresses that a gateway's listeners are opened on, each once."""
    rows = tuple(tagged.values()) if config.flag("envoy_gateway_bind_tagged_addresses") else ()
    rows += config.part("envoy_gateway_bind_addresses").values()
    found = (Opaque(row).text("address") for row in rows)
    default = () if config.flag("envoy_gateway_no_default_bind") else (bind_address,)
    return tuple(dict.fromkeys((*default, *filter(None, found))))


def _upstreams(
    proxy_id: str, rows: tuple[Any, ...], retries: RetrySettings, problems: list[Problem]
) -> tuple[UpstreamStanza, ...]:
    stanzas = []
    for position, row in enumerate(map(mapping, rows)):
        where = f"{proxy_id} Upstreams[{position}] {row.get('DestinationName') or ''}".rstrip()
        refusal = _unsupported(row)
        if refusal:
            problems.append(Problem(where, *refusal))
        else:
            stanzas.append(_stanza(row, retries))
    return tuple(stanzas)


def _unsupported(row: Mapping[str, Any]) -> tuple[str, str] | None:
    if row.get("DestinationType") not in {None, "", "service"}:
        return f"destination type {row.get('DestinationType')} is not supported", "name a service"
    if row.get("DestinationPeer"):
        return "cluster peering is not supported", "name a service of this cluster"
    if row.get("Datacenter") and Opaque(row.get("Config")).flag("forward_proxy"):
        return "a forward proxy of another datacenter is not supported", "name the gateway of this one"
    if row.get("LocalBindSocketPath"):
        return "a unix socket as upstream listener is not supported", "set LocalBindPort"
    if not row.get("DestinationName"):
        return "DestinationName is missing", "name the service to call"
    return None


def _stanza(row: Mapping[str, Any], retries: RetrySettings) -> UpstreamStanza:
    service, datacenter = str(row["DestinationName"]), str(row.get("Datacenter") or "")
    config = Opaque(row.get("Config"))
    return UpstreamStanza(
        key=f"{service}?dc={datacenter}" if datacenter else service,
        service=service,
        datacenter=datacenter,
        bind_address=str(row.get("LocalBindAddress") or "127.0.0.1"),
        bind_port=int(row.get("LocalBindPort") or 0),
        protocol=config.text("protocol").lower(),
        connect_timeout_ms=int(config.number("connect_timeout_ms", 0)),
        limits=parse_limits(config),
        passive_health=parse_passive_health(config),
        retries=parse_retry_settings(config, retries),
        forward_proxy=config.flag("forward_proxy"),
    )
