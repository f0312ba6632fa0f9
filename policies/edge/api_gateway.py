"""The `api-gateway` config entry, and which routes are bound to its listeners.

A route is bound to the listeners that it names, or to all, where protocol and host names agree. Listeners of one port
are one socket; of their routes, rules of one host are sorted together, whatever route they are of.
Consul writes its own reckoning of this into `bound-api-gateway` and into the status of routes. It is not read: it
comes later than the entries, and a wrong certificate or service in it would unbind routes that are well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.edge.http_routes import HttpRoute, MatchedRule, TcpRoute, precedence
from policies.errors import Problem
from policies.mesh import TlsLimits
from policies.weak import items, mapping

ANY_HOST = "*"
_INLINE = "inline-certificate"


@dataclass(frozen=True, slots=True)
class ApiListener:
    """A listener of the entry. `hostname` is plain, `*.suffix` or `*`; `certificates` are (kind, name), none: no TLS.

    `closed`: why nobody may come in.
    """

    name: str
    port: int
    protocol: str
    hostname: str = ANY_HOST
    certificates: tuple[tuple[str, str], ...] = ()
    limits: TlsLimits = field(default_factory=TlsLimits)
    closed: str = ""


@dataclass(frozen=True, slots=True)
class ApiGateway:
    """The entry."""

    name: str
    listeners: tuple[ApiListener, ...]


def parse_api_gateway(entry: Mapping[str, Any] | None) -> ApiGateway:
    """Return the entry; None (404) has no listener."""
    body = mapping(entry)
    listeners = tuple(_listener(mapping(row)) for row in items(body.get("Listeners")))
    return ApiGateway(str(body.get("Name") or ""), listeners)


def _listener(row: Mapping[str, Any]) -> ApiListener:
    tls = mapping(row.get("TLS"))
    certificates = tuple(
        (str(one.get("Kind") or _INLINE), str(one.get("Name") or ""))
        for one in map(mapping, items(tls.get("Certificates")))
    )
    return ApiListener(
        name=str(row.get("Name") or ""),
        port=int(row.get("Port") or 0),
        protocol=str(row.get("Protocol") or "tcp").lower(),
        hostname=str(row.get("Hostname") or ANY_HOST).lower(),
        certificates=certificates,
        limits=TlsLimits(
            minimum=str(tls.get("MinVersion") or ""),
            maximum=str(tls.get("MaxVersion") or ""),
            cipher_suites=tuple(str(suite) for suite in items(tls.get("CipherSuites"))),
        ),
        closed=_closed(row),
    )


def _closed(row: Mapping[str, Any]) -> str:
    for field_name in ("Default", "Override"):
        if mapping(row.get(field_name)).get("JWT") is not None:
            return f"its {field_name}.JWT is of Consul Enterprise and is not supported"
    return ""


# --- what is bound -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostRules:
    """The rules of one host of a port, in the order in which they are asked."""

    host: str
    rules: tuple[MatchedRule, ...]

    def services(self) -> frozenset[str]:
        """Return the services that any rule names."""
        return frozenset(service.name for matched in self.rules for service in matched.rule.services)


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A port with a route at least: `hosts` of http, or the one `service` of tcp."""

    port: int
    protocol: str
    listeners: tuple[ApiListener, ...]
    hosts: tuple[HostRules, ...] = ()
    service: str = ""

    def services(self) -> frozenset[str]:
        """Return the services that stand behind it."""
        return frozenset({self.service} if self.service else ()).union(*(host.services() for host in self.hosts))


@dataclass(frozen=True, slots=True)
class Bindings:
    """The ports of a gateway that are open, and why others are not."""

    ports: tuple[BoundPort, ...] = ()
    problems: tuple[Problem, ...] = ()

    def services(self) -> frozenset[str]:
        """Return the services that the gateway leads to."""
        return frozenset[str]().union(*(port.services() for port in self.ports))


def bind(gateway: ApiGateway, http_routes: Iterable[HttpRoute], tcp_routes: Iterable[TcpRoute]) -> Bindings:
    """Return what is bound to what. Routes come oldest first, as they are parsed."""
    http_routes, tcp_routes = tuple(http_routes), tuple(tcp_routes)
    ports: list[BoundPort] = []
    problems: list[Problem] = []
    for port, listeners in _by_port(gateway.listeners).items():
        where = f"api-gateway {gateway.name} listener {listeners[0].name}"
        refusal = _refusal(listeners)
        if refusal:
            problems.append(Problem(where, refusal, "it stays closed"))
        elif listeners[0].protocol == "http":
            hosts = _hosts(listeners, http_routes)
            ports += [BoundPort(port, "http", listeners, hosts)] if hosts else []
        else:
            bound = [route for route in tcp_routes if any(_names(route, listener) for listener in listeners)]
            ports += [BoundPort(port, "tcp", listeners, service=bound[0].service)] if bound else []
            problems += [Problem(where, f"tcp-route {route.name} is one too many", "left out") for route in bound[1:]]
    return Bindings(tuple(ports), tuple(problems))


def _by_port(listeners: Iterable[ApiListener]) -> dict[int, tuple[ApiListener, ...]]:
    found: dict[int, tuple[ApiListener, ...]] = {}
    for listener in listeners:
        found[listener.port] = (*found.get(listener.port, ()), listener)
    return found


def _refusal(listeners: tuple[ApiListener, ...]) -> str:
    protocols = sorted({listener.protocol for listener in listeners})
    if len(protocols) > 1 or protocols[0] not in {"http", "tcp"}:
        return f"its port speaks {' and '.join(protocols)}, expected http or tcp"
    return next((listener.closed for listener in listeners if listener.closed), "")


def _names(route: HttpRoute | TcpRoute, listener: ApiListener) -> bool:
    return bool(route.sections & {"", listener.name})


def _hosts(listeners: tuple[ApiListener, ...], routes: tuple[HttpRoute, ...]) -> tuple[HostRules, ...]:
    rules: defaultdict[str, list[MatchedRule]] = defaultdict(list)
    for route in routes:
        named = (listener for listener in listeners if _names(route, listener))
        for host in dict.fromkeys(host for listener in named for host in hosts_of(route, listener)):
            rules[host] += route.rules
    return tuple(HostRules(host, tuple(sorted(found, key=precedence))) for host, found in rules.items())


def hosts_of(route: HttpRoute, listener: ApiListener) -> tuple[str, ...]:
    """Return the hosts of a route that a listener has; a route without any takes the listener's.

    `*.example.com` has example.com too, as under Consul, but not badexample.com, which Consul lets in.
    """
    if not route.hostnames:
        return (listener.hostname,)
    return tuple(host for host in route.hostnames if _has(listener.hostname, host))


def _has(hostname: str, host: str) -> bool:
    if not hostname.startswith("*"):
        return host == hostname
    suffix = hostname[1:]
    return host.endswith(suffix) or host == suffix.removeprefix(".")
