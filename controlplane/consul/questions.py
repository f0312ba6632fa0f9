"""What is asked for each watch, and what the answer must look like. Pure: `catalog` asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from controlplane.consul.paths import Segment, path
from controlplane.consul.shapes import (
    checked_chain,
    checked_entry,
    checked_instances,
    checked_match,
    checked_object,
    checked_roots,
    checked_rows,
    checked_service,
    checked_services,
)
from policies.watches import (
    ApiGatewayWatch,
    ChainWatch,
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
)

ROW_BY_ROW = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A read. `check` returns the part of the answer that counts; it raises CatalogBadAnswer (where, data).

    `depth`: how many levels of the answer may be long, so that they are taken apart before they are decoded; or
    ROW_BY_ROW, for a list that is never held as a whole. `by_hash`: it is waited on by content, not by index.
    `may_be_absent`: a 404 is an answer, None, which can be waited on like any other.
    """

    path: str
    check: Callable[[str, Any], Any]
    depth: int = 1
    query: Mapping[str, str] | None = None
    body: Mapping[str, str] | None = None
    by_hash: bool = False
    may_be_absent: bool = False


ROOTS = Question(path("agent/connect/ca/roots"), checked_roots, 3)
SERVICES = Question(path("agent/services"), checked_services, 3)
CHECKS = Question(path("agent/checks"), checked_object, 2)
SELF = Question(path("agent/self"), checked_object, 2)

AskedWatch = (
    RootsWatch
    | RegistrationWatch
    | IntentionsWatch
    | ChainWatch
    | EndpointsWatch
    | GatewayServicesWatch
    | RoutesWatch
    | OutsideWatch
    | EntryWatch
)  # all watches but that of the default action, which takes several questions


def question(watch: AskedWatch) -> Question:
    """Return the question behind a watch."""
    match watch:
        case RootsWatch():
            return ROOTS
        case RegistrationWatch(proxy_id):
            return service(proxy_id)
        case IntentionsWatch(name):
            query = {"by": "destination", "name": name}
            return Question(path("connect/intentions/match"), partial(checked_match, service=name), 2, query)
        case ChainWatch():
            return chain(watch)
        case EndpointsWatch(name, datacenter):
            query = {"dc": datacenter} if datacenter else {}
            return Question(path("health/connect", Segment(name)), checked_instances, ROW_BY_ROW, query)
        case OutsideWatch(name):
            return Question(path("health/service", Segment(name)), checked_instances, ROW_BY_ROW)
        case GatewayServicesWatch(name):
            check = partial(checked_rows, name="Service", kind=Mapping)
            return Question(path("catalog/gateway-services", Segment(name)), check, 1)
        case RoutesWatch(kind):
            return Question(path("config", kind), partial(checked_rows, name="Name", kind=str), 2)
        case _:
            return entry(*_kind_and_name(watch))


def _kind_and_name(watch: EntryWatch) -> tuple[str, str]:
    """Return which config entry a watch is of."""
    match watch:
        case MeshWatch():
            return "mesh", "mesh"
        case IngressWatch(name):
            return "ingress-gateway", name
        case ApiGatewayWatch(name):
            return "api-gateway", name
        case TerminatingWatch(name):
            return "terminating-gateway", name
        case ResolverWatch(name):
            return "service-resolver", name
        case DefaultsWatch(""):
            return "proxy-defaults", "global"
        case DefaultsWatch(name):
            return "service-defaults", name


def leaf(name: str) -> Question:
    """Return the question for the agent's leaf of a service; the issuer looks at it closely."""
    return Question(path("agent/connect/ca/leaf", Segment(name)), lambda _, data: data)


def service(service_id: str) -> Question:
    """Return the question for a service of this agent."""
    return Question(path("agent/service", Segment(service_id)), checked_service, 3, by_hash=True)


def entry(kind: str, name: str) -> Question:
    """Return the question for a config entry."""
    return Question(path("config", kind, Segment(name)), partial(checked_entry, kind=kind), 4, may_be_absent=True)


def chain(watch: ChainWatch) -> Question:
    """Return the question for a chain, compiled with what an upstream's own settings override."""
    query = {"compile-dc": watch.datacenter} if watch.datacenter else {}
    overrides: dict[str, str] = {}
    if watch.protocol:
        overrides["OverrideProtocol"] = watch.protocol
    if watch.connect_timeout_ms > 0:
        overrides["OverrideConnectTimeout"] = f"{watch.connect_timeout_ms}ms"
    return Question(path("discovery-chain", Segment(watch.service)), checked_chain, 5, query, overrides or None)
