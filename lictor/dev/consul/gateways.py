"""Which services a gateway ties to the mesh: the rows of `GET /v1/catalog/gateway-services/:gateway`.

Wildcards are expanded against the catalog: an ingress takes services with an instance in the mesh and, on an http-like
listener, of its protocol; a terminating gateway takes services with an instance outside of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lictor.dev.consul.state import Json, State, Topic


def gateway_services(state: State, gateway: str) -> list[Json]:
    """Return the rows of a gateway, by service, port and protocol."""
    tables = state.tables
    ingress = tables.entries.get("ingress-gateway", gateway)
    terminating = tables.entries.get("terminating-gateway", gateway)
    rows: list[Json] = []
    if ingress is not None:
        rows = list(_ingress_rows(state, ingress))
    elif terminating is not None:
        rows = list(_terminating_rows(state, terminating))
    return sorted(rows, key=lambda row: (row["Service"]["Name"], row.get("Port", 0)))


def _ingress_rows(state: State, entry: Mapping[str, Any]) -> Iterable[Json]:
    plain = set(state.tables.services.names("plain"))
    for listener in entry.get("Listeners") or ():
        protocol = listener.get("Protocol") or "tcp"
        named = [service["Name"] for service in listener.get("Services") or ()]
        for service in listener.get("Services") or ():
            if service["Name"] != "*":
                yield _row(state, entry, "ingress-gateway", service["Name"], service, listener, protocol)
                continue
            for name in mesh_services(state):
                if name in plain and name not in named and service_protocol(state, name) == protocol:
                    wild = {**service, "FromWildcard": True}
                    yield _row(state, entry, "ingress-gateway", name, wild, listener, protocol)


def _terminating_rows(state: State, entry: Mapping[str, Any]) -> Iterable[Json]:
    named = [service["Name"] for service in entry.get("Services") or ()]
    for service in entry.get("Services") or ():
        if service["Name"] != "*":
            yield _row(state, entry, "terminating-gateway", service["Name"], service, {}, "")
            continue
        for name in outside_services(state):
            if name not in named:
                yield _row(state, entry, "terminating-gateway", name, {**service, "FromWildcard": True}, {}, "")


def _row(
    state: State,
    entry: Mapping[str, Any],
    kind: str,
    name: str,
    service: Mapping[str, Any],
    listener: Mapping[str, Any],
    protocol: str,
) -> Json:
    row: Json = {"Gateway": {"Name": entry["Name"]}, "Service": {"Name": name}, "GatewayKind": kind}
    if listener.get("Port"):
        row["Port"] = listener["Port"]
    if protocol:
        row["Protocol"] = protocol
    if service.get("Hosts"):
        row["Hosts"] = service["Hosts"]
    for field in ("CAFile", "CertFile", "KeyFile", "SNI"):
        if service.get(field):
            row[field] = service[field]
    if service.get("FromWildcard"):
        row["FromWildcard"] = True
    if kind == "terminating-gateway" and not service.get("DisableAutoHostRewrite"):
        row["AutoHostRewrite"] = True
    index = state.tables.entry_indexes.get((kind, entry["Name"].lower()), (1, 1))[1]
    late = service.get("FromWildcard") or kind == "ingress-gateway"
    since = index if late else 0  # such a row has the kind of what came after the entry
    instances = state.tables.services.of("name", name.lower())
    if any(instance["CreateIndex"] > since for _, instance in instances):
        row["ServiceKind"] = "service"
    return {**row, "CreateIndex": index, "ModifyIndex": index}


def gateway_topics(state: State, gateway: str) -> tuple[Topic, ...]:
    """Return what the rows of a gateway depend on."""
    name = gateway.lower()
    topics: list[Topic] = [("entry", "ingress-gateway", name), ("entry", "terminating-gateway", name)]
    services: list[Mapping[str, Any]] = []
    for listener in (state.tables.entries.get("ingress-gateway", gateway) or {}).get("Listeners") or ():
        services += listener.get("Services") or ()
    services += (state.tables.entries.get("terminating-gateway", gateway) or {}).get("Services") or ()
    names = (service["Name"].lower() for service in services)
    topics += [("gateways",) if name == "*" else ("gateways", name) for name in names]
    return tuple(dict.fromkeys(topics))


def exposure_topics(state: State, service: str) -> tuple[Topic, ...]:
    """Return what the instances of the ingress gateways of a service depend on."""
    entries = state.tables.entries.of_kind("ingress-gateway")
    wild = any(("gateways",) in gateway_topics(state, entry["Name"]) for entry in entries)
    instances: list[Topic] = [("service", gateway.lower()) for gateway in exposing(state, service)]
    of_service: Topic = ("gateways", service.lower())
    return (("kind", "ingress-gateway"), of_service, *instances, *((("gateways",),) if wild else ()))


def mesh_services(state: State) -> list[str]:
    """Return the services with an instance in the mesh."""
    return state.tables.services.names("destination")


def outside_services(state: State) -> list[str]:
    """Return the typical services with an instance that is not native to the mesh, whether or not one has a proxy."""
    return sorted(set(state.tables.services.names("outside")) - {"consul"})


def service_protocol(state: State, name: str) -> str:
    """Return a service's protocol as central config has it."""
    entries = state.tables.entries
    defaults = entries.get("service-defaults", name)
    if defaults is not None and defaults.get("Protocol"):
        return str(defaults["Protocol"])
    common = (entries.get("proxy-defaults", "global") or {}).get("Config") or {}
    return str(common.get("protocol") or "tcp")


def exposing(state: State, service: str) -> list[str]:
    """Return the ingress gateways that expose a service."""
    gateways = [entry["Name"] for entry in state.tables.entries.of_kind("ingress-gateway")]
    wanted = service.lower()
    return [
        name for name in gateways if wanted in {row["Service"]["Name"].lower() for row in gateway_services(state, name)}
    ]
