"""The snapshot: all that one proxy has heard, and the one function that makes the next one.

None means "not heard yet"; an empty tuple or mapping means "heard, and there is nothing".
`wanted` says what to watch next, `missing` what is still waited for, `apply` takes one update.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.errors import Problem
from policies.identity import Leaf, Roots
from policies.intentions import Action, Intentions


class Role(enum.Enum):
    """Which kind of proxy this is, by Consul's names of service kinds."""

    SIDECAR = "connect-proxy"
    INGRESS = "ingress-gateway"


# --- what can be watched -------------------------------------------------------------------------------------------


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
    """`POST /v1/agent/connect/authorize` with a made-up source: the agent's effective default. Polled."""

    service: str


@dataclass(frozen=True, slots=True)
class MeshWatch:
    """`GET /v1/config/mesh/mesh`; 404 is normal."""


@dataclass(frozen=True, slots=True)
class ChainWatch:
    """`GET|POST /v1/discovery-chain/:service` with this upstream's overrides."""

    upstream: str  # the key of the upstream
    service: str
    datacenter: str = ""
    protocol: str = ""
    connect_timeout_ms: int = 0


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


Watch = (
    RootsWatch
    | RegistrationWatch
    | IntentionsWatch
    | DefaultActionWatch
    | MeshWatch
    | ChainWatch
    | EndpointsWatch
    | IngressWatch
    | GatewayServicesWatch
)


# --- what is heard -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeafUpdate:
    """The issuer gave the next leaf."""

    leaf: Leaf


@dataclass(frozen=True, slots=True)
class Heard:
    """A watch answered. `answer` is the decoded JSON as Consul sent it (None for a 404 that is normal).

    For RegistrationWatch the service object, ChainWatch the `Chain` object, EndpointsWatch the list of rows,
    IntentionsWatch the list of rows of the service, RootsWatch the object, MeshWatch and IngressWatch the entry or
    None, GatewayServicesWatch the list, DefaultActionWatch the bool `Authorized`.
    """

    watch: Watch
    answer: Any


Update = LeafUpdate | Heard
