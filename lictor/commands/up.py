"""`lictor up`, `lictor run` and `lictor init`: a mesh of one's own services."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lictor.commands.agent import Environment, complain, say
from lictor.flags import Words, add, add_agent_flags, agent_overrides, word
from policies.errors import ConfigError, Problem

if TYPE_CHECKING:
    from lictor.up.file import MeshFile

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
    up.set_defaults(run=_up)
    run = word(words, "run", "run one process with a sidecar beside it", _RUN_EXAMPLES)
    add(run, "name", required=True, metavar="SERVICE", help="its service in the mesh")
    add(run, "id", default="", metavar="ID", help="of the instance; the service's name")
    add(run, "port", type=int, default=0, metavar="PORT", help="the process listens there; a free one, as $PORT")
    add(run, "upstream", action="append", default=[], metavar="SERVICE:PORT", help="may be repeated")
    add(run, "protocol", choices=("http", "tcp"), default="http", help="http")
    add(run, "health", default="", metavar="PATH", help="a path that answers 2xx; otherwise an open port")
    add(run, "meta", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    add_agent_flags(run)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    run.set_defaults(run=_run)
    init = word(words, "init", "write a file for `lictor up` to begin with", _UP_EXAMPLES)
    init.add_argument("file", nargs="?", type=Path, default=Path("mesh.yaml"), metavar="FILE", help="mesh.yaml")
    init.set_defaults(run=_init)


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
        say(f"{arguments.file} is good: {len(mesh.services)} services")
        return 0
    return _live(mesh)


def _run(arguments: argparse.Namespace, environment: Environment) -> int:
    from lictor.up.file import MeshFile, Service  # noqa: PLC0415 - heavy

    problems: list[Problem] = []
    upstreams: dict[str, int] = {}
    for text in arguments.upstream:
        name, _, port = text.rpartition(":")
        if not name or not port.isdigit():
            problems.append(Problem(f"--upstream {text}", "is not service:port", "write --upstream api:9191"))
        else:
            upstreams[name] = int(port)
    if problems:
        raise ConfigError(tuple(problems))
    overrides = agent_overrides(arguments)
    consul = {"address": overrides.get("CONSUL_HTTP_ADDR") or environment.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"}
    token = overrides.get("CONSUL_HTTP_TOKEN_FILE") or environment.get("CONSUL_HTTP_TOKEN_FILE")
    if "://" not in consul["address"]:
        consul["address"] = f"http://{consul['address']}"
    service = Service(
        id=arguments.id or arguments.name,
        name=arguments.name,
        command=tuple(arguments.command),
        folder=Path.cwd(),
        port=arguments.port,
        protocol=arguments.protocol,
        health=arguments.health,
        upstreams=upstreams,
        meta=dict(pair.split("=", 1) for pair in arguments.meta if "=" in pair),
    )
    return _live(MeshFile((service,), consul={**consul, **({"token_file": token} if token else {})}), entries=False)


def _live(mesh: MeshFile, *, entries: bool = True) -> int:
    import asyncio  # noqa: PLC0415

    from lictor.up.console import Console  # noqa: PLC0415

    console = Console()
    return asyncio.run(_until_told(mesh, console, entries=entries))


async def _until_told(mesh: MeshFile, console: object, *, entries: bool) -> int:
    import asyncio  # noqa: PLC0415
    import contextlib  # noqa: PLC0415
    import signal  # noqa: PLC0415

    from lictor.up.console import Console  # noqa: PLC0415
    from lictor.up.run import running  # noqa: PLC0415
    from policies.errors import MeshError  # noqa: PLC0415

    assert isinstance(console, Console)  # noqa: S101
    told = asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if told.is_set() or task is None:
            return
        told.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with running(mesh, console, write_entries=entries):
            console.progress("the mesh is up; Ctrl-C ends it")
            await told.wait()
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    except MeshError as error:
        return complain(f"lictor: {error}")
    with contextlib.suppress(Exception):
        console.progress("done; nothing is left running")
    return 0
