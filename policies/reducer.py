"""The one function that makes the next snapshot: `apply`.

With thousands of watches an update must not look at all of them. So the snapshot carries what follows from its answers:
`upstreams`, which change with the registration and with what a gateway exposes, and `asked`, in which a chain counts
for the instances of its targets, so that it is known without looking at the others which ones nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from policies.chain import Chain
from policies.errors import Problem
from policies.snapshot import Snapshot
from policies.updates import Answer, Heard, LeafUpdate, Understood, Update, understand
from policies.wanted import chain_watches, endpoint_watch, of_everybody, of_links, of_role
from policies.watches import (
    ROUTE_KINDS,
    ApiGatewayWatch,
    ChainWatch,
    DefaultActionWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    OutsideWatch,
    RegistrationWatch,
    RoutesWatch,
    TerminatingWatch,
    Watch,
)

if TYPE_CHECKING:  # a sidecar loads none of these
    from policies.edge.api_gateway import ApiGateway, Bindings
    from policies.edge.http_routes import HttpRoute, TcpRoute
    from policies.edge.server_certificates import CertificateUpdate, ClientCaUpdate


def apply(snapshot: Snapshot, update: Update) -> Snapshot:
    """Return the snapshot after the update; the very same object when nothing that matters changed."""
    match update:
        case LeafUpdate(leaf, ""):
            return snapshot if leaf == snapshot.leaf else replace(snapshot, leaf=leaf)
        case LeafUpdate(leaf, service):
            if service not in snapshot.links or leaf == snapshot.leaves.get(service):
                return snapshot
            return replace(snapshot, leaves={**snapshot.leaves, service: leaf})
        case Heard(watch):
            return _take(snapshot, understand(update, snapshot.heard.get(watch)))
        case Understood():
            return _take(snapshot, update)
        case _:
            return _with_material(snapshot, update)


def _with_material(snapshot: Snapshot, update: CertificateUpdate | ClientCaUpdate) -> Snapshot:
    from policies.edge.server_certificates import NO_MATERIAL  # noqa: PLC0415 - only a gateway has any

    before = snapshot.material or NO_MATERIAL
    material = before.updated(update)
    if material == before:
        return snapshot
    return replace(snapshot, material=None if material == NO_MATERIAL else material)


def _take(snapshot: Snapshot, understood: Understood) -> Snapshot:
    watch, answer = understood.watch, understood.answer
    if watch not in snapshot.asked and watch not in of_everybody(snapshot):
        return snapshot  # asked for no more
    before = snapshot.heard.get(watch)
    if answer is None and isinstance(watch, DefaultActionWatch) and not understood.problems:
        return snapshot
    if answer is not None and answer is not before:
        snapshot = replace(snapshot, heard={**snapshot.heard, watch: answer})
        match watch:
            case ChainWatch():
                snapshot = _with_targets(snapshot, _targets(watch, before, snapshot), _targets(watch, answer, snapshot))
            case ApiGatewayWatch() | RoutesWatch():
                snapshot = _with_upstreams(replace(snapshot, bindings=_bindings(snapshot)))
            case RegistrationWatch() | IngressWatch() | GatewayServicesWatch() | TerminatingWatch():
                snapshot = _with_upstreams(_with_links(snapshot))
    return _with_problems(snapshot, watch, understood.problems)


def _with_problems(snapshot: Snapshot, watch: Watch, problems: tuple[Problem, ...]) -> Snapshot:
    if snapshot.problems.get(watch, ()) == problems:
        return snapshot
    others = {key: value for key, value in snapshot.problems.items() if key != watch}
    return replace(snapshot, problems={**others, watch: problems} if problems else others)


def _targets(watch: ChainWatch, chain: Answer | None, snapshot: Snapshot) -> frozenset[EndpointsWatch | OutsideWatch]:
    """Return the health queries that a chain needs."""
    targets = chain.targets.values() if isinstance(chain, Chain) else ()
    registration = snapshot.registration
    datacenter = registration.datacenter if registration is not None else ""
    return frozenset(endpoint_watch(watch, target, datacenter) for target in targets)


def _with_targets(snapshot: Snapshot, before: AbstractSet[Watch], now: AbstractSet[Watch]) -> Snapshot:
    """Let one chain ask for these instances instead of those."""
    if before == now:
        return snapshot
    asked = dict(snapshot.asked)
    for watch in now - before:
        asked[watch] = asked.get(watch, 0) + 1
    for watch in before - now:
        asked[watch] -= 1
    gone = {watch for watch in before - now if not asked[watch]}
    for watch in gone:
        del asked[watch]
    return _forgetting(replace(snapshot, asked=asked), gone)


def _bindings(snapshot: Snapshot) -> Bindings | None:
    """Return what an api-gateway leads to, as soon as entry and routes have been heard."""
    from policies.edge.api_gateway import bind  # noqa: PLC0415 - a tenth of a megabyte that only an api-gateway pays

    registration = snapshot.registration
    name = registration.service if registration is not None else ""
    gateway = snapshot.heard.get(ApiGatewayWatch(name))
    http_routes, tcp_routes = (snapshot.heard.get(RoutesWatch(kind, name)) for kind in ROUTE_KINDS)
    if gateway is None or http_routes is None or tcp_routes is None:
        return None
    bindings = bind(
        cast("ApiGateway", gateway),
        cast("tuple[HttpRoute, ...]", http_routes),
        cast("tuple[TcpRoute, ...]", tcp_routes),
    )
    return snapshot.bindings if bindings == snapshot.bindings else bindings


def _with_upstreams(snapshot: Snapshot) -> Snapshot:
    """Go by the registration and by what a gateway exposes: here everything is looked at."""
    upstreams = chain_watches(snapshot)
    asked: dict[Watch, int] = dict.fromkeys((*of_role(snapshot), *upstreams.values(), *of_links(snapshot)), 1)
    for chain_watch in upstreams.values():
        for watch in _targets(chain_watch, snapshot.heard.get(chain_watch), snapshot):
            asked[watch] = asked.get(watch, 0) + 1
    gone = set(snapshot.heard).union(snapshot.problems).difference(asked, of_everybody(snapshot))
    return _forgetting(replace(snapshot, upstreams=upstreams, asked=asked), gone)


def _with_links(snapshot: Snapshot) -> Snapshot:
    """Go by what a terminating gateway is linked to."""
    entry, rows = snapshot.terminating, snapshot.gateway_services
    if entry is None or rows is None:
        return snapshot
    from policies.egress.links import linked  # noqa: PLC0415 - only a terminating gateway has links

    links = {link.name: link for link in linked(entry, rows)}
    leaves = {name: leaf for name, leaf in snapshot.leaves.items() if name in links}
    return replace(snapshot, links=links, leaves=leaves)


def _forgetting(snapshot: Snapshot, gone: AbstractSet[Watch]) -> Snapshot:
    """Forget what is no longer asked for, so that a service that comes back starts as not heard."""
    if not gone:
        return snapshot
    return replace(
        snapshot,
        heard={watch: answer for watch, answer in snapshot.heard.items() if watch not in gone},
        problems={watch: problems for watch, problems in snapshot.problems.items() if watch not in gone},
    )
