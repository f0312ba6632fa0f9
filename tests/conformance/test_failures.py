"""The control plane fails, the traffic goes on, and the log says what happened once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from harness.load import load
from harness.peers import Peers, peers
from harness.servers import ConsulServer, DevServers, Program, consul_server, dev_server, eventually, free_ports
from harness.wire import App, Wire
from harness.world import World

HOST = "web.example.com"


def told(program: Program, event: str) -> list[dict[str, object]]:
    """Return the lines of a log that tell of an event."""
    rows = [json.loads(line) for line in program.log.splitlines() if line.startswith("{")]
    return [row for row in rows if row.get("event") == event]


def lines(mesh: World, name: str, event: str) -> list[dict[str, object]]:
    return told(mesh.proxies[name].program, event)


async def test_the_agent_is_killed_and_comes_back_while_requests_go_on(mesh: World) -> None:
    async with load(mesh.gateway_port, HOST, rate=100) as running:
        await eventually(lambda: running.sent > 50)
        before = {name: len(lines(mesh, name, "watch_failing")) for name in mesh.proxies}
        mesh.consul.program.kill()
        await asyncio.sleep(4)
        assert running.failures == []
        for name in mesh.proxies:
            failed = lines(mesh, name, "watch_failing")[before[name] :]
            assert len({row["watch"] for row in failed}) == len(failed), "each watch says once that it fails"
            assert failed
        await asyncio.to_thread(mesh.consul.restart)
        for name in mesh.proxies:
            await eventually(
                lambda name=name: "lictor_watches_failing 0.0" in str(mesh.proxies[name].admin("metrics")), 30
            )
            failing, recovered = (
                [row["watch"] for row in lines(mesh, name, event)] for event in ("watch_failing", "watch_recovered")
            )
            assert sorted(map(str, failing)) == sorted(map(str, recovered))
        done = running.sent
        await eventually(lambda: running.sent > done + 100)
    assert running.failures == []


async def test_after_a_restart_of_the_agent_changes_are_followed_again(mesh: World) -> None:
    for words in (("delete", "edge", "web"), ("create", "-deny", "edge", "web")):
        assert (await asyncio.to_thread(mesh.consul_cli, "intention", *words, check=False)).returncode == 0

    async def statuses() -> set[int]:
        async with load(mesh.gateway_port, HOST, rate=50, connections=1) as running:
            await eventually(lambda: running.sent > 3)
        return set(running.statuses)

    await eventually(lambda: _is(statuses, {403}), 5)
    for words in (("delete", "edge", "web"), ("create", "-allow", "edge", "web")):
        assert (await asyncio.to_thread(mesh.consul_cli, "intention", *words, check=False)).returncode == 0
    await eventually(lambda: _is(statuses, {200}), 5)


async def _is(measure: object, expected: set[int]) -> bool:
    return await measure() == expected  # type: ignore[operator,no-any-return]


async def test_vault_is_sealed_and_unsealed_while_requests_go_on(mesh: World) -> None:
    async with load(mesh.gateway_port, HOST, rate=100) as running:
        await asyncio.to_thread(mesh.vault.seal)
        await asyncio.sleep(1)
        assert running.failures == []
        await asyncio.to_thread(mesh.vault.unseal)
        done = running.sent
        await eventually(lambda: running.sent > done + 50)
    assert running.failures == []


async def test_an_instance_that_is_killed_costs_no_request_that_may_be_sent_again(mesh: World) -> None:
    """Kill -9 of one sidecar of two: the other version keeps its share, the dead arm is refused, not hung."""
    victim = mesh.proxies["api-v2"]
    async with load(mesh.gateway_port, "api.example.com", rate=100) as running:
        await eventually(lambda: running.sent > 50)
        victim.program.kill()
        await asyncio.sleep(1)
        running.statuses.clear()
        await eventually(lambda: running.statuses.total() > 200)
    assert set(running.statuses) <= {200, 503}
    assert running.statuses[200] / running.statuses.total() > 0.6


async def test_a_stopped_proxy_leaves_the_catalog_and_cuts_nobody(mesh: World) -> None:
    web = mesh.proxies["web"]
    async with load(mesh.gateway_port, HOST, rate=50) as running:
        await eventually(lambda: running.sent > 20)
        assert await asyncio.to_thread(web.program.stop, signal.SIGTERM) == 0
    assert {failure.partition(" ")[0] for failure in running.failures} <= {"503"}
    registered = mesh.consul.api("agent/services", token=mesh.token_file("management").read_text())
    assert not any(service.startswith("web") for service in registered)
    assert lines(mesh, "web", "drained")[-1]["nothing_cut"] is True


async def test_the_log_holds_no_secret(mesh: World) -> None:
    tokens = [mesh.token_file(name).read_text() for name in ("web", "api", "edge", "operator")]
    for proxy in mesh.proxies.values():
        log = proxy.program.log
        assert "PRIVATE KEY" not in log
        assert not [token for token in tokens if token in log]
        assert "hvs." not in log
        assert '"level": "critical"' not in log
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


# --- an agent that answers garbage ----------------------------------------------------------------------------------


class Between:
    """Stands between proxies and their agent; while it has a text, that is the answer to everything."""

    def __init__(self, agent: ConsulServer) -> None:
        self._agent = agent
        self._text = ""
        self._turned = asyncio.Event()

    def answer(self, text: str) -> None:
        """Answer everything with this from now on, also what waits already; "" lets all through again."""
        self._text = text
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def handle(self, request: web.Request) -> web.Response:
        if not self._text:
            passing = asyncio.create_task(self._pass(request, await request.read()))
            turning = asyncio.create_task(self._turned.wait())
            await asyncio.wait((passing, turning), return_when=asyncio.FIRST_COMPLETED)
            turning.cancel()
            if passing.done():
                return passing.result()
            passing.cancel()
        return web.Response(text=self._text)

    async def _pass(self, request: web.Request, body: bytes) -> web.Response:
        names = ("X-Consul-Index", "X-Consul-ContentHash", "X-Consul-Results-Filtered-By-ACLs", "Content-Type")
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, f"{self._agent.http_addr}{request.path_qs}", data=body) as answer,
        ):
            headers = {name: answer.headers[name] for name in names if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)


@contextlib.asynccontextmanager
async def between(agent: ConsulServer) -> AsyncIterator[tuple[ConsulServer, Between]]:
    """Run one; return the agent as proxies are to see it."""
    standing = Between(agent)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", standing.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield replace(agent, http_port=runner.addresses[0][1]), standing
    finally:
        standing.answer("null")
        await runner.cleanup()


DENIED = {"Kind": "service-intentions", "Name": "api", "Sources": [{"Name": "web", "Action": "deny"}]}


async def pair(agent: ConsulServer, proxies: Peers, app: App) -> tuple[list[Program], int]:
    """Start web and api beside each other under an agent that allows by default; web may not call api."""
    agent.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}, DENIED)
    (port,) = free_ports(1)
    await asyncio.to_thread(proxies.register, "api", app.port)
    await asyncio.to_thread(lambda: proxies.register("web", 1, upstreams={"api": port}))
    return [await asyncio.to_thread(proxies.lictor_sidecar, name) for name in ("api-1", "web-1")], port


async def status(port: int) -> int:
    async with await Wire.open(port) as wire:
        return (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")).status


async def check_that_nothing_came_of_it(agent: ConsulServer, programs: list[Program], port: int) -> None:
    for program in programs:
        failing = [str(row["watch"]) for row in told(program, "watch_failing")]
        assert failing
        assert len(set(failing)) == len(failing), "each watch says once that it fails"
        assert not told(program, "registration_missing")
        await eventually(
            lambda program=program, failing=failing: (
                sorted(failing) == sorted(str(row["watch"]) for row in told(program, "watch_recovered"))
            ),
            30,
        )
    await asyncio.to_thread(agent.api, "config/service-intentions/api", "DELETE")
    await eventually(lambda: _is_status(port, 200), 5)


async def _is_status(port: int, expected: int) -> bool:
    return await status(port) == expected


@pytest.mark.parametrize("text", ["null", "[]", "{}"])
async def test_nothing_comes_of_an_agent_that_answers_nothing(text: str, tmp_path: Path) -> None:
    """Empty shapes to every question: the intention that denies, the endpoints and the registration stay in force.

    `[]` is what Consul says of a service without instances, so it is believed of endpoints and of nothing else.
    """
    with consul_server(settings={"default_intention_policy": "allow"}) as agent:
        async with App().running() as app, between(agent) as (seen, standing):
            with peers(agent, tmp_path) as proxies:
                proxies.consul = seen
                programs, port = await pair(agent, proxies, app)
                await eventually(lambda: _is_status(port, 403))
                standing.answer(text)
                for _ in range(30):
                    await asyncio.sleep(0.1)
                    assert await status(port) in ({403, 503} if text == "[]" else {403})
                standing.answer("")
                await check_that_nothing_came_of_it(agent, programs, port)


async def test_nothing_comes_of_an_agent_that_answers_no_json(tmp_path: Path) -> None:
    with dev_server(default_intention_policy="allow") as agent, peers(agent, tmp_path) as proxies:
        async with App().running() as app:
            programs, port = await pair(agent, proxies, app)
            await eventually(lambda: _is_status(port, 403))
            assert isinstance(agent, DevServers)
            await asyncio.to_thread(agent.fault, garbage=True)
            while not all(told(program, "watch_failing") for program in programs):  # what waits has its answer already
                await asyncio.sleep(0.1)
                assert await status(port) == 403
            await asyncio.to_thread(agent.fault)
            await check_that_nothing_came_of_it(agent, programs, port)
