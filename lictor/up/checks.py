"""What the parts of FILE.yaml say together: who calls whom, who wants which port. And how a mistake is told."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from lictor.up.plan import MeshFile
from policies.errors import Problem
from sidecar.yaml_reader import Section

_PLACE = re.compile(r"(?P<file>.*?):(?P<line>\d+)(?::.*)?", re.DOTALL)
_VIRTUAL = ("service-resolver", "service-router", "service-splitter")
_CURES = {  # by field: what to write, where a problem does not say it itself
    "services": "write `services: {web: {command: ...}}`",
    "command": "write `command: ./web --port $PORT`, or a list of words",
    "port": "write a number such as `port: 9090`",
    "folder": "write `folder: ./web`",
    "environment": "write `environment: {NAME: value}`",
    "protocol": "write `protocol: http` or `protocol: tcp`",
    "health": "write `health: /health`",
    "upstreams": "write `upstreams: {api: 9191}`",
    "meta": "write `meta: {version: v1}`",
    "gateway": "write `gateway: {port: 8080, hosts: {web: [localhost]}}`",
    "hosts": "write `hosts: {web: [localhost]}`",
    "config": "write `config: [policies/]`",
    "consul": 'write `consul: {address: "http://127.0.0.1:8500"}`',
    "vault": 'write `vault: {address: "https://vault:8200", auth: {...}}`',
}


def explained(problems: Iterable[Problem], file: str) -> tuple[Problem, ...]:
    """Return problems each once, those of `file` first, by line; with a cure by field where one has none."""

    def place(problem: Problem) -> tuple[bool, str, int]:
        found = _PLACE.fullmatch(problem.where)
        named = found["file"] if found else problem.where
        return (named != file, named, int(found["line"]) if found else 0)

    return tuple(sorted(dict.fromkeys(_cured(problem) for problem in problems), key=place))


def _cured(problem: Problem) -> Problem:
    if problem.fix:
        return problem
    words = re.findall(r"\w+", problem.where.rpartition(": ")[2])
    fix = next((_CURES[word] for word in reversed(words) if word in _CURES), "")
    return Problem(problem.where, problem.message, fix)


def check_together(
    document: Section, mesh: MeshFile, rows: Mapping[str, Section], upstreams: Mapping[str, Section]
) -> None:
    """Note what no part is wrong about alone. `rows` and `upstreams` are the services' blocks."""
    _check_protocols(mesh, rows)
    _check_upstreams(mesh, upstreams)
    _check_ports(document, mesh, rows, upstreams)


def _check_protocols(mesh: MeshFile, rows: Mapping[str, Section]) -> None:
    first: dict[str, tuple[str, str]] = {}
    for service in mesh.services:
        owner, protocol = first.setdefault(service.name, (service.id, service.protocol))
        if service.protocol != protocol:
            text = f"{service.name} is {service.protocol} here and {protocol} in {owner}"
            rows[service.id].note("protocol", text, "a service has one protocol: say the same in both")


def _check_upstreams(mesh: MeshFile, blocks: Mapping[str, Section]) -> None:
    names = {service.name for service in mesh.services}
    virtual = {str(entry["Name"]) for entry in mesh.entries if entry["Kind"] in _VIRTUAL}
    for service in mesh.services:
        for upstream in service.upstreams:
            if upstream not in names | virtual and not mesh.links:
                fix = f"there are {', '.join(sorted(names | virtual))}"
                blocks[service.id].note(upstream, "is no service of this file", fix)
    circle = circle_of(calls_of(mesh))
    if circle:
        caller = next(one for one in mesh.services if one.name == circle[0] and circle[1] in one.upstreams)
        text = f"call each other in a circle: {' -> '.join(circle)}"
        fix = "none of them could start first; take one of these upstreams out"
        blocks[caller.id].note(circle[1], text, fix)


def calls_of(mesh: MeshFile) -> dict[str, list[str]]:
    """Return by service whom its instances call."""
    calls: dict[str, set[str]] = {}
    for service in mesh.services:
        calls.setdefault(service.name, set()).update(service.upstreams)
    return {name: sorted(called) for name, called in calls.items()}


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


# --- ports ---------------------------------------------------------------------------------------------------------


def _check_ports(
    document: Section, mesh: MeshFile, rows: Mapping[str, Section], upstreams: Mapping[str, Section]
) -> None:
    """Note ports that two want, and ports that somebody else has."""
    wanted: list[tuple[Section, str, int]] = []
    for service in mesh.services:
        wanted += [(rows[service.id], "port", service.port)] if service.port else []
        wanted += [(upstreams[service.id], name, port) for name, port in service.upstreams.items() if port]
    if mesh.gateway is not None:
        wanted.append((document.section("gateway"), "port", mesh.gateway.port))
    owners: dict[int, str] = {}
    for section, key, port in wanted:
        if port in owners:
            section.note(key, f"port {port} is that of {owners[port]} too", "give each a port of its own")
            continue
        owners[port] = f"{section.path}.{key}"
        reason = taken(port)
        if reason:
            section.note(key, f"port {port} cannot be had: {reason}", "stop who listens there, or give another port")


def taken(port: int) -> str:
    """Return why nobody can listen on a loopback port now, with the process that does if it can be seen; or ""."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower() + _holder(port)
    return ""


def _holder(port: int) -> str:
    """Return ` by NAME (process N)` of who listens, as far as this user may see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines(Path(table))[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and sockets & _opened(process / "fd"):
            name = "".join(_lines(process / "comm"))
            return f" by {name} (process {process.name})"
    return ""


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _opened(folder: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # another user's, or it has just ended
        for link in folder.iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found
