"""What a file comes to: the order of starting, the entries that it does not write itself, the proxies' settings. Pure.

Where the file's own entries are silent, these are made: `service-defaults` with the protocol; an intention for each
upstream and each host of the gateway, and for nothing else: who is not named may not call; the `ingress-gateway`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from policies.chain import HTTP_PROTOCOLS
from policies.discovery import compile_chain
from policies.entries import Entries
from policies.errors import ChainError

Json = dict[str, Any]
GENERATED = "made by lictor up"
NO_CHECK = "none"
LINGER = "5s"  # how long a proxy lets what is under way finish
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


@dataclass(frozen=True, slots=True)
class Service:
    """One instance. `port` 0 is a free one; `health` "" is an open port, `none` no check at all."""

    id: str
    name: str
    command: tuple[str, ...]
    folder: PurePath
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "http"
    health: str = ""
    upstreams: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The ingress gateway: hosts by service; an empty list is Consul's default host."""

    port: int
    hosts: Mapping[str, tuple[str, ...]]
    name: str = "gateway"


@dataclass(frozen=True, slots=True)
class MeshFile:
    """What is to run. `links` are the blocks for the proxies' files, by service; empty: the embedded servers."""

    services: tuple[Service, ...]
    gateway: Gateway | None = None
    entries: tuple[Json, ...] = ()
    links: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one instance: its app's, its sidecar's in the mesh, its sidecar's admin endpoint."""

    app: int
    side: int
    admin: int


def ports_wanted(mesh: MeshFile) -> set[int]:
    """Return every port that the file names: none of them is free for anything else."""
    found = {service.port for service in mesh.services} | ({mesh.gateway.port} if mesh.gateway else set())
    return (found | {port for service in mesh.services for port in service.upstreams.values()}) - {0}


def in_order(services: Sequence[Service]) -> list[list[Service]]:
    """Return the services in waves: who is called comes before who calls."""
    left, waves = list(services), []
    while left:
        names = {service.name for service in left}
        wave = [one for one in left if not any(name in names and name != one.name for name in one.upstreams)]
        wave = wave or left  # a circle: the reader of the file has refused it
        waves.append(wave)
        left = [one for one in left if one not in wave]
    return waves


def expanded(word: str, variables: Mapping[str, str]) -> str:
    """Return a word of a command with `$NAME` and `${NAME}` put in; an unknown one is left for a shell below."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), word)


# --- entries -------------------------------------------------------------------------------------------------------

_KINDS = (
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
_RANKS = {kind: rank for rank, kind in enumerate(_KINDS)}


def entries_of(mesh: MeshFile) -> list[Json]:
    """Return every entry to be written, in an order that Consul takes: protocols first, then what needs them."""
    return sorted([*mesh.entries, *made_entries(mesh)], key=lambda entry: _RANKS.get(entry["Kind"], len(_RANKS)))


def made_entries(mesh: MeshFile) -> list[Json]:
    """Return the entries that the file does not write itself."""
    written = {(entry["Kind"], str(entry.get("Name", ""))) for entry in mesh.entries}
    return [entry for entry in _made(mesh) if (entry["Kind"], entry["Name"]) not in written]


def _made(mesh: MeshFile) -> list[Json]:
    protocols = {service.name: service.protocol for service in mesh.services}
    found: list[Json] = [
        {"Kind": "service-defaults", "Name": name, "Protocol": protocol} for name, protocol in protocols.items()
    ]
    callers = callers_of(mesh)
    for name in protocols:
        if callers.get(name):
            sources = [{"Name": one, "Action": "allow", "Description": GENERATED} for one in sorted(callers[name])]
            found.append({"Kind": "service-intentions", "Name": name, "Sources": sources})
    if mesh.gateway is not None:
        services = [
            {"Name": name, **({"Hosts": list(hosts)} if hosts else {})} for name, hosts in mesh.gateway.hosts.items()
        ]
        listener = {"Port": mesh.gateway.port, "Protocol": "http", "Services": services}
        found.append({"Kind": "ingress-gateway", "Name": mesh.gateway.name, "Listeners": [listener]})
    return found


def callers_of(mesh: MeshFile) -> dict[str, set[str]]:
    """Return by service who reaches it: by its own name, or by a chain of the file's entries that leads to it."""
    calls = [(service.name, upstream) for service in mesh.services for upstream in service.upstreams]
    calls += [(mesh.gateway.name, name) for name in mesh.gateway.hosts] if mesh.gateway is not None else []
    protocols = [
        {"Kind": "service-defaults", "Name": service.name, "Protocol": service.protocol} for service in mesh.services
    ]
    entries = Entries([*protocols, *mesh.entries])
    callers: dict[str, set[str]] = {}
    for caller, called in calls:
        for name in _reached(entries, called):
            callers.setdefault(name, set()).add(caller)
    return callers


def _reached(entries: Entries, service: str) -> set[str]:
    try:
        chain = compile_chain(entries, service, datacenter="dc1", trust_domain="lictor.up")
    except ChainError:
        return {service}
    return {str(target["Service"]) for target in chain["Targets"].values()} or {service}


# --- the proxies' files --------------------------------------------------------------------------------------------


def sidecar_settings(service: Service, ports: Ports, protocols: Mapping[str, str], shared: Mapping[str, Any]) -> Json:
    """Return the sidecar's file of an instance. `shared` is what every proxy is told: Consul, issuer, Vault."""
    upstreams = [_upstream(name, port, protocols) for name, port in service.upstreams.items()]
    block = {
        "name": service.name,
        "id": service.id,
        "port": ports.app,
        "address": "127.0.0.1",
        "meta": dict(service.meta),
        "connect": {"sidecar_service": {"port": ports.side, "proxy": {"upstreams": upstreams}}},
    }
    if service.health != NO_CHECK:
        block["check"] = _check(service, ports.app)
    return {"service": block, **shared, **_common(ports.admin)}


def _common(admin: int) -> Json:
    return {"admin": f"127.0.0.1:{admin}", "drain": LINGER, "log": {"level": "warning"}}


def _check(service: Service, port: int) -> Json:
    check: Json = {"name": "alive", "interval": "1s", "timeout": "1s", "status": "critical"}
    if service.health:
        return {**check, "http": f"http://127.0.0.1:{port}{service.health}"}
    return {**check, "tcp": f"127.0.0.1:{port}"}


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
    return {"gateway": block, **shared, **_common(admin)}


def ways_to(mesh: MeshFile, service: Service, ports: Ports) -> str:
    """Return what one types to reach a service: through the gateway, else by a caller's upstream, else directly."""
    if mesh.gateway is not None and service.name in mesh.gateway.hosts:
        hosts = mesh.gateway.hosts[service.name]
        host = next(iter(hosts), f"{service.name}.ingress.local").replace("*", "any")
        if host == "localhost":
            return f"curl http://localhost:{mesh.gateway.port}/"
        return f"curl -H 'Host: {host}' http://127.0.0.1:{mesh.gateway.port}/"
    if service.health == NO_CHECK:
        return "runs; it is not called"
    ways = [
        (one.upstreams[service.name], f"as {one.id} calls it") for one in mesh.services if service.name in one.upstreams
    ]
    port, whose = next(iter(ways), (ports.app, "past the mesh"))
    word = f"curl http://127.0.0.1:{port}/" if service.protocol == "http" else f"nc 127.0.0.1 {port}"
    return f"{word}   ({whose})"
