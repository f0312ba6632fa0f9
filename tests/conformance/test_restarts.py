"""Restart without loss: a second process takes over the ports of a proxy while the first one finishes.

The gateway, the sidecar that calls and one that is called, in turn, on a real Consul and Vault, under load from clients
that keep their connections and from clients that make one for each request. `make restart-test` does it 20 times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from harness.load import Load, load
from harness.servers import eventually, http_json
from harness.world import World, world

RESTARTS = int(os.environ.get("RESTARTS", "1"))
PROXIES = {"edge": "edge", "web": "web", "api-v1": "api"}  # with the service of each
WATCHED = {"edge": {"edge-1"}, "web-sidecar-proxy": {"web-1-sidecar-proxy"}, "api-sidecar-proxy": {"api-v1-sidecar-proxy", "api-v2-sidecar-proxy"}}  # fmt: skip


@pytest.fixture(scope="module")
def mesh() -> Iterator[World]:
    with world() as running:
        yield running


@contextlib.asynccontextmanager
async def everybody(mesh: World) -> AsyncIterator[list[Load]]:
    """Ask the gateway, and the caller's sidecar as its app does."""
    host, api = "web.example.com", mesh.ports["web-to-api"]
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running)
            for running in (
                load(mesh.gateway_port, host, rate=40, connections=6),
                load(mesh.gateway_port, host, rate=40, connections=4, keep=False),
                load(mesh.gateway_port, host, rate=20, connections=4, path="/echo", method="POST"),
                load(api, "api", rate=40, connections=6, path="/echo", method="POST"),
                load(api, "api", rate=40, connections=4, path="/echo", method="POST", keep=False),
            )
        ]


async def seen(mesh: World, service: str, states: list[dict[str, set[str]]]) -> None:
    """Keep what every change of a service's health shows of its instances: the statuses of each."""
    index = 0
    url = f"{mesh.consul.http_addr}/v1/health/service/{service}"
    headers = {"X-Consul-Token": mesh.consul.token}
    while True:
        # The index only grows by what concerns this service, so that no state between two reads is missed for long.
        rows = await asyncio.to_thread(http_json, f"{url}?index={index}&wait=1s", headers=headers)
        states.append(
            {row["Service"]["ID"]: {check["Status"] for check in row["Checks"]} for row in rows}
        )
        index += 1


@pytest.mark.timeout(60 + 30 * RESTARTS)
async def test_nobody_notices_that_proxies_are_restarted(mesh: World) -> None:
    states: dict[str, list[dict[str, set[str]]]] = {service: [] for service in WATCHED}
    watching = [asyncio.create_task(seen(mesh, service, states[service])) for service in WATCHED]
    async with everybody(mesh) as loads:
        await eventually(lambda: all(running.sent > 20 for running in loads))
        for _ in range(RESTARTS):
            for name, service in PROXIES.items():
                first = await asyncio.to_thread(mesh.relieve_proxy, name, service)
                assert first.running()
                first.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
                await asyncio.to_thread(first.process.wait, 15)  # type: ignore[union-attr]
                assert first.process.returncode == 0  # type: ignore[union-attr]
                done = [running.sent for running in loads]
                await eventually(lambda done=done: all(now.sent > then + 10 for now, then in zip(loads, done, strict=True)))
                assert [running.failures for running in loads] == [[]] * len(loads), name
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for service, instances in WATCHED.items():
        assert states[service]
        for state in states[service]:
            assert state == dict.fromkeys(instances, {"passing"}), service
    said = {answer for running in loads for answer in running.answers}
    assert all("failed" not in answer and " 5" not in answer for answer in said), said
    print({running.request.split(b"\r")[0]: running.sent for running in loads})
