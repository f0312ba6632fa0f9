"""What can be watched: one value for each question that Consul is asked again and again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RootsWatch:
    """`GET /v1/agent/connect/ca/roots`."""


@dataclass(frozen=True, slots=True)
class RegistrationWatch:
    """`GET /v1/agent/service/:id` by content hash: our own registration with central config merged in."""

    proxy_id: str


@dataclass(frozen=True, slots=True)
class IntentionsWatch:
    """`GET /v1/connect/intentions/match?by=destination`."""

    service: str


@dataclass(frozen=True, slots=True)
class DefaultActionWatch:
    """What the agent does where no intention matches: its effective default. Polled."""

    service: str


@dataclass(frozen=True, slots=True)
class MeshWatch:
    """`GET /v1/config/mesh/mesh`; 404 is normal."""


@dataclass(frozen=True, slots=True)
class ChainWatch:
    """`GET|POST /v1/discovery-chain/:service` with this upstream's overrides.

    `forward_proxy`: the service is a terminating gateway, whose own instances are meant (`OutsideWatch`).
    """

    upstream: str  # the key of the upstream
    service: str
    datacenter: str = ""
    protocol: str = ""
    connect_timeout_ms: int = 0
    forward_proxy: bool = False


@dataclass(frozen=True, slots=True)
class EndpointsWatch:
    """`GET /v1/health/connect/:service`, unfiltered."""

    service: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class IngressWatch:
    """`GET /v1/config/ingress-gateway/:name`."""

    name: str


@dataclass(frozen=True, slots=True)
class GatewayServicesWatch:
    """`GET /v1/catalog/gateway-services/:name`: wildcards expanded."""

    name: str


@dataclass(frozen=True, slots=True)
class TerminatingWatch:
    """`GET /v1/config/terminating-gateway/:name`."""

    name: str


@dataclass(frozen=True, slots=True)
class OutsideWatch:
    """`GET /v1/health/service/:service`, unfiltered: the instances of a service outside the mesh, or of a gateway."""

    service: str


@dataclass(frozen=True, slots=True)
class ResolverWatch:
    """`GET /v1/config/service-resolver/:service`, of a service outside; 404 is normal."""

    service: str


@dataclass(frozen=True, slots=True)
class DefaultsWatch:
    """`GET /v1/config/service-defaults/:service`, of a service outside; "" is proxy-defaults. 404 is normal."""

    service: str


@dataclass(frozen=True, slots=True)
class ApiGatewayWatch:
    """`GET /v1/config/api-gateway/:name`."""

    name: str


ROUTE_KINDS = ("http-route", "tcp-route")


@dataclass(frozen=True, slots=True)
class RoutesWatch:
    """`GET /v1/config/:kind`, all routes of a kind, of which those count that name this gateway as a parent."""

    kind: str
    gateway: str


EntryWatch = ApiGatewayWatch | MeshWatch | IngressWatch | TerminatingWatch | ResolverWatch | DefaultsWatch
Watch = (
    RootsWatch
    | RegistrationWatch
    | IntentionsWatch
    | DefaultActionWatch
    | ChainWatch
    | EndpointsWatch
    | GatewayServicesWatch
    | RoutesWatch
    | OutsideWatch
    | EntryWatch
)
UpstreamWatch = ChainWatch | EndpointsWatch | OutsideWatch | ResolverWatch | DefaultsWatch  # one or more an upstream


def name_of(watch: Watch) -> str:
    """Return a watch in words, for logs, readiness and problems."""
    match watch:
        case RootsWatch():
            return "CA roots"
        case RegistrationWatch(proxy_id):
            return f"registration {proxy_id}"
        case IntentionsWatch(service):
            return f"intentions of {service}"
        case DefaultActionWatch(service):
            return f"default action for {service}"
        case ChainWatch(upstream):
            return f"discovery chain of {upstream}"
        case EndpointsWatch(service, datacenter):
            return f"instances of {service}{' in ' + datacenter if datacenter else ''}"
        case GatewayServicesWatch(name):
            return f"services of gateway {name}"
        case RoutesWatch(kind, gateway):
            return f"entries of kind {kind} for {gateway}"
        case OutsideWatch(service):
            return f"instances of {service} by name"
        case _:
            return _name_of_entry(watch)


def _name_of_entry(watch: EntryWatch) -> str:
    match watch:
        case MeshWatch():
            return "mesh entry"
        case IngressWatch(name):
            return f"ingress-gateway entry {name}"
        case ApiGatewayWatch(name):
            return f"api-gateway entry {name}"
        case TerminatingWatch(name):
            return f"terminating-gateway entry {name}"
        case ResolverWatch(service):
            return f"service-resolver entry {service}"
        case DefaultsWatch(service):
            return f"service-defaults entry {service}" if service else "proxy-defaults entry"
