"""How long a large mesh keeps the loop of one proxy: `python -m bench.scale [sidecar gateway one] [--services N]`.

The proxy is the real process on uvloop, its agent another process with real blocking queries; every answer travels as
bytes and is decoded, understood, applied, compiled and swapped in as in production, and a first request follows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import gc
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import large_mesh as mesh
from bench.stalls import Stalls, watched
from controlplane.consul.settings import ConsulSettings
from harness.certificates import Authority
from harness.servers import REPOSITORY, Program, eventually
from lictor.up.ports import free_ports
from policies.intentions import Action
from policies.snapshot import Role
from policies.table import Table
from sidecar import logs
from sidecar.process import Process
from sidecar.settings import ProcessSettings

ROUTES = 2_000
CHANGED, CHANGED_EVERYWHERE = 10, 11  # ports
PATIENCE = 120.0
REST = 0.5  # seconds of watching after a change is in force


@dataclass(slots=True)
class Shape:
    """A proxy, what its agent has for it, and the changes to make."""

    title: str
    role: Role
    proxy_id: str
    answers: mesh.Json
    port: int  # where the first request goes
    host: str
    loaded: Callable[[Table], bool]
    changes: list[tuple[str, mesh.Json, Callable[[Table], bool]]]


def sidecar(services: int, endpoints: int, intentions: int) -> Shape:
    """Return a sidecar with an upstream a service; the first one's chain is a router."""
    authority, ports = Authority(), free_ports(services)
    names = [mesh.name(number) for number in range(services)]
    answers = mesh.common(authority, "web") | _services(names, endpoints)
    answers["agent/service/web-sidecar-proxy"] = mesh.sidecar(ports)
    rows = [mesh.intention(number) for number in range(intentions)]
    answers["connect/intentions/match?web"] = {"web": rows}
    answers |= _router(names)
    return Shape(
        f"sidecar: {services:,} upstreams, {endpoints:,} endpoints, {intentions:,} intentions, {ROUTES:,} routes",
        Role.SIDECAR,
        "web-sidecar-proxy",
        answers,
        ports[0],
        "any",
        lambda table: len(table.outbounds) == services,
        [
            _one_endpoint(answers, names[-1]),
            (
                "one intention",
                {"connect/intentions/match?web": {"web": [mesh.intention(1, "deny"), *rows[:1], *rows[2:]]}},
                lambda table: _denied(table, "caller-0001"),
            ),
            *_chains_and_all(answers, names),
            (
                "every intention",
                {"connect/intentions/match?web": {"web": [mesh.intention(n, "deny") for n in range(intentions)]}},
                lambda table: _denied(table, "caller-0007"),
            ),
        ],
    )


def gateway(services: int, endpoints: int) -> Shape:
    """Return an ingress gateway that exposes every service by a wildcard."""
    authority, (port,) = Authority(), free_ports(1)
    names = [mesh.name(number) for number in range(services)]
    answers = mesh.common(authority, "edge") | _services(names, endpoints)
    answers["agent/service/edge"] = mesh.gateway()
    answers["config/ingress-gateway/edge"] = mesh.ingress_entry(port)
    answers["catalog/gateway-services/edge"] = [mesh.gateway_service(one, port) for one in names]
    answers |= _router(names)
    return Shape(
        f"ingress gateway: {services:,} services by wildcard, {endpoints:,} endpoints, {ROUTES:,} routes",
        Role.INGRESS,
        "edge",
        answers,
        port,
        f"{names[0]}.ingress.consul",
        lambda table: len(table.outbounds) == services,
        [_one_endpoint(answers, names[-1]), *_chains_and_all(answers, names)],
    )


def one(endpoints: int) -> Shape:
    """Return a sidecar with a single upstream that has every endpoint."""
    authority, ports = Authority(), free_ports(1)
    names = [mesh.name(0)]
    answers = mesh.common(authority, "web") | _services(names, endpoints)
    answers["agent/service/web-sidecar-proxy"] = mesh.sidecar(ports)
    answers["connect/intentions/match?web"] = {"web": []}
    return Shape(
        f"sidecar: 1 upstream of {endpoints:,} endpoints",
        Role.SIDECAR,
        "web-sidecar-proxy",
        answers,
        ports[0],
        "any",
        lambda table: len(table.outbounds) == 1,
        [_one_endpoint(answers, names[0])],
    )


def _services(names: list[str], endpoints: int) -> mesh.Json:
    share = endpoints // len(names)
    found: mesh.Json = {}
    for position, name in enumerate(names):
        found[f"discovery-chain/{name}"] = mesh.chain(name)
        found[f"health/connect/{name}"] = [mesh.row(name, position * share + number) for number in range(share)]
    return found


def _router(names: list[str], rewrite: str = "/") -> mesh.Json:
    return {f"discovery-chain/{names[0]}": mesh.chain(*names[:10], routes=ROUTES, rewrite=rewrite)}


def _one_endpoint(answers: mesh.Json, name: str) -> tuple[str, mesh.Json, Callable[[Table], bool]]:
    path = f"health/connect/{name}"
    changed = copy.deepcopy(answers[path])
    changed[0]["Service"]["Port"] = CHANGED
    return "one endpoint", {path: changed}, lambda table: _port(table, name) == CHANGED


def _chains_and_all(answers: mesh.Json, names: list[str]) -> list[tuple[str, mesh.Json, Callable[[Table], bool]]]:
    everything = copy.deepcopy({path: answer for path, answer in answers.items() if path.startswith("health/")})
    for rows in everything.values():
        rows[-1]["Service"]["Port"] = CHANGED_EVERYWHERE
    return [
        (
            f"the chain of {ROUTES:,} routes",
            _router(names, "/v2/"),
            lambda table: table.outbounds[names[0]].routes[2].prefix_rewrite == "/v2/",
        ),
        (
            "an endpoint behind the routes",
            {f"health/connect/{names[0]}": answers[f"health/connect/{names[0]}"][1:]},
            lambda table: len(_endpoints(table, names[0])) == len(answers[f"health/connect/{names[0]}"]) - 1,
        ),
        (
            "an endpoint of every service",
            everything,
            _all_changed(list(names)),
        ),
    ]


def _endpoints(table: Table, name: str) -> Any:
    return table.outbounds[name].routes[0].legs[0].clusters[0].endpoints


def _port(table: Table, name: str) -> int:
    return max(int(one.port) for one in _endpoints(table, name))


def _denied(table: Table, source: str) -> bool:
    if table.inbound is None:
        return False
    return "deny" in table.inbound.intentions.for_source(source, Action.ALLOW).connection.because


def _all_changed(left: list[str]) -> Callable[[Table], bool]:
    """Return whether every service has its new port; none is looked at again."""

    def changed(table: Table) -> bool:
        while left and _endpoints(table, left[-1])[-1].port == CHANGED_EVERYWHERE:
            left.pop()
        return not left

    return changed


# --- running -------------------------------------------------------------------------------------------------------


async def measure(shape: Shape, agent: str) -> None:
    """Run one shape and print its table."""
    print(f"\n{shape.title}\n")
    print(f"{'ms':34}{'in force':>9}{'loop CPU':>9}{'all CPU':>9}{'longest':>9}{'sum > 1':>9}{'count':>7}{'GC':>7}")
    await _put(agent, json.dumps(shape.answers).encode())
    process = Process(ProcessSettings(shape.role, ConsulSettings(agent), None, None, proxy_id=shape.proxy_id))
    gc.collect()
    gc.freeze()
    with watched() as quiet:
        await asyncio.sleep(2.0)
    told("quiet", quiet, 0.0)
    with watched() as stalls:
        running = asyncio.create_task(process.run())
        took = await _in_force(process, running, shape, shape.loaded)
    told("first load", stalls, took)
    await _settled(process, running)
    for title, answers, done in shape.changes:
        bodies = json.dumps(answers).encode()
        with watched() as stalls:
            await _put(agent, bodies)
            took = await _in_force(process, running, shape, done)
        told(title, stalls, took)
    print("the agent:", (await _ask(f"http://{agent}/told")).decode())
    process.stop()
    process.stop()
    await asyncio.wait_for(running, 30)


async def _put(agent: str, answers: bytes) -> None:
    """Lay answers down at the agent, from a thread: that is not the proxy's work."""
    await _ask(urllib.request.Request(f"http://{agent}/put", answers, method="PUT"))


async def _ask(request: str | urllib.request.Request) -> bytes:
    def ask() -> bytes:
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - an address of our own
            return bytes(answer.read())

    return await asyncio.to_thread(ask)


async def _in_force(
    process: Process, running: asyncio.Task[None], shape: Shape, done: Callable[[Table], bool]
) -> float:
    """Wait until a change is in force and a request has met it; go on watching for a while. Return the seconds."""
    loop = asyncio.get_running_loop()
    started, seen = loop.time(), None
    while True:
        if running.done():
            running.result()
        table = process.live.current.table if process.live.current is not None else None
        if table is not None and table is not seen and done(table):
            break
        seen = table
        if loop.time() - started > PATIENCE:
            message = "the change did not come into force"
            raise TimeoutError(message)
        await asyncio.sleep(0.01)
    took = loop.time() - started
    await eventually(lambda: any(key.port == shape.port for key in process.dataplane.listeners), PATIENCE)  # type: ignore[union-attr]
    answer = await _request(shape)
    if not answer.startswith(b"HTTP/1.1 503"):  # somebody was chosen, and nobody listens there
        await asyncio.sleep(REST)
        if running.done():
            running.result()
        counts = "\n".join(line for line in process.metrics.render().decode().splitlines() if not line.endswith(" 0.0"))
        message = f"the first request got {answer[:200]!r}; the proxy has counted\n{counts}"
        raise RuntimeError(message)
    await asyncio.sleep(REST)
    return took


async def _settled(process: Process, running: asyncio.Task[None]) -> None:
    while not process.ready():
        if running.done():
            running.result()
        await asyncio.sleep(0.05)
    await asyncio.sleep(2.0)


async def _request(shape: Shape) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", shape.port)
    writer.write(f"GET /v1/tenants/1999/ HTTP/1.1\r\nHost: {shape.host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def told(title: str, stalls: Stalls, took: float) -> None:
    figures = (took, stalls.loop_cpu, stalls.process_cpu)
    print(
        f"{title:34}"
        + "".join(f"{one * 1000:>9.0f}" for one in figures)
        + f"{stalls.longest * 1000:>9.1f}{sum(stalls.told) * 1000:>9.1f}{len(stalls.told):>7}"
        + f"{stalls.longest_collection * 1000:>7.1f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.scale")
    parser.add_argument("shapes", nargs="*", default=["sidecar", "gateway", "one"])
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--intentions", type=int, default=5_000)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    logs.configure("info" if arguments.verbose else "error", as_json=True)
    if len(arguments.shapes) > 1:  # each in a process of its own
        more = [word for word in sys.argv[1:] if word not in arguments.shapes]
        return max(subprocess.call([sys.executable, "-m", "bench.scale", name, *more]) for name in arguments.shapes)
    match arguments.shapes[0]:
        case "sidecar":
            shape = sidecar(arguments.services, arguments.endpoints, arguments.intentions)
        case "gateway":
            shape = gateway(arguments.services, arguments.endpoints)
        case _:
            shape = one(arguments.endpoints)
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="lictor-bench-") as folder:
        words = [sys.executable, "-m", "bench.canned_agent", str(port)]
        agent = Program("agent", words, Path(folder), {"PYTHONPATH": str(REPOSITORY)})
        agent.start()
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            uvloop.run(measure(shape, f"127.0.0.1:{port}"))
        finally:
            agent.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
