"""Restart without loss: a second process takes over the ports of a proxy while the first one finishes.

The gateway, the sidecar that calls and one that is called, at once, on a real Consul and Vault, under load from clients
that keep their connections and from clients that make one for each request. `make restart-test` goes 20 rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from harness.load import Load, load
from harness.servers import eventually
from harness.world import World, world

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


@pytest.fixture(scope="module")
def mesh() -> Iterator[World]:
    with world() as running:
        yield running


@contextlib.asynccontextmanager
async def everybody(mesh: World) -> AsyncIterator[list[Load]]:
    """Ask the gateway, and the caller's sidecar as its app does. A POST is never sent twice by anybody."""
    plain, tls, api = mesh.gateway_port, mesh.ports["edge-tls"], mesh.ports["web-to-api"]
    trusting = ssl.create_default_context(cafile=str(mesh.edge_ca))
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running)
            for running in (
                load(plain, HOST, rate=20, connections=4),
                load(plain, HOST, rate=20, connections=4, keep=False),
                load(plain, HOST, rate=20, connections=4, path="/echo", method="POST"),
                load(tls, HOST, rate=20, connections=2, path="/echo", method="POST", tls=trusting),
                load(tls, HOST, rate=20, connections=4, keep=False, tls=trusting),
                load(api, "api", rate=20, connections=4, path="/echo", method="POST"),
                load(api, "api", rate=20, connections=4, path="/echo", method="POST", keep=False),
            )
        ]


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
async def test_nobody_notices_that_proxies_are_restarted(mesh: World) -> None:
    async with asyncio.TaskGroup() as group, everybody(mesh) as loads:
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
