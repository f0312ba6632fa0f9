"""The control plane fails, the traffic goes on, and the log says what happened once."""

from __future__ import annotations

import asyncio
import json
import signal

from harness.load import load
from harness.servers import eventually
from harness.world import World

HOST = "web.example.com"


def lines(mesh: World, name: str, event: str) -> list[dict[str, object]]:
    found = []
    for line in mesh.proxies[name].program.log.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            if row.get("event") == event:
                found.append(row)
    return found


async def test_the_agent_is_killed_and_comes_back_while_requests_go_on(mesh: World) -> None:
    async with load(mesh.gateway_port, HOST, rate=100) as running:
        await eventually(lambda: running.sent > 50)
        before = {name: len(lines(mesh, name, "watch_failing")) for name in mesh.proxies}
        mesh.consul.program.kill()
        await asyncio.sleep(4)
        assert running.failures == []
        for name in mesh.proxies:
            told = lines(mesh, name, "watch_failing")[before[name] :]
            assert len({row["watch"] for row in told}) == len(told), "each watch says once that it fails"
            assert told
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
