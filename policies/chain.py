"""The compiled discovery chain, as Consul's agent returns it, in typed form.

A chain is a graph: an optional router, splitters below it, resolvers at the leaves, and the targets that resolvers
name. Source: `GET|POST /v1/discovery-chain/:service`. Durations come as Go strings or nanoseconds; seconds come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.balance import HashPolicy, LoadBalancer
from policies.durations import parse_duration
from policies.errors import ChainError, EntryError, FilterError, Problem
from policies.filters import Filter, parse_filter
from policies.retries import RetryPolicy, parse_retry
from policies.route_index import RouteIndex
from policies.routes import HeaderModifiers, RouteMatch, parse_modifiers, parse_route_match
from policies.weak import items, mapping

MAX_DEPTH = 200  # nodes one below the other: Consul flattens splitters, so that three are usual
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})


@dataclass(frozen=True, slots=True)
class Target:
    """A set of instances: a service, maybe a subset of it, in a datacenter. `filter` None takes all.

    `unmet`: what the entries want of it beyond that, which is not done.
    """

    id: str
    service: str
    subset: str
    datacenter: str
    sni: str
    filter: Filter | None
    only_passing: bool
    connect_timeout: float
    unmet: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolver:
    """A leaf of the graph: a target, its failover targets in order, and how to balance among instances."""

    target: str
    failover: tuple[str, ...]
    connect_timeout: float
    request_timeout: float
    balancer: LoadBalancer


@dataclass(frozen=True, slots=True)
class Split:
    """One arm of a splitter. `weight` in percent."""

    weight: float
    next_node: str
    request_headers: HeaderModifiers | None
    response_headers: HeaderModifiers | None


@dataclass(frozen=True, slots=True)
class Splitter:
    """Arms by weight."""

    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class ChainRoute:
    """A route of the router. Timeouts in seconds: 0 = not set, negative = none."""

    match: RouteMatch | None
    next_node: str
    prefix_rewrite: str
    request_timeout: float
    idle_timeout: float
    retry: RetryPolicy | None
    request_headers: HeaderModifiers | None
    response_headers: HeaderModifiers | None


@dataclass(frozen=True, slots=True)
class Router:
    """Routes in order, the first match wins. The index is made here: a chain changes less often than its endpoints."""

    routes: tuple[ChainRoute, ...]
    index: RouteIndex = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Make the index."""
        object.__setattr__(self, "index", RouteIndex([route.match for route in self.routes]))


Node = Router | Splitter | Resolver


@dataclass(frozen=True, slots=True)
class Chain:
    """The whole graph of one service."""

    service: str
    datacenter: str
    protocol: str
    start: str
    nodes: Mapping[str, Node]
    targets: Mapping[str, Target]


def parse_chain(answer: Mapping[str, Any]) -> Chain:
    """Return the chain in the `Chain` object of Consul's answer. Raise ChainError when it cannot be followed."""
    service, here = str(answer.get("ServiceName") or ""), str(answer.get("Datacenter") or "")
    try:
        chain = Chain(
            service=service,
            datacenter=here,
            protocol=str(answer.get("Protocol") or "tcp").lower(),
            start=str(answer.get("StartNode") or ""),
            nodes={str(name): _node(str(name), mapping(node)) for name, node in mapping(answer.get("Nodes")).items()},
            targets={str(name): _target(mapping(row), here) for name, row in mapping(answer.get("Targets")).items()},
        )
    except ChainError:
        raise
    except (EntryError, FilterError) as error:
        message = f"discovery chain of {service}: {error}"
        raise ChainError(message) from error
    _check_closed(chain)
    return chain


def _check_closed(chain: Chain) -> None:
    """Refuse a chain that names a node or a target that it does not hold, or that runs in a circle."""
    for name in _reach(chain, chain.start, (), {}):
        node = chain.nodes[name]
        if isinstance(node, Resolver):
            for target in (node.target, *node.failover):
                if target not in chain.targets:
                    message = f"discovery chain of {chain.service}: {name} names target {target}, which is not in it"
                    raise ChainError(message)


def _reach(chain: Chain, name: str, above: tuple[str, ...], reached: dict[str, None]) -> dict[str, None]:
    """Return the names of all nodes from here on. `reached` are those gone through already: many ways lead to one."""
    if name in above or len(above) > MAX_DEPTH:
        message = f"discovery chain of {chain.service} runs in a circle: {' -> '.join((*above, name))}"
        raise ChainError(message)
    node = chain.nodes.get(name)
    if node is None:
        message = f"discovery chain of {chain.service} names node {name!r}, which is not in it"
        raise ChainError(message)
    if name not in reached:
        for below in next_nodes(node):
            _reach(chain, below, (*above, name), reached)
        reached[name] = None
    return reached


def not_understood(chain: Chain) -> tuple[Problem, ...]:
    """Return a problem for each route that takes nothing, because it asks for something that is not known here."""
    return tuple(
        Problem(f"discovery chain of {chain.service}, route {position}", route.match.broken, "it takes no request")
        for node in chain.nodes.values()
        if isinstance(node, Router)
        for position, route in enumerate(node.routes, 1)
        if route.match is not None and route.match.broken
    )


def passed_over(chain: Chain) -> tuple[Problem, ...]:
    """Return a problem for each wish about a target that is not met."""
    return tuple(
        Problem(f"target {target.id}", message, "its instances are those of the service's name, dialled directly")
        for target in chain.targets.values()
        for message in target.unmet
    )


def next_nodes(node: Node) -> tuple[str, ...]:
    """Return the names of the nodes right below."""
    match node:
        case Router(routes):
            return tuple(dict.fromkeys(route.next_node for route in routes))
        case Splitter(splits):
            return tuple(dict.fromkeys(split.next_node for split in splits))
        case Resolver():
            return ()


def _node(name: str, row: Mapping[str, Any]) -> Node:
    match row.get("Type"):
        case "router":
            return Router(tuple(_route(name, mapping(route)) for route in items(row.get("Routes"))))
        case "splitter":
            return Splitter(tuple(_split(mapping(split)) for split in items(row.get("Splits"))))
        case "resolver":
            return _resolver(name, row)
        case other:
            message = f"node {name} is of unknown type {other!r}"
            raise ChainError(message)


def _route(name: str, row: Mapping[str, Any]) -> ChainRoute:
    definition = mapping(row.get("Definition"))
    destination = mapping(definition.get("Destination"))
    return ChainRoute(
        match=parse_route_match(definition.get("Match")),
        next_node=str(row.get("NextNode") or ""),
        prefix_rewrite=str(destination.get("PrefixRewrite") or ""),
        request_timeout=parse_duration(destination.get("RequestTimeout"), f"{name} RequestTimeout"),
        idle_timeout=parse_duration(destination.get("IdleTimeout"), f"{name} IdleTimeout"),
        retry=parse_retry(destination),
        request_headers=parse_modifiers(destination.get("RequestHeaders")),
        response_headers=parse_modifiers(destination.get("ResponseHeaders")),
    )


def _split(row: Mapping[str, Any]) -> Split:
    definition = mapping(row.get("Definition"))
    return Split(
        weight=max(0.0, float(row.get("Weight") or 0.0)),
        next_node=str(row.get("NextNode") or ""),
        request_headers=parse_modifiers(definition.get("RequestHeaders")),
        response_headers=parse_modifiers(definition.get("ResponseHeaders")),
    )


def _resolver(name: str, row: Mapping[str, Any]) -> Resolver:
    body = mapping(row.get("Resolver"))
    return Resolver(
        target=str(body.get("Target") or ""),
        failover=tuple(str(target) for target in items(mapping(body.get("Failover")).get("Targets"))),
        connect_timeout=parse_duration(body.get("ConnectTimeout"), f"{name} ConnectTimeout") or 5.0,
        request_timeout=parse_duration(body.get("RequestTimeout"), f"{name} RequestTimeout"),
        balancer=parse_load_balancer(mapping(row.get("LoadBalancer"))),
    )


def _target(row: Mapping[str, Any], here: str) -> Target:
    subset = mapping(row.get("Subset"))
    if row.get("Peer"):
        message = f"target {row.get('ID')} is in peer {row.get('Peer')}: cluster peering is not supported"
        raise ChainError(message)
    expression = str(subset.get("Filter") or "")
    return Target(
        id=str(row.get("ID") or ""),
        service=str(row.get("Service") or ""),
        subset=str(row.get("ServiceSubset") or ""),
        datacenter=str(row.get("Datacenter") or ""),
        sni=str(row.get("SNI") or ""),
        filter=parse_filter(expression) if expression else None,
        only_passing=bool(subset.get("OnlyPassing")),
        connect_timeout=parse_duration(row.get("ConnectTimeout"), f"target {row.get('ID')} ConnectTimeout"),
        unmet=tuple(_unmet(row, here)),
    )


def _unmet(row: Mapping[str, Any], here: str) -> Iterator[str]:
    if mapping(row.get("MeshGateway")).get("Mode") in {"local", "remote"} and row.get("Datacenter") != here:
        yield "mesh gateways are not supported"
    for name in ("Namespace", "Partition"):
        if row.get(name) not in {None, "", "default"}:  # CE stores what a router or a splitter says of them
            yield f"its {name} {row[name]} is of Consul Enterprise"


def parse_load_balancer(row: Mapping[str, Any]) -> LoadBalancer:
    """Return the `LoadBalancer` of a `service-resolver`; an empty one is round robin, as Envoy's default."""
    default = LoadBalancer()
    ring = mapping(row.get("RingHashConfig"))
    least = mapping(row.get("LeastRequestConfig"))
    return LoadBalancer(
        policy=str(row.get("Policy") or default.policy),
        choice_count=int(least.get("ChoiceCount") or default.choice_count),
        minimum_ring_size=int(ring.get("MinimumRingSize") or default.minimum_ring_size),
        maximum_ring_size=int(ring.get("MaximumRingSize") or default.maximum_ring_size),
        hash_policies=tuple(_hash_policy(mapping(policy)) for policy in items(row.get("HashPolicies"))),
    )


def _hash_policy(row: Mapping[str, Any]) -> HashPolicy:
    cookie = mapping(row.get("CookieConfig"))
    ttl = parse_duration(cookie.get("TTL"), "CookieConfig TTL")
    return HashPolicy(
        field_name="source_ip" if row.get("SourceIP") else str(row.get("Field") or ""),
        value=str(row.get("FieldValue") or ""),
        terminal=bool(row.get("Terminal")),
        cookie_ttl=ttl or None,
        cookie_session=bool(cookie.get("Session")),
        cookie_path=str(cookie.get("Path") or ""),
    )
