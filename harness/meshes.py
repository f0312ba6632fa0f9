"""A mesh without Consul: the answers that Consul would give, replayed through the reducer.

Tests never build a snapshot or a table by hand. They say what Consul answers and let the product make the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.certificates import TRUST_DOMAIN, Authority, Mistakes
from policies.compiler import compile_table
from policies.edge.settings import NO_EDGE, EdgeSettings
from policies.reducer import apply
from policies.snapshot import Role, Snapshot
from policies.table import Table
from policies.updates import Heard, LeafUpdate, Update
from policies.watches import (
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
)

Json = dict[str, Any]


def chain(service: str, protocol: str = "http", **more: Any) -> Json:
    """Return the chain of a service without entries."""
    target = f"{service}.default.default.dc1"
    return {
        "ServiceName": service,
        "Datacenter": "dc1",
        "Protocol": protocol,
        "StartNode": f"resolver:{target}",
        "Nodes": {
            f"resolver:{target}": {
                "Type": "resolver",
                "Name": target,
                "Resolver": {"ConnectTimeout": "5s", "Default": True, "Target": target},
            }
        },
        "Targets": {target: target_row(service)},
        **more,
    }


def target_row(service: str, subset: str = "", filter_: str = "", **more: Any) -> Json:
    """Return a target of a chain."""
    prefix = f"{subset}." if subset else ""
    return {
        "ID": f"{prefix}{service}.default.default.dc1",
        "Service": service,
        "ServiceSubset": subset,
        "Datacenter": "dc1",
        "Subset": {"Filter": filter_} if filter_ else {},
        "ConnectTimeout": "5s",
        "SNI": f"{prefix}{service}.default.dc1.internal.{TRUST_DOMAIN}",
        **more,
    }


def split_chain(service: str, weights: Mapping[str, float]) -> Json:
    """Return a chain that splits a service among its subsets by Service.Meta.version."""
    nodes: Json = {
        f"splitter:{service}.default.default": {
            "Type": "splitter",
            "Name": f"{service}.default.default",
            "Splits": [
                {
                    "Definition": {"Weight": weight, "ServiceSubset": subset},
                    "Weight": weight,
                    "NextNode": f"resolver:{subset}.{service}.default.default.dc1",
                }
                for subset, weight in weights.items()
            ],
        }
    }
    targets: Json = {}
    for subset in weights:
        row = target_row(service, subset, f"Service.Meta.version == {subset}")
        targets[row["ID"]] = row
        nodes[f"resolver:{row['ID']}"] = {
            "Type": "resolver",
            "Name": row["ID"],
            "Resolver": {"ConnectTimeout": "5s", "Target": row["ID"]},
        }
    start = f"splitter:{service}.default.default"
    return chain(service, StartNode=start, Nodes=nodes, Targets=targets)


def instance(service: str, port: int, number: int = 1, status: str = "passing", **service_fields: Any) -> Json:
    """Return a row of a health query."""
    name = f"{service}-{number}-sidecar-proxy"
    return {
        "Node": {"Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1", "TaggedAddresses": {}, "Meta": {}},
        "Service": {
            "Kind": "connect-proxy",
            "ID": name,
            "Service": f"{service}-sidecar-proxy",
            "Tags": [],
            "Address": "127.0.0.1",
            "Meta": {},
            "Port": port,
            "Weights": {"Passing": 1, "Warning": 1},
            "Proxy": {"DestinationServiceName": service},
            **service_fields,
        },
        "Checks": [{"CheckID": f"service:{name}", "Status": status}],
    }


def intention(source: str, destination: str, action: str = "", permissions: Iterable[Json] = ()) -> Json:
    """Return a row of an intention match."""
    precedence = (9 if destination != "*" else 6) - (1 if source == "*" else 0)
    row: Json = {"SourceName": source, "DestinationName": destination, "Precedence": precedence}
    return {**row, "Permissions": list(permissions)} if permissions else {**row, "Action": action}


@dataclass(slots=True)
class Member:
    """One proxy of the mesh: what Consul would tell it."""

    service: str
    authority: Authority
    role: Role = Role.SIDECAR
    answers: dict[Watch, Any] = field(default_factory=dict)
    mistakes: Mistakes = Mistakes()
    edge: EdgeSettings = NO_EDGE
    snapshot: Snapshot = field(init=False)

    def __post_init__(self) -> None:
        """Start from nothing heard."""
        self.snapshot = Snapshot(self.role, self.proxy_id, self.edge)

    @property
    def proxy_id(self) -> str:
        """Return the ID of the proxy's registration."""
        return f"{self.service}-sidecar-proxy" if self.role is Role.SIDECAR else self.service

    def hear(self, watch: Watch, answer: object) -> Member:
        """Let one watch answer."""
        self.answers[watch] = answer
        self.snapshot = apply(self.snapshot, Heard(watch, answer))
        return self

    def take(self, update: Update) -> Member:
        """Take what comes from elsewhere than a watch."""
        self.snapshot = apply(self.snapshot, update)
        return self

    def renew(self, mistakes: Mistakes = Mistakes()) -> Member:
        """Let the issuer give the next leaf."""
        self.snapshot = apply(self.snapshot, LeafUpdate(self.authority.leaf(self.service, mistakes)))
        return self

    def renew_linked(self, service: str, mistakes: Mistakes = Mistakes()) -> Member:
        """Let the issuer give the next leaf of a linked service."""
        self.snapshot = apply(self.snapshot, LeafUpdate(self.authority.leaf(service, mistakes), service))
        return self

    def table(self) -> Table:
        """Return the compiled table; problems fail."""
        table, problems = compile_table(self.snapshot)
        assert not problems, problems
        return table


def sidecar(
    service: str,
    authority: Authority,
    *,
    port: int = 0,
    local_port: int = 1,
    protocol: str = "http",
    upstreams: Mapping[str, int] | None = None,
    intentions: Iterable[Json] = (),
    default_allow: bool = False,
    config: Json | None = None,
    proxies: Iterable[str] = (),
) -> Member:
    """Return a sidecar that has heard everything but its upstreams. `upstreams` maps names to local ports.

    Those of `proxies` are gateways, whose listener is a forward proxy.
    """
    member = Member(service, authority)
    registration = {
        "Kind": "connect-proxy",
        "ID": member.proxy_id,
        "Service": f"{service}-sidecar-proxy",
        "Datacenter": "dc1",
        "Address": "127.0.0.1",
        "Port": port,
        "Proxy": {
            "DestinationServiceName": service,
            "DestinationServiceID": f"{service}-1",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": local_port,
            "Config": {"protocol": protocol, **(config or {})},
            "Upstreams": [_stanza(name, bind, proxies) for name, bind in (upstreams or {}).items()],
        },
    }
    _common(member, registration)
    member.hear(IntentionsWatch(service), list(intentions))
    return member.hear(DefaultActionWatch(service), default_allow)


def _stanza(name: str, port: int, proxies: Iterable[str]) -> Json:
    row: Json = {"DestinationName": name, "LocalBindPort": port}
    return {**row, "Config": {"forward_proxy": True}} if name in proxies else row


def _gateway(kind: str, service: str, config: Json | None = None) -> Json:
    """Return the registration of a gateway."""
    place = {"Datacenter": "dc1", "Address": "127.0.0.1", "Port": 0}
    return {"Kind": kind, "ID": service, "Service": service, **place, "Proxy": {"Config": config or {}}}


def ingress(
    service: str,
    authority: Authority,
    listeners: list[Json],
    rows: Iterable[Json] = (),
    edge: EdgeSettings = NO_EDGE,
) -> Member:
    """Return an ingress gateway that has heard its entry."""
    member = Member(service, authority, Role.INGRESS, edge=edge)
    _common(member, _gateway("ingress-gateway", service))
    member.hear(IngressWatch(service), {"Kind": "ingress-gateway", "Name": service, "Listeners": listeners})
    return member.hear(GatewayServicesWatch(service), list(rows))


def api_gateway(
    service: str,
    authority: Authority,
    listeners: list[Json],
    http_routes: Iterable[Json] = (),
    tcp_routes: Iterable[Json] = (),
    edge: EdgeSettings = NO_EDGE,
) -> Member:
    """Return an api-gateway that has heard its entry and its routes; a route names no parent but this gateway."""
    member = Member(service, authority, Role.API, edge=edge)
    _common(member, _gateway("api-gateway", service))
    member.hear(ApiGatewayWatch(service), {"Kind": "api-gateway", "Name": service, "Listeners": listeners})
    parents = {"Parents": [{"Kind": "api-gateway", "Name": service, "SectionName": ""}]}
    member.hear(RoutesWatch("http-route", service), [parents | route for route in http_routes])
    return member.hear(RoutesWatch("tcp-route", service), [parents | route for route in tcp_routes])


def terminating(
    service: str, authority: Authority, links: list[Json], rows: Iterable[Json] = (), config: Json | None = None
) -> Member:
    """Return a terminating gateway that has heard its entry; see `link` for what is behind."""
    member = Member(service, authority, Role.TERMINATING)
    _common(member, _gateway("terminating-gateway", service, config))
    member.hear(DefaultActionWatch(service), False)
    member.hear(DefaultsWatch(""), None)
    member.hear(TerminatingWatch(service), {"Kind": "terminating-gateway", "Name": service, "Services": links})
    return member.hear(GatewayServicesWatch(service), list(rows))


def link(
    member: Member,
    service: str,
    ports: Iterable[int] = (),
    *,
    protocol: str = "http",
    intentions: Iterable[Json] = (),
    resolver: Json | None = None,
    leaf: bool = True,
) -> Member:
    """Let a terminating gateway hear everything about a linked service."""
    member.hear(IntentionsWatch(service), list(intentions))
    member.hear(DefaultsWatch(service), {"Protocol": protocol} if protocol else None)
    member.hear(ResolverWatch(service), resolver)
    member.hear(OutsideWatch(service), [outside(service, port, number) for number, port in enumerate(ports, 1)])
    return member.renew_linked(service) if leaf else member


def outside(service: str, port: int, number: int = 1, status: str = "passing", **service_fields: Any) -> Json:
    """Return a row of a health query of a service outside the mesh."""
    row = instance(service, port, number, status, **service_fields)
    row["Service"] |= {"Kind": "", "ID": f"{service}-{number}", "Service": service, "Proxy": {}, **service_fields}
    return row


def _common(member: Member, registration: Json) -> None:
    member.hear(RegistrationWatch(member.proxy_id), registration)
    roots = {
        "ActiveRootID": "r1",
        "TrustDomain": TRUST_DOMAIN,
        "Roots": [{"ID": "r1", "RootCert": member.authority.pem, "Active": True}],
    }
    member.hear(RootsWatch(), roots)
    member.hear(MeshWatch(), None)
    member.renew(member.mistakes)


def proxy(member: Member, gateway: str, port: int) -> Member:
    """Let a member hear where the gateway is that is its forward proxy."""
    member.hear(ChainWatch(gateway, gateway, protocol="http", forward_proxy=True), chain(gateway))
    return member.hear(OutsideWatch(gateway), [instance(gateway, port, Kind="terminating-gateway", Service=gateway)])


def upstream(member: Member, service: str, ports: Iterable[int], answer: Json | None = None) -> Member:
    """Let a member hear the chain and the instances of an upstream."""
    watch = ChainWatch(service, service)
    member.hear(watch, answer or chain(service))
    return member.hear(
        EndpointsWatch(service), [instance(service, port, number) for number, port in enumerate(ports, 1)]
    )
