"""FILE.yaml of `lictor up`. Every mistake is told at once, with file, line and field, before anything starts.

services:
  web:                          # the instance; its service in the mesh has the same name unless `service` says other
    command: python web.py      # run without a shell; $PORT is the port that it has to listen on
    port: 9090                  # a free one if it is not given
    folder: ./web               # where it runs; this file's folder by default
    environment: {GREETING: hello}
    protocol: http              # or tcp
    health: /health             # a path that answers 2xx; otherwise that the port is open
    upstreams: {api: 9191}      # the service called: the loopback port to call it by
    meta: {version: v1}         # what subsets of a service-resolver tell apart
gateway: {port: 8080, hosts: {web: [localhost]}}
config: [policies/]             # entries in HCL or JSON, files or folders; what they do not say is made up: see `plan`
consul: {address: "http://127.0.0.1:8500", token_file: token}   # a Consul that exists; embedded servers without it
vault: {...}                    # with `consul`: as in the sidecar's file; otherwise the agent's own leaves
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lictor.documents import read_file
from policies.entries import DecodeError, decode_entry, normalise_entry
from policies.errors import ConfigError, EntryError, IdentityError, Problem
from policies.identity import parse_service_name
from sidecar.yaml_reader import Section, read_document

PROTOCOLS = ("http", "tcp")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """One instance. `port` 0 is a free one; `health` "" is an open port."""

    id: str
    name: str
    command: tuple[str, ...]
    folder: Path
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
    """What is to run. `consul` and `vault` are blocks for the proxies' files; empty: the embedded servers."""

    services: tuple[Service, ...]
    gateway: Gateway | None = None
    entries: tuple[Json, ...] = ()
    consul: Mapping[str, Any] = field(default_factory=dict)
    vault: Mapping[str, Any] = field(default_factory=dict)


def read_mesh(path: Path) -> MeshFile:
    """Return what a file says. Raise ConfigError with every mistake in it."""
    document = read_document(path)
    block = document.section("services")
    services = tuple(_service(block, str(key.value), path.parent) for key, _ in block.node.value)
    if not services:
        document.note("services", "there is none", "add `services: {web: {command: ...}}`")
    block.done()
    gateway = _gateway(document.section("gateway"), services) if document.has("gateway") else None
    mesh = MeshFile(
        services,
        gateway,
        _entries(document, path.parent),
        _block(document, "consul"),
        _block(document, "vault"),
    )
    if mesh.vault and not mesh.consul:
        document.note("vault", "needs a `consul` block: the embedded servers have a Vault of their own")
    document.done()
    _check_upstreams(document, mesh)
    _check_ports(document, mesh)
    document.raise_problems()
    return mesh


def _service(block: Section, key: str, base: Path) -> Service:
    row = block.section(key)
    name = row.text("service", key)
    try:
        parse_service_name(name)
    except IdentityError as error:
        row.note("service", str(error))
    folder = (base / row.text("folder", ".")).resolve()
    if not folder.is_dir():
        row.note("folder", f"{folder} is no folder")
    service = Service(
        id=key,
        name=name,
        command=_command(row, folder),
        folder=folder,
        port=row.port("port"),
        environment=row.pairs("environment"),
        protocol=row.text("protocol", "http", choices=PROTOCOLS),
        health=row.text("health"),
        upstreams=_upstreams(row),
        meta=row.pairs("meta"),
    )
    if service.health and not service.health.startswith("/"):
        row.note("health", f"{service.health!r} is no path", "write /health")
    row.done()
    return service


def _command(row: Section, folder: Path) -> tuple[str, ...]:
    raw = row.plain("command")
    if isinstance(raw, list):
        words = [str(word) for word in raw]
    else:
        try:
            words = shlex.split(row.text("command", required=True))
        except ValueError as error:
            row.note("command", f"cannot be read: {error}", "close every quote, or write a list of words")
            return ()
    if words and not _found(words[0], folder):
        row.note("command", f"{words[0]} is not found", "install it, or give its path")
    return tuple(words)


def _found(program: str, folder: Path) -> bool:
    if "/" in program:
        return os.access(folder / program, os.X_OK)
    return shutil.which(program) is not None


def _upstreams(row: Section) -> dict[str, int]:
    block = row.section("upstreams")
    ports = {str(key.value): block.port(str(key.value), required=True) for key, _ in block.node.value}
    block.done()
    return ports


def _gateway(block: Section, services: tuple[Service, ...]) -> Gateway:
    hosts = block.section("hosts")
    names = {service.name for service in services}
    found: dict[str, tuple[str, ...]] = {}
    for key, _ in hosts.node.value:
        name = str(key.value)
        found[name] = hosts.texts(name)
        if name not in names:
            hosts.note(name, "is no service of this file", f"there are {', '.join(sorted(names))}")
    hosts.done()
    gateway = Gateway(block.port("port", 8080), found, block.text("name", "gateway"))
    if not found and not block.has("hosts"):
        block.note("hosts", "is missing", "add `hosts: {web: [localhost]}`: which service answers to which host")
    block.done()
    return gateway


def _block(document: Section, key: str) -> Mapping[str, Any]:
    value = document.plain(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        document.note(key, "expected a mapping")
        return {}
    return value


def _entries(document: Section, base: Path) -> tuple[Json, ...]:
    """Return the config entries of every file named, checked as Consul would. Mistakes are noted with file and line."""
    found: list[Json] = []
    for name in document.texts("config"):
        path = base / name
        files = sorted(file for file in path.iterdir() if file.suffix in {".hcl", ".json"}) if path.is_dir() else [path]
        if not files:
            document.note("config", f"{path} holds no .hcl and no .json")
        for file in files:
            try:
                given = read_file(str(file))
                found.append(normalise_entry(decode_entry(dict(given.data))))
            except ConfigError as error:
                document.problems += error.problems
            except (DecodeError, EntryError) as error:
                document.problems.append(Problem(str(file), " ".join(str(error).split())))
    return tuple(found)


# --- what the parts say together -----------------------------------------------------------------------------------


def _check_upstreams(document: Section, mesh: MeshFile) -> None:
    names = {service.name for service in mesh.services}
    external = bool(mesh.consul)
    named = {str(entry["Name"]) for entry in mesh.entries if entry["Kind"].startswith("service-")}
    for service in mesh.services:
        for upstream in service.upstreams:
            if upstream not in names | named and not external:
                where = f"services.{service.id}.upstreams.{upstream}"
                fix = f"there are {', '.join(sorted(names))}"
                document.problems.append(Problem(f"{document.file}: {where}", "is no service of this file", fix))
    circle = circle_of({service.name: sorted(service.upstreams) for service in mesh.services})
    if circle:
        text = f"call each other in a circle: {' -> '.join(circle)}"
        fix = "none of them could start first; call one of them by another way"
        document.problems.append(Problem(f"{document.file}: services", text, fix))


def circle_of(calls: Mapping[str, list[str]]) -> list[str]:
    """Return a circle of calls, its first member again at the end, or nothing."""
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return []
        for called in calls.get(name, ()):
            found = visit(called, [*above, name])
            if found:
                return found
        done.add(name)
        return []

    return next((circle for name in sorted(calls) if (circle := visit(name, []))), [])


def _check_ports(document: Section, mesh: MeshFile) -> None:
    """Note ports that two want, and ports that somebody else has."""
    wanted: dict[int, str] = {}
    for where, port in _ports(mesh):
        if port in wanted:
            document.problems.append(Problem(f"{document.file}: {where}", f"port {port} is that of {wanted[port]} too"))
            continue
        wanted[port] = where
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                text = f"port {port} cannot be had: {(error.strerror or str(error)).lower()}"
                fix = "stop who listens there, or give another port"
                document.problems.append(Problem(f"{document.file}: {where}", text, fix))


def _ports(mesh: MeshFile) -> list[tuple[str, int]]:
    found = [(f"services.{service.id}.port", service.port) for service in mesh.services if service.port]
    for service in mesh.services:
        found += [(f"services.{service.id}.upstreams.{name}", port) for name, port in service.upstreams.items()]
    return found + ([("gateway.port", mesh.gateway.port)] if mesh.gateway else [])
