"""What a file comes to: the order of starting, the entries that it does not write itself, the proxies' settings. Pure.

Where the file's own entries are silent, these are made: `service-defaults` with the protocol; an intention for each
upstream and each host of the gateway, and for nothing else: who is not named may not call; the `ingress-gateway`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lictor.up.file import MeshFile, Service
from policies.chain import HTTP_PROTOCOLS

Json = dict[str, Any]
GENERATED = "made by lictor up"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one instance: its app's, its sidecar's in the mesh, its sidecar's admin endpoint."""

    app: int
    side: int
    admin: int


def in_order(services: Sequence[Service]) -> list[list[Service]]:
    """Return the services in waves: who is called starts before who calls."""
    left, waves = list(services), []
    while left:
        names = {service.name for service in left}
        wave = [one for one in left if not any(name in names and name != one.name for name in one.upstreams)]
        wave = wave or left  # a circle: the reader of the file has refused it
        waves.append(wave)
        left = [one for one in left if one not in wave]
    return waves


def entries_of(mesh: MeshFile) -> list[Json]:
    """Return every entry to be written, in an order that Consul takes: protocols first, then what needs them."""
    written = {(entry["Kind"], str(entry.get("Name", ""))) for entry in mesh.entries}
    made = [entry for entry in _made(mesh) if (entry["Kind"], entry["Name"]) not in written]
    return sorted([*mesh.entries, *made], key=lambda entry: _RANKS.get(entry["Kind"], len(_RANKS)))


_RANKS = {
    kind: rank
    for rank, kind in enumerate(
        (
            "proxy-defaults",
            "mesh",
            "service-defaults",
            "service-resolver",
            "service-splitter",
            "service-router",
            "jwt-provider",
            "service-intentions",
            "ingress-gateway",
            "terminating-gateway",
        )
    )
}


def _made(mesh: MeshFile) -> list[Json]:
    protocols = {service.name: service.protocol for service in mesh.services}
    found: list[Json] = [
        {"Kind": "service-defaults", "Name": name, "Protocol": protocol} for name, protocol in protocols.items()
    ]
    for name in protocols:
        callers = sorted({service.name for service in mesh.services if name in service.upstreams})
        if mesh.gateway is not None and name in mesh.gateway.hosts:
            callers.append(mesh.gateway.name)
        if callers:
            sources = [{"Name": caller, "Action": "allow", "Description": GENERATED} for caller in callers]
            found.append({"Kind": "service-intentions", "Name": name, "Sources": sources})
    if mesh.gateway is not None:
        services = [
            {"Name": name, **({"Hosts": list(hosts)} if hosts else {})} for name, hosts in mesh.gateway.hosts.items()
        ]
        listener = {"Port": mesh.gateway.port, "Protocol": "http", "Services": services}
        found.append({"Kind": "ingress-gateway", "Name": mesh.gateway.name, "Listeners": [listener]})
    return found


def sidecar_settings(service: Service, ports: Ports, protocols: Mapping[str, str], shared: Mapping[str, Any]) -> Json:
    """Return the sidecar's file of an instance. `shared` is what every proxy is told: Consul, issuer, Vault."""
    check: Json = {"name": "alive", "interval": "1s", "timeout": "1s", "status": "critical"}
    if service.health:
        check["http"] = f"http://127.0.0.1:{ports.app}{service.health}"
    else:
        check["tcp"] = f"127.0.0.1:{ports.app}"
    upstreams = [_upstream(name, port, protocols) for name, port in service.upstreams.items()]
    block = {
        "name": service.name,
        "id": service.id,
        "port": ports.app,
        "address": "127.0.0.1",
        "meta": dict(service.meta),
        "check": check,
        "connect": {"sidecar_service": {"port": ports.side, "proxy": {"upstreams": upstreams}}},
    }
    return {"service": block, **shared, "admin": f"127.0.0.1:{ports.admin}", "drain": "5s", "log": {"level": "warning"}}


def _upstream(name: str, port: int, protocols: Mapping[str, str]) -> Json:
    row: Json = {"destination_name": name, "local_bind_port": port}
    if protocols.get(name, "http") not in HTTP_PROTOCOLS:
        row["config"] = {"protocol": protocols[name]}
    return row


def gateway_settings(mesh: MeshFile, admin: int, shared: Mapping[str, Any]) -> Json:
    """Return the gateway's file."""
    if mesh.gateway is None:
        return {}
    block = {"kind": "ingress", "service": mesh.gateway.name, "id": mesh.gateway.name}
    block["address"] = f"127.0.0.1:{mesh.gateway.port}"
    return {"gateway": block, **shared, "admin": f"127.0.0.1:{admin}", "drain": "5s", "log": {"level": "warning"}}


def curl_of(mesh: MeshFile, service: Service, ports: Ports) -> str:
    """Return what one types to reach a service: through the gateway, else at its own port."""
    if mesh.gateway is not None and service.name in mesh.gateway.hosts:
        hosts = mesh.gateway.hosts[service.name]
        host = next(iter(hosts), f"{service.name}.ingress.local").replace("*", "any")
        url = f"http://127.0.0.1:{mesh.gateway.port}/"
        return f"curl http://localhost:{mesh.gateway.port}/" if host == "localhost" else f"curl -H 'Host: {host}' {url}"
    if service.protocol == "http":
        return f"curl http://127.0.0.1:{ports.app}/"
    return f"nc 127.0.0.1 {ports.app}"
