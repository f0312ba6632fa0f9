"""Restart without loss: a second process takes over the ports of a proxy while the first one finishes.

The gateway, the sidecar that calls and one that is called, at once, on a real Consul and Vault, under load from clients
that keep their connections and from clients that make one for each request. `make restart-test` goes 20 rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import pytest
import yaml

from harness.certificates import Authority
from harness.load import Load, load
from harness.servers import eventually
from harness.world import World, world
from lictor.up.ports import free_ports

ROUNDS = int(os.environ.get("RESTARTS", "1"))
PATIENCE_SECONDS = 60  # of a machine that does much else; nobody's failure waits for it
PROXIES = {"edge": "edge", "web": "web", "api-v1": "api"}  # with the service of each
HEALTHY = {
    "edge": ("edge-1",),
    "web": ("web-1",),
    "web-sidecar-proxy": ("web-1-sidecar-proxy",),
    "api": ("api-v1", "api-v2"),
    "api-sidecar-proxy": ("api-v1-sidecar-proxy", "api-v2-sidecar-proxy"),
}


HOST = "web.example.com"


@dataclass(frozen=True, slots=True)
class Edge:
    """The gateway's TLS listener."""

    port: int
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def mesh() -> Iterator[World]:
    with world() as running:
        yield running


@pytest.fixture(scope="module")
def edge(mesh: World) -> Edge:
    """Give the gateway a TLS listener: its file says how from the next process on."""
    (port,) = free_ports(1)
    outside = Authority("the outside")
    shown = outside.server(HOST)
    for name, content in (("edge.pem", shown.chain_pem.encode()), ("edge.key", shown.key_pem)):
        (mesh.folder / name).write_bytes(content)
    file = mesh.folder / "edge.yaml"
    files = {"cert_file": str(mesh.folder / "edge.pem"), "key_file": str(mesh.folder / "edge.key")}
    file.write_text(file.read_text() + yaml.safe_dump({"tls": {"certificates": [files]}}))
    entry = mesh.consul.api("config/ingress-gateway/edge")
    listener = {"Port": port, "Protocol": "http", "TLS": {"Enabled": True}}
    entry["Listeners"].append({**listener, "Services": [{"Name": "web", "Hosts": [HOST]}]})
    first = mesh.relieve_proxy("edge", "edge")
    mesh.consul.write(entry)
    first.stop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=outside.pem)
    return Edge(port, context)


@contextlib.asynccontextmanager
async def everybody(mesh: World, edge: Edge) -> AsyncIterator[list[Load]]:
    """Ask the gateway, and the caller's sidecar as its app does. A POST is never sent twice by anybody."""
    plain, tls, api = mesh.gateway_port, edge.port, mesh.ports["web-to-api"]
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running)
            for running in (
                load(plain, HOST, rate=20, connections=4),
                load(plain, HOST, rate=20, connections=4, keep=False),
                load(plain, HOST, rate=20, connections=4, path="/echo", method="POST"),
                load(tls, HOST, rate=20, connections=2, path="/echo", method="POST", tls=edge.context),
                load(tls, HOST, rate=20, connections=4, keep=False, tls=edge.context),
                load(api, "api", rate=20, connections=4, path="/echo", method="POST"),
                load(api, "api", rate=20, connections=4, path="/echo", method="POST", keep=False),
            )
        ]


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def watch_health(mesh: World, service: str) -> None:
    """Fail when any change of a service's health shows an instance that is new, not there or not passing."""
    index, made = "0", None
    headers = {"X-Consul-Token": mesh.consul.token}
    async with aiohttp.ClientSession(mesh.consul.http_addr, headers=headers) as session:
        while True:
            async with session.get(f"/v1/health/service/{service}?index={index}&wait=60s") as answer:
                rows, index = await answer.json(), answer.headers["X-Consul-Index"]
            statuses = {row["Service"]["ID"]: {check["Status"] for check in row["Checks"]} for row in rows}
            assert statuses == {instance: {"passing"} for instance in HEALTHY[service]}, service
            registered = {row["Service"]["ID"]: row["Service"]["CreateIndex"] for row in rows}
            made = made or registered
            assert registered == made, "it was deregistered in between"


async def restart(mesh: World, name: str, loads: list[Load]) -> None:
    first = await asyncio.to_thread(mesh.relieve_proxy, name, PROXIES[name])
    assert first.running()
    await asyncio.to_thread(first.stop, signal.SIGTERM)
    assert '"event": "left_to_successor"' in first.log
    assert first.process is not None
    assert first.process.returncode == 0
    sent = [running.sent for running in loads]
    await eventually(
        lambda: all(now.sent > before + 10 for now, before in zip(loads, sent, strict=True)), PATIENCE_SECONDS
    )


@pytest.mark.timeout(60 + 60 * ROUNDS)
async def test_nobody_notices_that_proxies_are_restarted(mesh: World, edge: Edge) -> None:
    await eventually(lambda: listens(edge.port), PATIENCE_SECONDS)
    async with asyncio.TaskGroup() as group, everybody(mesh, edge) as loads:
        watching = [group.create_task(watch_health(mesh, service)) for service in HEALTHY]
        await eventually(lambda: all(running.sent > 20 for running in loads), PATIENCE_SECONDS)
        for number in range(ROUNDS):
            await asyncio.gather(*(restart(mesh, name, loads) for name in PROXIES))
            assert [running.failures for running in loads] == [[]] * len(loads), f"round {number + 1}"
            print(f"round {number + 1}: {sum(running.sent for running in loads)} requests, none failed")  # noqa: T201
        for task in watching:
            task.cancel()
    said = {answer for running in loads for answer in running.answers}
    assert not [answer for answer in said if "failed" in answer], said
