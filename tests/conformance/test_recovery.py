"""What callers see while instances die, drag and come back: three sidecars and their caller's, on a real Consul.

No check tells of an instance here: whatever a caller is spared, its own sidecar has found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.load import load
from harness.peers import Peers, peers
from harness.servers import ConsulServer, Program, consul_server, eventually, http_json
from harness.wire import App, Message, Side, Wire, say
from lictor.up.ports import free_ports

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
NAMES = ("api-1", "api-2", "api-3")
CONNECT_SECONDS = 1.0
TRY_SECONDS = 0.4
BASE_EJECTION_SECONDS = 10  # a hundred requests have time in it, on a busy machine too
ENTRIES = (
    {
        "Kind": "proxy-defaults",
        "Name": "global",
        "Config": {"protocol": "http", "per_try_timeout_ms": int(TRY_SECONDS * 1000)},
    },
    {
        "Kind": "service-defaults",
        "Name": "web",
        "Protocol": "http",
        "UpstreamConfig": {
            "Defaults": {
                "ConnectTimeoutMs": int(CONNECT_SECONDS * 1000),
                "PassiveHealthCheck": {
                    "Interval": "1s",
                    "MaxFailures": 3,
                    "MaxEjectionPercent": 50,
                    "BaseEjectionTime": f"{BASE_EJECTION_SECONDS}s",
                },
            }
        },
    },
    {
        "Kind": "service-router",
        "Name": "api",
        "Routes": [{"Destination": {"NumRetries": 2, "RetryOn": ["5xx", "reset", "connect-failure"]}}],
    },
)
SUBSET = {
    "Kind": "service-resolver",
    "Name": "api",
    "DefaultSubset": "v1",
    "Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}},
    "Failover": {"v1": {"Service": "backup"}},
}


@dataclass(slots=True)
class Mesh:
    """Sidecars that run for all tests of this file; the apps run in each test's own loop."""

    consul: ConsulServer
    proxies: Peers
    port: int
    app_ports: dict[str, int]
    sidecars: dict[str, Program] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        with ThreadPoolExecutor(len(names)) as pool:
            self.sidecars |= zip(names, pool.map(self.proxies.lictor_sidecar, names), strict=True)

    def restart(self, *names: str) -> None:
        """Start what was killed, as it was, and wait until each is ready."""
        for name in names:
            self.sidecars[name].start()
        for name in names:
            url = f"http://127.0.0.1:{self.sidecars[name].admin_port}/ready"
            self.sidecars[name].wait_until(lambda url=url: http_json(url, timeout=2), 30)

    @contextlib.asynccontextmanager
    async def apps(self) -> AsyncIterator[dict[str, App]]:
        """Run the apps, each of which answers its name."""
        async with contextlib.AsyncExitStack() as stack:
            made = {name: App(say(name.encode())) for name in self.app_ports}
            for name, app in made.items():
                await stack.enter_async_context(app.running(self.app_ports[name]))
            await eventually(lambda: self.answers({200}), 10)
            yield made

    async def ask(self) -> Message:
        async with await Wire.open(self.port) as wire:
            return await wire.ask(GET)

    async def answers(self, statuses: set[int]) -> bool:
        return (await self.ask()).status in statuses


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("recovery")
    with consul_server(settings={"default_intention_policy": "allow"}) as consul, peers(consul, folder) as proxies:
        consul.write(*ENTRIES)
        (port, *apps) = free_ports(5)
        made = Mesh(consul, proxies, port, dict(zip((*NAMES, "backup-1"), apps, strict=True)))
        for name, app in made.app_ports.items():
            service, _, number = name.partition("-")
            proxies.register(service, app, meta={"version": "v1"}, instance=number)
        proxies.register("web", 1, upstreams={"api": port})
        made.start(*made.app_ports, "web-1")
        yield made


async def test_one_of_three_is_killed_under_load_and_no_request_fails(mesh: Mesh) -> None:
    async with mesh.apps() as apps:
        async with load(mesh.port, "api", rate=150) as running:
            await eventually(lambda: set(running.answers) == set(NAMES))
            await asyncio.to_thread(mesh.sidecars["api-2"].kill)
            running.answers.clear()
            await eventually(lambda: running.answers.total() > 200)
            assert set(running.answers) - {"api-2"} == {"api-1", "api-3"}
            await asyncio.to_thread(mesh.restart, "api-2")
            await eventually(lambda: _served(mesh, apps["api-2"]), BASE_EJECTION_SECONDS + 10)
        assert running.failures == []


async def test_one_that_drags_is_ejected_and_the_slowest_requests_are_fast_again(mesh: Mesh) -> None:
    async def drag(side: Side, message: Message) -> bytes:
        await asyncio.sleep(2)
        return await say(b"late")(side, message) or b""

    async with mesh.apps() as apps:
        await eventually(lambda: _served(mesh, apps["api-1"]))
        apps["api-1"].behaviour = drag
        before = len(apps["api-1"].requests)
        seconds: list[float] = []
        async with asyncio.timeout(20):
            while len(seconds) < 100 or max(seconds[-100:]) >= TRY_SECONDS / 2:
                begun = time.monotonic()
                answer = await mesh.ask()
                seconds.append(time.monotonic() - begun)
                assert (answer.status, answer.body) != (200, b"late")
                assert answer.status == 200
        assert max(seconds) < 2
        assert max(seconds) >= TRY_SECONDS, "it was asked, and waited for as long as a try may take"
        assert len(apps["api-1"].requests) - before <= 3


async def _served(mesh: Mesh, app: App) -> bool:
    """Return whether a request comes to an app: it is not ejected any more from what was before."""
    before = len(app.requests)
    for _ in NAMES:
        await mesh.ask()
    return len(app.requests) > before


async def test_all_are_dead_and_then_they_return(mesh: Mesh) -> None:
    async with mesh.apps():
        for name in NAMES:
            await asyncio.to_thread(mesh.sidecars[name].kill)
        await eventually(lambda: mesh.answers({503}))
        for _ in range(5):
            begun = time.monotonic()
            answer = await mesh.ask()
            assert time.monotonic() - begun < CONNECT_SECONDS
            assert (answer.status, answer.get("x-lictor-reason")) == (503, "remote_connection_failure")
        await asyncio.to_thread(mesh.restart, *NAMES)
        await eventually(lambda: mesh.answers({200}), 1.0)
        assert [(await mesh.ask()).status for _ in range(20)] == [200] * 20


async def test_another_service_stands_in_when_all_of_a_subset_are_out(mesh: Mesh) -> None:
    def maintenance(enable: str) -> None:
        for name in NAMES:
            mesh.consul.api(f"agent/service/maintenance/{name}-sidecar-proxy?enable={enable}", "PUT")

    async def served_by(names: set[str]) -> bool:
        answer = await mesh.ask()
        assert answer.status == 200
        return answer.body.decode() in names

    async with mesh.apps():
        mesh.consul.write(SUBSET)
        async with load(mesh.port, "api", rate=50) as running:
            await eventually(lambda: running.sent > 10)
            await asyncio.to_thread(maintenance, "true")
            await eventually(lambda: served_by({"backup-1"}))
            running.answers.clear()
            await eventually(lambda: running.answers.total() > 20)
            assert set(running.answers) == {"backup-1"}
            await asyncio.to_thread(maintenance, "false")
            await eventually(lambda: served_by(set(NAMES)))
        assert running.failures == []
