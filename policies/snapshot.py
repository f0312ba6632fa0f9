"""The snapshot: all that one proxy has heard, and the one function that makes the next one.

A watch that is not in `heard` has not answered yet; an empty answer is a heard one. `wanted` says what to watch next,
`missing` what is still waited for, `apply` takes one update. An answer that cannot be understood costs only itself:
the last good one stays, and the problem is kept beside it.

With thousands of watches an update must not look at all of them. So the snapshot carries what follows from its answers:
`upstreams`, which change with the registration and with what a gateway exposes, and `asked`, in which a chain counts
for the instances of its targets, so that it is known without looking at the others which ones nobody needs any more.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from policies.chain import Chain, Target, not_understood, parse_chain, past_gateways
from policies.errors import CatalogError, EntryError, MeshError, Problem
from policies.identity import Leaf, Roots
from policies.instances import Instance, parse_instances, steadied
from policies.intentions import Action, Intentions, parse_intentions
from policies.mesh import Mesh, parse_mesh
from policies.proxies import Registration, UpstreamStanza, parse_registration
from policies.watches import (
    ROUTE_KINDS,
    ApiGatewayWatch,
    ChainWatch,
    DefaultActionWatch,
    DefaultsWatch,
    EndpointsWatch,
    EntryWatch,
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
from policies.weak import items, mapping, rows

if TYPE_CHECKING:  # a sidecar loads none of these
    from policies.api_gateway import ApiGateway, Bindings
    from policies.edge import EdgeSettings
    from policies.egress import LinkedService, TerminatingEntry
    from policies.http_routes import HttpRoute, TcpRoute
    from policies.ingress import GatewayService, IngressEntry
    from policies.outside import Defaults, OutsideResolver
    from policies.server_certificates import CertificateUpdate, ClientCaUpdate, EdgeMaterial


class Role(enum.Enum):
    """Which kind of proxy this is, by Consul's names of service kinds."""

    SIDECAR = "connect-proxy"
    INGRESS = "ingress-gateway"
    API = "api-gateway"
    TERMINATING = "terminating-gateway"


# --- what is heard -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeafUpdate:
    """The issuer gave the next leaf: our own, or that of a linked service."""

    leaf: Leaf
    linked: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A watch answered. `answer` is the decoded JSON as Consul sent it (None for a 404 that is normal).

    For RegistrationWatch the service object, ChainWatch the `Chain` object, EndpointsWatch and OutsideWatch the rows
    (read once), IntentionsWatch the list of rows of the service, RootsWatch the object, the watches of entries the
    entry or None, GatewayServicesWatch the list, DefaultActionWatch whether it allows, or None when that could not be
    found out.
    `shaken`: the agent has just come back and its checks have not run yet, so that an instance which became critical
    keeps the health that it had.
    """

    watch: Watch
    answer: Any
    shaken: bool = False


# --- the snapshot --------------------------------------------------------------------------------------------------

Answer: TypeAlias = (
    "Roots | Registration | Intentions | Action | Mesh | Chain "
    "| tuple[Instance, ...] | IngressEntry | tuple[GatewayService, ...] | TerminatingEntry | OutsideResolver "
    "| Defaults | ApiGateway | tuple[HttpRoute, ...] | tuple[TcpRoute, ...]"
)


@dataclass(frozen=True, slots=True)
class Understood:
    """What an answer says. `answer` None: it could not be understood, the last good one stays."""

    watch: Watch
    answer: Answer | None
    problems: tuple[Problem, ...] = ()


Update: TypeAlias = "LeafUpdate | CertificateUpdate | ClientCaUpdate | Heard | Understood"

_A = TypeVar("_A")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one proxy has heard. Made by `apply` alone; tests replay updates."""

    role: Role
    proxy_id: str
    edge: EdgeSettings | None = None  # of a gateway
    leaf: Leaf | None = None
    material: EdgeMaterial | None = None  # of a gateway; None: nothing has come
    heard: Mapping[Watch, Answer] = field(default_factory=dict)
    problems: Mapping[Watch, tuple[Problem, ...]] = field(default_factory=dict)
    upstreams: Mapping[str, ChainWatch] = field(default_factory=dict)  # by upstream key
    links: Mapping[str, LinkedService] = field(default_factory=dict)  # of a terminating gateway, by name
    leaves: Mapping[str, Leaf] = field(default_factory=dict)  # of linked services, by name
    bindings: Bindings | None = None  # of an api-gateway that has heard its entry and its routes
    asked: Mapping[Watch, int] = field(default_factory=dict)  # beside the three that every proxy asks; how many times

    @property
    def registration(self) -> Registration | None:
        """Our own registration with central config merged in."""
        return self._get(RegistrationWatch(self.proxy_id), Registration)

    @property
    def roots(self) -> Roots | None:
        """The trust bundle."""
        return self._get(RootsWatch(), Roots)

    @property
    def mesh(self) -> Mesh | None:
        """The `mesh` entry; all defaults when there is none."""
        return self._get(MeshWatch(), Mesh)

    @property
    def intentions(self) -> Intentions | None:
        """The intentions whose destination is our service."""
        registration = self.registration
        return self._get(IntentionsWatch(registration.service), Intentions) if registration else None

    @property
    def default_action(self) -> Action | None:
        """What the agent does where no intention matches."""
        registration = self.registration
        return self._get(DefaultActionWatch(registration.service), Action) if registration else None

    @property
    def ingress(self) -> IngressEntry | None:
        """The `ingress-gateway` entry of our service."""
        registration = self.registration
        return cast("IngressEntry | None", self.heard.get(IngressWatch(registration.service))) if registration else None

    @property
    def gateway_services(self) -> tuple[GatewayService, ...] | None:
        """The rows of gateway-services of our service."""
        registration = self.registration
        if registration is None:
            return None
        return self._get(GatewayServicesWatch(registration.service), tuple)

    @property
    def terminating(self) -> TerminatingEntry | None:
        """The `terminating-gateway` entry of our service."""
        registration = self.registration
        if registration is None:
            return None
        return cast("TerminatingEntry | None", self.heard.get(TerminatingWatch(registration.service)))

    def intentions_of(self, service: str) -> Intentions | None:
        """Return the intentions whose destination is a linked service."""
        return self._get(IntentionsWatch(service), Intentions)

    def resolver(self, service: str) -> OutsideResolver | None:
        """Return the resolver of a linked service."""
        return cast("OutsideResolver | None", self.heard.get(ResolverWatch(service)))

    def protocol(self, service: str) -> str | None:
        """Return the protocol of a linked service."""
        own, common = (cast("Defaults | None", self.heard.get(DefaultsWatch(name))) for name in (service, ""))
        return (own.protocol or common.protocol or "tcp") if own is not None and common is not None else None

    def chain(self, watch: ChainWatch) -> Chain | None:
        """Return the compiled chain that this watch heard."""
        return self._get(watch, Chain)

    def instances(self, watch: EndpointsWatch | OutsideWatch) -> tuple[Instance, ...] | None:
        """Return the instances that this watch heard."""
        return self._get(watch, tuple)

    def _get(self, watch: Watch, kind: type[_A]) -> _A | None:
        answer = self.heard.get(watch)
        return answer if isinstance(answer, kind) else None


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
    from policies.server_certificates import NO_MATERIAL  # noqa: PLC0415 - only a gateway has any

    before = snapshot.material or NO_MATERIAL
    material = before.updated(update)
    if material == before:
        return snapshot
    return replace(snapshot, material=None if material == NO_MATERIAL else material)


def understand(heard: Heard, before: Answer | None) -> Understood:
    """Return what an answer says. `before` is the last good one, None if there is none.

    This is where the work is when an answer is long; it needs nothing of the snapshot but `before`, so it may be done
    elsewhere while other updates are applied. An answer that says the same is the very object of before: what has not
    changed is found by identity from here on. Raise CatalogError for rows that turn out to be none.
    """
    watch, raw = heard.watch, heard.answer
    if isinstance(watch, DefaultActionWatch) and raw is None and before is not None:
        return Understood(watch, None)  # the one that is known holds
    answer: Answer
    problems: tuple[Problem, ...]
    try:
        if isinstance(watch, EndpointsWatch | OutsideWatch):
            known = cast("tuple[Instance, ...]", before or ())
            instances = parse_instances(rows(raw), known)
            answer, problems = steadied(instances, known) if heard.shaken else instances, ()
        else:
            answer, problems = _parse(watch, raw, before)
    except CatalogError:
        raise
    except (MeshError, TypeError, ValueError, OverflowError, KeyError, AttributeError) as error:
        return Understood(watch, None, (Problem(name_of(watch), str(error), "the last good answer stays"),))
    return Understood(watch, before if answer == before else answer, problems)


def _take(snapshot: Snapshot, understood: Understood) -> Snapshot:
    watch, answer = understood.watch, understood.answer
    if watch not in snapshot.asked and watch not in _of_everybody(snapshot):
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
    from policies.api_gateway import bind  # noqa: PLC0415 - a tenth of a megabyte that only an api-gateway pays

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
    upstreams = _chain_watches(snapshot)
    asked: dict[Watch, int] = dict.fromkeys((*_of_role(snapshot), *upstreams.values(), *_of_links(snapshot)), 1)
    for chain_watch in upstreams.values():
        for watch in _targets(chain_watch, snapshot.heard.get(chain_watch), snapshot):
            asked[watch] = asked.get(watch, 0) + 1
    gone = set(snapshot.heard).union(snapshot.problems).difference(asked, _of_everybody(snapshot))
    return _forgetting(replace(snapshot, upstreams=upstreams, asked=asked), gone)


def _with_links(snapshot: Snapshot) -> Snapshot:
    """Go by what a terminating gateway is linked to."""
    entry, rows = snapshot.terminating, snapshot.gateway_services
    if entry is None or rows is None:
        return snapshot
    from policies.egress import linked  # noqa: PLC0415 - only a terminating gateway has links

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


_ParsedWatch = (
    RootsWatch
    | RegistrationWatch
    | IntentionsWatch
    | DefaultActionWatch
    | ChainWatch
    | GatewayServicesWatch
    | RoutesWatch
    | EntryWatch
)


def _parse(watch: _ParsedWatch, raw: Any, before: Answer | None) -> tuple[Answer, tuple[Problem, ...]]:
    match watch:
        case RootsWatch():
            return _parse_roots(mapping(raw)), ()
        case RegistrationWatch():
            registration = parse_registration(mapping(raw))
            return registration, registration.problems
        case IntentionsWatch():
            known = before if isinstance(before, Intentions) else Intentions()
            return parse_intentions([mapping(row) for row in items(raw)], known)
        case DefaultActionWatch():
            return _parse_default(watch, raw)
        case ChainWatch():
            chain = parse_chain(mapping(raw))
            return chain, (*not_understood(chain), *past_gateways(chain))
        case GatewayServicesWatch():
            from policies.ingress import parse_gateway_services  # noqa: PLC0415 - only gateways ask

            return parse_gateway_services(items(raw)), ()
        case RoutesWatch(kind, gateway):
            from policies.http_routes import parse_routes  # noqa: PLC0415 - as in `_bindings`

            return parse_routes(kind, items(raw), gateway, before)
        case DefaultsWatch():
            from policies.outside import not_reached  # noqa: PLC0415 - only a terminating gateway asks

            return _parse_entry(watch, raw), not_reached(raw)
        case _:
            return _parse_entry(watch, raw), ()


def _parse_entry(watch: EntryWatch, raw: Any) -> Answer:
    match watch:
        case MeshWatch():
            return parse_mesh(raw)
        case IngressWatch():
            from policies.ingress import parse_ingress  # noqa: PLC0415 - only an ingress gateway asks

            return parse_ingress(raw)
        case ApiGatewayWatch():
            from policies.api_gateway import parse_api_gateway  # noqa: PLC0415 - as in `_bindings`

            return parse_api_gateway(raw)
        case TerminatingWatch():
            from policies.egress import parse_terminating  # noqa: PLC0415 - only a terminating gateway asks

            return parse_terminating(raw)
        case ResolverWatch():
            from policies.outside import parse_resolver  # noqa: PLC0415 - as above

            return parse_resolver(raw)
        case DefaultsWatch(service):
            from policies.outside import parse_proxy_defaults, parse_service_defaults  # noqa: PLC0415 - as above

            return parse_service_defaults(raw) if service else parse_proxy_defaults(raw)


def _parse_default(watch: Watch, allows: object) -> tuple[Action, tuple[Problem, ...]]:
    if allows is not None:
        return Action.ALLOW if allows is True else Action.DENY, ()
    message = "an intention of source * hides the agent's default, and the token lacks agent:read"
    return Action.DENY, (Problem(name_of(watch), message, "what no permission matches is denied"),)


def _parse_roots(answer: Mapping[str, Any]) -> Roots:
    rows = [mapping(row) for row in items(answer.get("Roots"))]
    pems = tuple(sorted(str(row["RootCert"]).strip() + "\n" for row in rows if row.get("RootCert")))
    trust_domain = str(answer.get("TrustDomain") or "").lower()
    if not pems or not trust_domain:
        message = "the CA roots name no trust domain or hold no certificate: is Connect enabled on the servers?"
        raise EntryError(message)
    return Roots(trust_domain=trust_domain, active_id=str(answer.get("ActiveRootID") or ""), pems=pems)


# --- what to watch, and what is waited for -------------------------------------------------------------------------


def wanted(snapshot: Snapshot) -> frozenset[Watch]:
    """Return every watch that this snapshot calls for. The same as long as `asked` is the same object."""
    return frozenset(snapshot.asked).union(_of_everybody(snapshot))


def _of_everybody(snapshot: Snapshot) -> tuple[Watch, ...]:
    return (RootsWatch(), MeshWatch(), RegistrationWatch(snapshot.proxy_id))


def _of_role(snapshot: Snapshot) -> Iterator[Watch]:
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


def _of_links(snapshot: Snapshot) -> Iterator[Watch]:
    for service in snapshot.links:
        yield IntentionsWatch(service)
        yield OutsideWatch(service)
        yield ResolverWatch(service)
        yield DefaultsWatch(service)


def _chain_watches(snapshot: Snapshot) -> dict[str, ChainWatch]:
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
    from policies.ingress import exposed  # noqa: PLC0415 - only an ingress gateway has heard an entry

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
    needed: list[Watch] = [RegistrationWatch(snapshot.proxy_id), RootsWatch(), MeshWatch(), *_of_role(snapshot)]
    words = [name_of(watch) for watch in needed if watch not in snapshot.heard]
    return tuple(words if snapshot.leaf is not None else ["leaf certificate", *words])


def waiting(snapshot: Snapshot) -> tuple[Watch, ...]:
    """Return the watches of upstreams that have not answered: those upstreams are not served yet, all else is.

    So it is with what a terminating gateway is linked to.
    """
    silent = set(snapshot.asked).difference(snapshot.heard, _of_role(snapshot))
    return tuple(sorted(silent, key=name_of))
