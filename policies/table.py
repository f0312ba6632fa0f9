"""The table: all that the data path needs to know, immutable, compiled from a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from policies.balance import Balancer, Endpoint, LoadBalancer
from policies.identity import SpiffeId
from policies.intentions import Action, Intentions, Rules
from policies.limits import DEFAULT_LIMITS, Limits
from policies.outliers import DEFAULT_HEALTH, PassiveHealth
from policies.paths import PathNormalization
from policies.retries import RetryPolicy
from policies.route_index import RouteIndex
from policies.routes import HeaderModifiers, RouteMatch

if TYPE_CHECKING:  # a sidecar has none of these
    from policies.edge.passthrough import PassthroughListener
    from policies.edge.settings import EdgeSettings
    from policies.edge.tls import Hsts, ListenerTls, RedirectToTls
    from policies.egress.links import Origination

DEFAULT_REQUEST_TIMEOUT = 15.0  # seconds; Envoy's, which Consul leaves in force
DEFAULT_IDLE_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A discovery-chain target with its endpoints. `spiffe_id` is what its certificate must say, `sni` what is sent.

    Outside of the mesh `spiffe_id` is None, `sni` empty, and `origination` says how TLS is spoken; None is plaintext.
    There `strict_dns` makes an endpoint of each address of a host name; else a name is one, by whichever answers.
    `raw` says that what is spoken is not known: an endpoint may speak first.
    `chooser` is the built `balancer` of the endpoints, None without endpoints: a maglev table or a ring takes too long
    to be built when the first request asks for it.
    """

    target: str
    service: str
    subset: str
    datacenter: str
    sni: str
    spiffe_id: SpiffeId | None
    endpoints: tuple[Endpoint, ...]
    balancer: LoadBalancer
    connect_timeout: float  # seconds
    chooser: Balancer | None = field(default=None, compare=False, repr=False)
    limits: Limits = DEFAULT_LIMITS
    passive_health: PassiveHealth = DEFAULT_HEALTH
    origination: Origination | None = None
    strict_dns: bool = False
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """One arm of a split. `clusters` is the primary target and then its failovers, in order; none: nobody takes it.

    `prefix_rewrite` is in the place of the route's.
    """

    weight: float
    clusters: tuple[Cluster, ...]
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None
    prefix_rewrite: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to requests that match. `match` None takes all. Timeouts in seconds, None = no limit.

    `refused`: why every one of them is answered 403.
    """

    match: RouteMatch | None
    legs: tuple[Leg, ...]
    prefix_rewrite: str = ""
    request_timeout: float | None = DEFAULT_REQUEST_TIMEOUT
    idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT
    retry: RetryPolicy | None = None
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None
    refused: str = ""

    def modifiers(self) -> Iterator[HeaderModifiers | None]:
        """Yield the header changes of the route and of its arms."""
        yield from (self.request_headers, self.response_headers)
        for leg in self.legs:
            yield from (leg.request_headers, leg.response_headers)


@dataclass(frozen=True, slots=True)
class Outbound:
    """One upstream as seen from here: its protocol (tcp, http, http2, grpc) and its routes, first match wins.

    `index` finds the first; None where it is not worth one. `clusters` are all that its routes name, `made_from` is
    what it was compiled from, `left_out` what is wrong with modifiers that are not made.
    """

    service: str
    protocol: str
    routes: tuple[Route, ...]
    index: RouteIndex | None = field(default=None, compare=False, repr=False)
    clusters: tuple[Cluster, ...] = field(default=(), compare=False, repr=False)
    made_from: object = field(default=None, compare=False, repr=False)
    left_out: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamListener:
    """A loopback listener for one upstream. `upstream` is the key into `Table.outbounds`.

    With `forward_proxy` it is an HTTP proxy for the app, and the upstream the terminating gateway that is one in turn.
    """

    upstream: str
    address: str
    port: int
    forward_proxy: bool = False


class Guarded(Protocol):
    """What says who may come in, and by what of a request that is judged: an `Inbound` or a `FilterChain`."""

    @property
    def protocol(self) -> str:
        """Return http, or what is judged once a connection."""
        ...

    @property
    def intentions(self) -> Rules:
        """Return the intentions in force."""
        ...

    @property
    def default(self) -> Action:
        """Return what holds where none matches."""
        ...

    @property
    def normalization(self) -> PathNormalization:
        """Return what is done to a path before it is judged, and sent on."""
        ...

    @property
    def sanitize_xfcc(self) -> bool:
        """Return whether nothing is told of the caller's certificate."""
        ...


@dataclass(frozen=True, slots=True)
class Inbound:
    """The mTLS half: who may come in, and the local app behind it."""

    service: str
    protocol: str
    bind_address: str
    bind_port: int
    local_address: str
    local_port: int
    intentions: Intentions
    default: Action
    local_connect_timeout: float = 5.0
    local_request_timeout: float | None = None
    local_idle_timeout: float | None = 300.0
    max_connections: int = 0  # 0 = no limit
    normalization: PathNormalization = field(default_factory=PathNormalization)
    sanitize_xfcc: bool = False


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Hosts of one service on an ingress listener. Hosts are lower case: plain, `*.suffix`, `prefix.*` or `*`."""

    outbound: str  # key into Table.outbounds
    hosts: tuple[str, ...]
    request_headers: HeaderModifiers | None = None
    response_headers: HeaderModifiers | None = None


@dataclass(frozen=True, slots=True)
class IngressListener:
    """One listener of the gateway's entry. For tcp there is exactly one virtual host. `tls` None is plaintext."""

    address: str
    port: int
    protocol: str
    virtual_hosts: tuple[VirtualHost, ...]
    tls: ListenerTls | None = None
    hsts: Hsts | None = None
    redirect: RedirectToTls | None = None  # of everything


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A host, as `normal_host` makes it, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ForwardedHost:
    """A host of a linked service: `clear` for HTTP that is forwarded, `raw` for the bytes of a tunnel."""

    host: HostPort
    clear: Cluster
    raw: Cluster


@dataclass(frozen=True, slots=True)
class FilterChain:
    """A service outside, or a subset of it, as the terminating gateway stands in for it.

    Callers name it by `sni`, and its own leaf (`spiffe_id`) answers them. The intentions are those of this service.
    `hosts` are its own as far as a forward proxy may be asked for them. `made_from` is what it was compiled from.
    """

    sni: str  # lower case
    service: str
    subset: str
    protocol: str
    spiffe_id: SpiffeId
    intentions: Intentions
    default: Action
    cluster: Cluster
    auto_host_rewrite: bool = True
    request_timeout: float | None = None
    idle_timeout: float | None = 300.0
    normalization: PathNormalization = field(default_factory=PathNormalization)
    sanitize_xfcc: bool = False
    hosts: tuple[ForwardedHost, ...] = ()
    made_from: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Egress:
    """The mTLS listener of a terminating gateway: filter chains by SNI (lower case).

    Under `proxy_sni`, its own name, it is a forward proxy; "" where it is none. `hosts` tells whose a host is, by SNI.
    """

    bind_address: str
    bind_port: int
    chains: Mapping[str, FilterChain] = field(default_factory=dict)
    proxy_sni: str = ""
    hosts: Mapping[HostPort, tuple[str, ForwardedHost]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """Everything at once. `identity` is who we are; outbounds by upstream key."""

    identity: SpiffeId
    inbound: Inbound | None = None
    outbounds: Mapping[str, Outbound] = field(default_factory=dict)
    listeners: tuple[UpstreamListener, ...] = ()
    ingress: tuple[IngressListener, ...] = ()
    egress: Egress | None = None
    edge: EdgeSettings | None = None
    passthrough: tuple[PassthroughListener, ...] = ()

    def clusters(self) -> Iterator[Cluster]:
        """Yield every cluster that anything may be sent to."""
        for outbound in self.outbounds.values():
            yield from outbound.clusters
        for chain in self.egress.chains.values() if self.egress is not None else ():
            yield chain.cluster
            for host in chain.hosts:
                yield from (host.clear, host.raw)
