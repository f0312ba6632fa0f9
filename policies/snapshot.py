"""The snapshot: all that one proxy has heard.

A watch that is not in `heard` has not answered yet; an empty answer is a heard one. `wanted` says what to watch next
and what is still waited for, `reducer` takes one update and makes the next snapshot.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from policies.chain import Chain
from policies.errors import Problem
from policies.identity import Leaf, Roots
from policies.instances import Instance
from policies.intentions import Action, Intentions
from policies.mesh import Mesh
from policies.proxies import Registration
from policies.updates import Answer
from policies.watches import (
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
    TerminatingWatch,
    Watch,
)

if TYPE_CHECKING:  # a sidecar loads none of these
    from policies.edge.api_gateway import Bindings
    from policies.edge.ingress import GatewayService, IngressEntry
    from policies.edge.server_certificates import EdgeMaterial
    from policies.edge.settings import EdgeSettings
    from policies.egress.links import LinkedService, TerminatingEntry
    from policies.egress.outside import Defaults, OutsideResolver

_A = TypeVar("_A")


class Role(enum.Enum):
    """Which kind of proxy this is, by Consul's names of service kinds."""

    SIDECAR = "connect-proxy"
    INGRESS = "ingress-gateway"
    API = "api-gateway"
    TERMINATING = "terminating-gateway"


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
