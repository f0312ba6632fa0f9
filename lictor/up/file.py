"""FILE.yaml of `lictor up`. Every mistake is told at once, with file, line and field, before anything starts.

services:
  web:                          # the instance; its service in the mesh has the same name unless `service` says other
    command: python web.py      # run without a shell; $PORT is the port that it has to listen on
    port: 9090                  # a free one if it is not given
    folder: ./web               # where it runs; this file's folder by default
    environment: {GREETING: hello}
    protocol: http              # or tcp
    health: /health             # a path that answers 2xx; without it an open port is enough; `none` looks at nothing
    upstreams: {api: 9191}      # the service called: the loopback port to call it by
    meta: {version: v1}         # what subsets of a service-resolver tell apart
gateway: {port: 8080, hosts: {web: [localhost]}}
config: [policies/]             # entries: files or folders of HCL or JSON, or written out here; the rest: see `plan`
consul: {address: "http://127.0.0.1:8500", token_file: tokens/$SERVICE}   # one that exists; else embedded servers
vault: {...}                    # with `consul`: as in the sidecar's file; otherwise the agent's own leaves
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lictor.up.checks import check_together, explained
from lictor.up.entries import read_entries, refusals
from lictor.up.links import read_links
from lictor.up.plan import NO_CHECK, Gateway, MeshFile, Service, entries_of, expanded
from policies.errors import ConfigError, IdentityError, Problem
from policies.identity import parse_service_name
from sidecar.yaml_reader import Section, read_document

PROTOCOLS = ("http", "tcp")
_BEGIN = "begin with `services: {web: {command: ...}}`; `lictor init` writes a file to begin with"


@dataclass(slots=True)
class _Reading:
    """A document that is read: its parts are kept for the checks that look at several of them."""

    document: Section
    base: Path
    environment: Mapping[str, str]
    rows: dict[str, Section] = field(default_factory=dict)
    upstreams: dict[str, Section] = field(default_factory=dict)


def read_mesh(path: Path, environment: Mapping[str, str] = os.environ) -> MeshFile:
    """Return what a file says. Raise ConfigError with every mistake in it, in the order of the lines."""
    return _mesh(_Reading(_document(path), path.parent.absolute(), environment))


def _mesh(reading: _Reading) -> MeshFile:
    document = reading.document
    block = document.section("services")
    services = tuple(_service(reading, block, key) for key in _keys(block))
    if not services and not document.problems:
        document.note("services", "there is none", "add `services: {web: {command: ...}}`")
    block.done()
    gateway = _gateway(document.section("gateway"), services) if document.has("gateway") else None
    located = read_entries(document, reading.base)
    entries = tuple(one.entry for one in located)
    who = [*{service.name: None for service in services}, *([gateway.name] if gateway else [])]
    mesh = MeshFile(services, gateway, entries, read_links(document, reading.base, who))
    document.done()
    check_together(document, mesh, reading.rows, reading.upstreams)
    if not document.problems and not mesh.links:
        document.problems += refusals(entries_of(mesh), located, document.file)
    if document.problems:
        raise ConfigError(explained(document.problems, document.file))
    return mesh


def _document(path: Path) -> Section:
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.yaml"))
        fix = f"name the file: lictor up {path / inside[0]}" if inside else "name a file; `lictor init` writes one"
        raise ConfigError((Problem(str(path), "is a folder", fix),))
    try:
        return read_document(path)
    except ConfigError as error:
        raise ConfigError(tuple(_better(path, problem) for problem in error.problems)) from error


def _better(path: Path, problem: Problem) -> Problem:
    """Return a problem of the reader, which knows sidecars' files, as one of this file."""
    if not path.exists():
        return Problem(str(path), "is not there", "`lictor init` writes a file to begin with, or name another one")
    if problem.message.startswith("expected a mapping"):
        return Problem(problem.where, "expected a mapping at the top of the file", _BEGIN)
    if "codec can't decode" in problem.message:
        return Problem(problem.where, "is no text in UTF-8", "name a YAML file; `lictor init` writes one")
    if problem.message.startswith("this is not YAML"):
        fix = "indent with spaces, and quote text that holds `: `, ` #`, or begins with a sign"
        return Problem(problem.where, problem.message, fix)
    return problem


def _keys(block: Section) -> list[str]:
    return list(dict.fromkeys(str(key.value) for key, _ in block.node.value))


# --- services ------------------------------------------------------------------------------------------------------


def _service(reading: _Reading, block: Section, key: str) -> Service:
    told = len(block.problems)
    row = reading.rows[key] = block.section(key)
    reading.upstreams[key] = row
    if len(block.problems) > told:  # no mapping: nothing more can be said about it
        return Service(key, key, (), reading.base)
    name = row.text("service", key)
    for place, text in (("", key), ("service", name)):
        try:
            parse_service_name(text)
        except IdentityError as error:
            row.note(place, str(error), "use letters, digits, - and _")
            break
    folder = (reading.base / row.text("folder", ".")).resolve()
    if not folder.is_dir():
        row.note("folder", f"{folder} is no folder", "make it, or name another; it is relative to this file")
    environment = _pairs(row, "environment")
    service = Service(
        id=key,
        name=name,
        command=_command(row, folder, {**reading.environment, **environment}),
        folder=folder,
        port=row.port("port"),
        environment=environment,
        protocol=row.text("protocol", "http", choices=PROTOCOLS),
        health=row.text("health"),
        upstreams=_upstreams(reading, row, key),
        meta=_pairs(row, "meta"),
    )
    if service.health and service.health != NO_CHECK and not service.health.startswith("/"):
        row.note("health", f"{service.health!r} is no path", "write `health: /health`, or `none` to look at nothing")
    if service.health.startswith("/") and service.protocol == "tcp":
        row.note(
            "health", "a path is asked over HTTP, and this is a tcp service", "leave it out: an open port is enough"
        )
    row.done()
    return service


def _pairs(row: Section, key: str) -> dict[str, str]:
    """Return a mapping of text to text; a name that stands twice is a mistake, not a choice."""
    block = row.section(key) if row.has(key) and isinstance(row.plain(key), dict) else None
    if block is not None:
        names = [str(name.value) for name, _ in block.node.value]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            block.note(name, "stands here twice", "keep one of them")
    return row.pairs(key)


def _command(row: Section, folder: Path, variables: Mapping[str, str]) -> tuple[str, ...]:
    raw = row.plain("command")
    if isinstance(raw, list):
        words = [str(word) for word in raw]
    else:
        try:
            words = shlex.split(row.text("command", required=True))
        except ValueError as error:
            row.note("command", f"cannot be read: {error}", "close every quote, or write a list of words")
            return ()
    if not words:
        if row.has("command"):
            row.note("command", "is empty", "say what to run: `command: ./web --port $PORT`")
        return ()
    trouble = unfit(expanded(words[0], variables), folder, variables.get("PATH"))
    if trouble:
        row.note("command", *trouble)
    return tuple(words)


def unfit(program: str, folder: Path, path: str | None) -> tuple[str, str] | None:
    """Return why a program cannot be run and how to mend it; None when it can."""
    if "/" not in program:
        found = shutil.which(program, path=path)
        return None if found else (f"{program} is not found", "install it, mend the spelling, or give its path")
    file = folder / program
    if not file.is_file():
        return f"{file} is not found", "a path is relative to the service's `folder`"
    return None if os.access(file, os.X_OK) else (f"{file} may not be executed", f"type: chmod +x {file}")


def _upstreams(reading: _Reading, row: Section, key: str) -> dict[str, int]:
    block = reading.upstreams[key] = row.section("upstreams")
    ports = {name: block.port(name, required=True) for name in _keys(block)}
    block.done()
    return ports


# --- the gateway ---------------------------------------------------------------------------------------------------


def _gateway(block: Section, services: tuple[Service, ...]) -> Gateway:
    protocols = {service.name: service.protocol for service in services}
    hosts = block.section("hosts")
    found: dict[str, tuple[str, ...]] = {}
    for name in _keys(hosts):
        one = isinstance(hosts.plain(name), str)
        found[name] = (hosts.text(name),) if one else hosts.texts(name)
        if name not in protocols:
            hosts.note(name, "is no service of this file", f"there are {', '.join(sorted(protocols)) or 'none'}")
        elif protocols[name] == "tcp":
            hosts.note(
                name, "is a tcp service, and the gateway speaks HTTP", "take it out, or give it `protocol: http`"
            )
    hosts.done()
    gateway = Gateway(block.port("port", 8080), found, block.text("name", "gateway"))
    if not found:
        block.note("hosts", "is missing", "add `hosts: {web: [localhost]}`: which service answers to which host")
    if gateway.name in protocols:
        fix = "give the gateway a name of its own: `gateway: {name: edge, ...}`"
        block.note("name", f"{gateway.name} is a service of this file", fix)
    block.done()
    return gateway
