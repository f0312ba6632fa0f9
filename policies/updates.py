"""What came in, and what it says.

An answer of Consul's is `Heard` as it was sent, and `Understood` once it has been parsed. One that cannot be understood
costs only itself: the last good one stays, and the problem is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from policies.chain import Chain, not_understood, parse_chain, passed_over
from policies.errors import CatalogError, EntryError, MeshError, Problem, unknown_field
from policies.identity import Leaf, Roots
from policies.instances import Instance, parse_instances, steadied
from policies.intentions import Action, Intentions, parse_intentions
from policies.mesh import Mesh, not_followed, parse_mesh
from policies.proxies import Registration, parse_registration
from policies.watches import (
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
    from policies.edge.api_gateway import ApiGateway
    from policies.edge.http_routes import HttpRoute, TcpRoute
    from policies.edge.ingress import GatewayService, IngressEntry
    from policies.edge.server_certificates import CertificateUpdate, ClientCaUpdate
    from policies.egress.links import TerminatingEntry
    from policies.egress.outside import Defaults, OutsideResolver


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
            return chain, (*not_understood(chain), *passed_over(chain))
        case GatewayServicesWatch():
            from policies.edge.ingress import parse_gateway_services  # noqa: PLC0415 - only gateways ask

            return parse_gateway_services(items(raw)), ()
        case RoutesWatch(kind, gateway):
            from policies.edge.http_routes import parse_routes  # noqa: PLC0415 - only an api-gateway asks

            return parse_routes(kind, items(raw), gateway, before)
        case _:
            return _parse_entry(watch, raw), _about_entry(watch, raw)


def _about_entry(watch: EntryWatch, raw: Any) -> tuple[Problem, ...]:
    """Return what an entry asks for in vain, while all else of it is followed."""
    match watch:
        case MeshWatch():
            return not_followed(raw)
        case DefaultsWatch():
            from policies.egress.outside import not_reached  # noqa: PLC0415 - only a terminating gateway asks

            return not_reached(raw)
        case IngressWatch():
            return _strangers(watch, "ingress-gateway", raw)
        case ApiGatewayWatch():
            return _strangers(watch, "api-gateway", raw)
        case TerminatingWatch():
            return _strangers(watch, "terminating-gateway", raw)
        case _:
            return ()


def _strangers(watch: EntryWatch, kind: str, raw: Any) -> tuple[Problem, ...]:
    from policies.entries.strangers import strangers  # noqa: PLC0415 - a sidecar needs no tables of fields

    return tuple(unknown_field(name_of(watch), path) for path in strangers(kind, raw))


def _parse_entry(watch: EntryWatch, raw: Any) -> Answer:
    match watch:
        case MeshWatch():
            return parse_mesh(raw)
        case IngressWatch():
            from policies.edge.ingress import parse_ingress  # noqa: PLC0415 - only an ingress gateway asks

            return parse_ingress(raw)
        case ApiGatewayWatch():
            from policies.edge.api_gateway import parse_api_gateway  # noqa: PLC0415 - only an api-gateway asks

            return parse_api_gateway(raw)
        case TerminatingWatch():
            from policies.egress.links import parse_terminating  # noqa: PLC0415 - only a terminating gateway asks

            return parse_terminating(raw)
        case ResolverWatch():
            from policies.egress.outside import parse_resolver  # noqa: PLC0415 - as above

            return parse_resolver(raw)
        case DefaultsWatch(service):
            from policies.egress.outside import parse_proxy_defaults, parse_service_defaults  # noqa: PLC0415 - as above

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
