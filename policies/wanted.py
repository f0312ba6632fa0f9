"""What a snapshot calls for: what to watch, and what is still waited for."""

from __future__ import annotations

from collections.abc import Iterator

from policies.chain import Target
from policies.proxies import UpstreamStanza
from policies.snapshot import Role, Snapshot
from policies.watches import (
    ROUTE_KINDS,
    ApiGatewayWatch,
    ChainWatch,
    DefaultActionWatch,
    DefaultsWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    MeshWatch,
    OutsideWatch,
    RegistrationWatch,
    ResolverWatch,
    RootsWatch,
    RoutesWatch,
    TerminatingWatch,
    Watch,
    name_of,
)


def wanted(snapshot: Snapshot) -> frozenset[Watch]:
    """Return every watch that this snapshot calls for. The same as long as `asked` is the same object."""
    return frozenset(snapshot.asked).union(of_everybody(snapshot))


def of_everybody(snapshot: Snapshot) -> tuple[Watch, ...]:
    """Return what every proxy watches."""
    return (RootsWatch(), MeshWatch(), RegistrationWatch(snapshot.proxy_id))


def of_role(snapshot: Snapshot) -> Iterator[Watch]:
    """Yield what a proxy of this kind watches besides, once it knows its own registration."""
    registration = snapshot.registration
    if registration is None:
        return
    match snapshot.role:
        case Role.SIDECAR:
            yield IntentionsWatch(registration.service)
            yield DefaultActionWatch(registration.service)
        case Role.INGRESS:
            yield IngressWatch(registration.service)
            yield GatewayServicesWatch(registration.service)
        case Role.API:
            yield ApiGatewayWatch(registration.service)
            for kind in ROUTE_KINDS:
                yield RoutesWatch(kind, registration.service)
        case Role.TERMINATING:
            yield DefaultActionWatch(registration.service)
            yield TerminatingWatch(registration.service)
            yield GatewayServicesWatch(registration.service)
            yield DefaultsWatch("")


def of_links(snapshot: Snapshot) -> Iterator[Watch]:
    """Yield what a terminating gateway watches of each service that it is linked to."""
    for service in snapshot.links:
        yield IntentionsWatch(service)
        yield OutsideWatch(service)
        yield ResolverWatch(service)
        yield DefaultsWatch(service)


def chain_watches(snapshot: Snapshot) -> dict[str, ChainWatch]:
    """Return the watch of each upstream by its key: of the registration, and of what a gateway exposes."""
    registration = snapshot.registration
    if registration is None:
        return {}
    stanzas = {stanza.key: _chain_watch(stanza) for stanza in registration.upstreams}
    return {**stanzas, **{name: ChainWatch(name, name) for name in sorted(_exposed_names(snapshot))}}


def _chain_watch(stanza: UpstreamStanza) -> ChainWatch:
    protocol = "http" if stanza.forward_proxy else stanza.protocol
    return ChainWatch(
        stanza.key, stanza.service, stanza.datacenter, protocol, stanza.connect_timeout_ms, stanza.forward_proxy
    )


def _exposed_names(snapshot: Snapshot) -> set[str]:
    passed_on = {rule.service for rule in snapshot.edge.passthrough} if snapshot.edge is not None else set()
    if snapshot.bindings is not None:
        return passed_on | snapshot.bindings.services()
    if snapshot.ingress is None:
        return passed_on
    from policies.edge.ingress import exposed  # noqa: PLC0415 - only an ingress gateway has heard an entry

    rows = snapshot.gateway_services or ()
    return passed_on | {service.name for listener in snapshot.ingress.listeners for service in exposed(listener, rows)}


def endpoint_watch(watch: ChainWatch, target: Target, local_datacenter: str) -> EndpointsWatch | OutsideWatch:
    """Return the health query that a target of a chain needs. Subsets of one service share one."""
    if watch.forward_proxy:
        return OutsideWatch(target.service)
    local = not local_datacenter or target.datacenter in {"", local_datacenter}
    return EndpointsWatch(target.service, "" if local else target.datacenter)


def missing(snapshot: Snapshot) -> tuple[str, ...]:
    """Return what must be heard before anything can be served, in words. Upstreams are not among it: see `waiting`."""
    needed: list[Watch] = [RegistrationWatch(snapshot.proxy_id), RootsWatch(), MeshWatch(), *of_role(snapshot)]
    words = [name_of(watch) for watch in needed if watch not in snapshot.heard]
    return tuple(words if snapshot.leaf is not None else ["leaf certificate", *words])


def waiting(snapshot: Snapshot) -> tuple[Watch, ...]:
    """Return the watches of upstreams that have not answered: those upstreams are not served yet, all else is.

    So it is with what a terminating gateway is linked to.
    """
    silent = set(snapshot.asked).difference(snapshot.heard, of_role(snapshot))
    return tuple(sorted(silent, key=name_of))
