"""`lictor up`, `lictor run` and `lictor init`: a mesh of one's own services."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlplane.consul.settings import consul_settings
from lictor.commands.agent import Environment, complain, say
from lictor.flags import Words, add, add_agent_flags, agent_overrides, word
from policies.errors import ConfigError, IdentityError, Problem
from policies.identity import parse_service_name

if TYPE_CHECKING:
    from lictor.up.plan import MeshFile, Service

LAST_PORT = 65535

_UP_EXAMPLES = """examples:
  lictor init && lictor up                              a file to begin with, and its mesh
  lictor up mesh.yaml                                   Ctrl-C ends everything
  lictor up mesh.yaml --check                           tell every mistake, start nothing
"""
_RUN_EXAMPLES = """examples:
  lictor run --name web --port 9090 -- python web.py    a process with a sidecar, in the mesh of the local agent
  lictor run --name web --port 9090 --upstream api:9191 --http-addr 127.0.0.1:8500 -- ./web
"""
TEMPLATE = """# A mesh of your own services: `lictor up`. The command is run without a shell; $PORT is its port.
services:
  web:
    command: python3 -m http.server $PORT --bind 127.0.0.1
    # upstreams: {api: 9191}       # calls api at http://127.0.0.1:9191
  # api:
  #   command: ./api --port $PORT
  #   health: /health
  #   meta: {version: v1}

gateway:
  port: 8080
  hosts: {web: [localhost]}

# config: [policies/]              # config entries in HCL: splitters, resolvers, intentions
"""


def add_to(words: Words) -> None:
    """Add the three words and their flags."""
    up = word(words, "up", "run a mesh of your own services from one file", _UP_EXAMPLES)
    up.add_argument("file", nargs="?", type=Path, default=Path("mesh.yaml"), metavar="FILE", help="mesh.yaml")
    add(up, "check", action="store_true", help="read the file, tell every mistake, and stop")
    _add_wait(up)
    up.set_defaults(run=_up)
    run = word(words, "run", "run one process with a sidecar beside it", _RUN_EXAMPLES)
    add(run, "name", required=True, metavar="SERVICE", help="its service in the mesh")
    add(run, "id", default="", metavar="ID", help="of the instance; the service's name")
    add(run, "port", default="", metavar="PORT", help="the process listens there; a free one, as $PORT")
    add(run, "upstream", action="append", default=[], metavar="SERVICE:PORT", help="may be repeated")
    add(run, "protocol", choices=("http", "tcp"), default="http", help="http")
    add(run, "health", default="", metavar="PATH", help="a path that answers 2xx, or none; an open port")
    add(run, "meta", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    _add_wait(run)
    add_agent_flags(run)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    run.set_defaults(run=_run)
    init = word(words, "init", "write a file for `lictor up` to begin with", _UP_EXAMPLES)
    init.add_argument("file", nargs="?", type=Path, default=Path("mesh.yaml"), metavar="FILE", help="mesh.yaml")
    init.set_defaults(run=_init)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    text = "how long an app may take to be ready; 60"
    add(parser, "wait", type=float, default=60.0, metavar="SECONDS", help=text)


def _init(arguments: argparse.Namespace, _: Environment) -> int:
    try:
        with arguments.file.open("x") as output:
            output.write(TEMPLATE)
    except FileExistsError:
        return complain(f"{arguments.file} is there already; nothing was changed")
    except OSError as error:
        return complain(f"{arguments.file}: {error.strerror}")
    say(f"{arguments.file} is written: lictor up {arguments.file}")
    return 0


def _up(arguments: argparse.Namespace, _: Environment) -> int:
    from lictor.up.file import read_mesh  # noqa: PLC0415 - heavy

    mesh = read_mesh(arguments.file)
    if arguments.check:
        say(f"{arguments.file} is good: {', '.join(service.id for service in mesh.services)}")
        return 0
    return _live(mesh, seconds=arguments.wait)


def _run(arguments: argparse.Namespace, environment: Environment) -> int:
    problems: list[Problem] = []
    service = _service(arguments, environment, problems)
    link: dict[str, Any] = {}
    try:
        from lictor.up.links import link_of  # noqa: PLC0415 - heavy

        link = link_of(consul_settings(environment, agent_overrides(arguments)))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(tuple(problems))
    from lictor.up.links import OPERATOR  # noqa: PLC0415
    from lictor.up.plan import MeshFile  # noqa: PLC0415

    mesh = MeshFile((service,), links={service.name: link, OPERATOR: link})
    return _live(mesh, seconds=arguments.wait, writes=False, restarts=False)


def _service(arguments: argparse.Namespace, environment: Environment, problems: list[Problem]) -> Service:
    """Return the one service that the flags tell of. Mistakes are added to `problems`."""
    from lictor.up.checks import taken  # noqa: PLC0415 - heavy
    from lictor.up.file import unfit  # noqa: PLC0415
    from lictor.up.plan import NO_CHECK, Service, expanded  # noqa: PLC0415

    for flag, name in (("--name", arguments.name), ("--id", arguments.id or arguments.name)):
        try:
            parse_service_name(name)
        except IdentityError as error:
            problems.append(Problem(f"{flag} {name}", str(error), "use letters, digits, - and _"))
            break
    upstreams = _pairs("--upstream", arguments.upstream, ":", "write --upstream api:9191", problems)
    ports = {name: _port(f"--upstream {name}:{port}", port, problems) for name, port in upstreams.items()}
    own = _port(f"--port {arguments.port}", arguments.port, problems) if arguments.port else 0
    owners: dict[int, str] = {}
    for flag, port in (("--port", own), *((f"--upstream {name}", port) for name, port in ports.items())):
        if port and port in owners:
            problems.append(Problem(flag, f"port {port} is that of {owners[port]} too", "give each a port of its own"))
        elif port and (reason := taken(port)):
            fix = "stop who listens there, or give another port"
            problems.append(Problem(flag, f"port {port} cannot be had: {reason}", fix))
        owners.setdefault(port, flag)
    if arguments.health and arguments.health != NO_CHECK and not arguments.health.startswith("/"):
        fix = "write --health /health, or --health none"
        problems.append(Problem(f"--health {arguments.health}", "is no path", fix))
    trouble = unfit(expanded(arguments.command[0], environment), Path.cwd(), environment.get("PATH"))
    if trouble:
        problems.append(Problem("the command", *trouble))
    return Service(
        id=arguments.id or arguments.name,
        name=arguments.name,
        command=tuple(arguments.command),
        folder=Path.cwd(),
        port=own,
        protocol=arguments.protocol,
        health=arguments.health,
        upstreams=ports,
        meta=_pairs("--meta", arguments.meta, "=", "write --meta version=v1", problems),
    )


def _pairs(flag: str, texts: Sequence[str], sign: str, fix: str, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, given, value = text.partition(sign)
        if not name or not given:
            problems.append(Problem(f"{flag} {text}", f"is not name{sign}value", fix))
        elif name in found:
            problems.append(Problem(f"{flag} {text}", f"{name} was given before", "keep one of them"))
        else:
            found[name] = value
    return found


def _port(where: str, text: str, problems: list[Problem]) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= LAST_PORT:
        return int(text)
    problems.append(Problem(where, f"{text!r} is not a port", "give a number from 1 to 65535"))
    return 0


def _live(mesh: MeshFile, *, seconds: float, writes: bool = True, restarts: bool = True) -> int:
    import asyncio  # noqa: PLC0415

    from controlplane import lean  # noqa: PLC0415

    lean.load()
    from lictor.up.live import live  # noqa: PLC0415 - heavy

    return asyncio.run(live(mesh, seconds=seconds, writes=writes, restarts=restarts))
