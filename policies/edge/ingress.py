"""The `ingress-gateway` config entry and the services that it exposes.

The entry says listeners, hosts and header changes; `GET /v1/catalog/gateway-services/:name` says which services a
wildcard stands for. Explicit services of the entry always win over rows of the catalog: the catalog is known to
replace an explicit row by the wildcard's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from policies.edge.ingress_tls import EntryTls, parse_entry_tls
from policies.limits import DEFAULT_LIMITS, Limits, ingress_limits
from policies.outliers import DEFAULT_HEALTH, PassiveHealth, ingress_passive_health
from policies.routes import HeaderModifiers, parse_modifiers
from policies.weak import items, mapping

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class ExposedService:
    """One service of a listener. No hosts means the default ones, `<service>.ingress.*`.

    `limited`: it has limits or passive health of its own, so that it shares no circuit with other listeners.
    """

    name: str
    hosts: tuple[str, ...] = ()
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None
    limits: Limits = DEFAULT_LIMITS
    passive_health: PassiveHealth = DEFAULT_HEALTH
    limited: bool = False


@dataclass(frozen=True, slots=True)
class EntryListener:
    """One listener of the entry."""

    port: int
    protocol: str
    services: tuple[ExposedService, ...]
    tls: EntryTls | None = None


@dataclass(frozen=True, slots=True)
class IngressEntry:
    """The entry."""

    name: str
    listeners: tuple[EntryListener, ...]


@dataclass(frozen=True, slots=True)
class GatewayService:
    """A row of gateway-services: a service exposed on a port, maybe by wildcard."""

    service: str
    port: int
    protocol: str


def parse_ingress(entry: Mapping[str, Any] | None) -> IngressEntry:
    """Return the entry; None (404) exposes nothing."""
    body = mapping(entry)
    tls, defaults = mapping(body.get("TLS")), mapping(body.get("Defaults"))
    return IngressEntry(
        name=str(body.get("Name") or ""),
        listeners=tuple(_listener(mapping(row), defaults, tls) for row in items(body.get("Listeners"))),
    )


def _listener(row: Mapping[str, Any], defaults: Mapping[str, Any], tls: Mapping[str, Any]) -> EntryListener:
    services = [mapping(service) for service in items(row.get("Services"))]
    return EntryListener(
        port=int(row.get("Port") or 0),
        protocol=str(row.get("Protocol") or "tcp").lower(),
        services=tuple(_service(service, defaults) for service in services),
        tls=parse_entry_tls(tls, row.get("TLS"), services),
    )


_OWN_CIRCUIT = ("MaxConnections", "MaxPendingRequests", "MaxConcurrentRequests", "PassiveHealthCheck")


def _service(row: Mapping[str, Any], defaults: Mapping[str, Any]) -> ExposedService:
    return ExposedService(
        name=str(row.get("Name") or ""),
        hosts=tuple(str(host).lower() for host in items(row.get("Hosts"))),
        request_headers=parse_modifiers(row.get("RequestHeaders")),
        response_headers=parse_modifiers(row.get("ResponseHeaders")),
        limits=ingress_limits(defaults, row),
        passive_health=ingress_passive_health(defaults, row),
        limited=any(row.get(field) for field in _OWN_CIRCUIT),
    )


def parse_gateway_services(rows: Iterable[object]) -> tuple[GatewayService, ...]:
    """Return the rows, sorted."""
    parsed = {
        GatewayService(
            service=str(mapping(row.get("Service")).get("Name") or ""),
            port=int(row.get("Port") or 0),
            protocol=str(row.get("Protocol") or "tcp").lower(),
        )
        for row in map(mapping, rows)
    }
    return tuple(sorted(parsed, key=lambda row: (row.port, row.service)))


def exposed(listener: EntryListener, rows: Iterable[GatewayService]) -> tuple[ExposedService, ...]:
    """Return the services of a listener, each once: the explicit ones, then those that a wildcard stands for."""
    named = {service.name: service for service in listener.services if service.name != WILDCARD}
    wildcard = next((service for service in listener.services if service.name == WILDCARD), None)
    if wildcard is None:
        return tuple(named.values())
    for row in rows:
        if row.port == listener.port and row.service not in named and row.service not in {"", WILDCARD}:
            named[row.service] = replace(wildcard, name=row.service, hosts=())
    return tuple(named.values())


# --- circuits ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExposedCircuit:
    """What is counted against one set of limits. `suffix` is what tells its targets from others of the service."""

    service: str
    limits: Limits
    passive_health: PassiveHealth
    suffix: str


def outbound_key(service: ExposedService, port: int) -> str:
    """Return the key into the table's outbounds of what an exposed service leads to.

    Consul gives Envoy one cluster a service, with the limits of any of its listeners. Here one with limits of its own
    has them for its listener alone, and others do not change them by coming and going.
    """
    return f"{service.name}@{port}" if service.limited else service.name


def exposed_circuits(entry: IngressEntry | None, rows: Iterable[GatewayService] | None) -> dict[str, ExposedCircuit]:
    """Return what the listeners of an entry lead to, by the keys of outbounds."""
    found: dict[str, ExposedCircuit] = {}
    for listener in entry.listeners if entry is not None and rows is not None else ():
        for service in exposed(listener, rows or ()):
            key = outbound_key(service, listener.port)
            suffix = key.removeprefix(service.name)
            found.setdefault(key, ExposedCircuit(service.name, service.limits, service.passive_health, suffix))
    return found
