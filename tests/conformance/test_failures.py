"""The control plane fails, the traffic goes on, and the log says what happened once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from harness.load import load
from harness.peers import Peers, peers
from harness.servers import (
    ConsulServer,
    DevServers,
    Program,
    consul_program,
    consul_server,
    dev_server,
    eventually,
    vault_program,
    vault_server,
)
from harness.wire import App, Wire
from harness.world import EGRESS, World, run_script, sidecar_settings, world
from lictor.up.ports import free_ports

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
        done, said = running.sent, {name: complaints(mesh, name) for name in mesh.proxies}
        await eventually(lambda: running.sent > done + 300)
        assert {name: complaints(mesh, name) for name in mesh.proxies} == said, "nothing goes on complaining"
    assert running.failures == []


def complaints(mesh: World, name: str) -> int:
    """Return how many warnings and errors a proxy has told."""
    rows = [json.loads(line) for line in mesh.proxies[name].program.log.splitlines() if line.startswith("{")]
    return sum(row.get("level") in {"warning", "error", "critical"} for row in rows)


async def test_after_a_restart_of_the_agent_changes_are_followed_again(mesh: World) -> None:
    for words in (("delete", "edge", "web"), ("create", "-deny", "edge", "web")):
        assert (await asyncio.to_thread(mesh.consul_cli, "intention", *words, check=False)).returncode == 0

    async def statuses() -> set[int]:
        async with load(mesh.gateway_port, HOST, rate=50, connections=1) as running:
            await eventually(lambda: running.sent > 3)
        return set(running.statuses)

    await eventually(lambda: _is(statuses, {403}), 20)
    for words in (("delete", "edge", "web"), ("create", "-allow", "edge", "web")):
        assert (await asyncio.to_thread(mesh.consul_cli, "intention", *words, check=False)).returncode == 0
    await eventually(lambda: _is(statuses, {200}), 20)


async def _is(measure: object, expected: set[int]) -> bool:
    return await measure() == expected  # type: ignore[operator,no-any-return]


LEAF_SECONDS = 30
SEALED_SECONDS = 6  # less than a third of a leaf's life, which is left at the latest renewal: then comes a try a second


@pytest.fixture(params=["real", "embedded"])
def short_lived(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(leaf_ttl=f"{LEAF_SECONDS}s", embedded=request.param == "embedded") as running:
        yield running


async def admin(mesh: World, name: str, page: str) -> Any:
    return await asyncio.to_thread(mesh.proxies[name].admin, page)


async def serials(mesh: World) -> dict[str, str]:
    return {name: (await admin(mesh, name, "certs"))["leaf"]["serial"] for name in mesh.proxies}


async def somebody_renews_within(mesh: World, seconds: float) -> bool:
    pauses = [(await admin(mesh, name, "ready"))["issuer"]["renews_in_seconds"] for name in mesh.proxies]
    return min(map(float, pauses)) < seconds


async def test_vault_is_sealed_when_leaves_are_due_and_unsealed_while_requests_go_on(short_lived: World) -> None:
    mesh = short_lived
    async with load(mesh.gateway_port, HOST, rate=100) as running:
        await eventually(lambda: somebody_renews_within(mesh, 1.5), LEAF_SECONDS)
        before = await serials(mesh)
        await asyncio.to_thread(mesh.vault.seal)
        await asyncio.sleep(SEALED_SECONDS)
        assert running.failures == []
        waiting = [name for name in mesh.proxies if lines(mesh, name, "issuer_failing")]
        assert waiting, "somebody's leaf was due"
        sealed = await serials(mesh)
        assert {name: sealed[name] for name in waiting} == {name: before[name] for name in waiting}
        await asyncio.to_thread(mesh.vault.unseal)
        await eventually(lambda: _none_of(serials, mesh, before), LEAF_SECONDS)
    for name in mesh.proxies:
        failed = _told_of(mesh, name, "issuer_failing")
        leaves = 2 if name == EGRESS else 1  # its own and the partner's, told of once each
        assert failed <= leaves, name
        assert failed or name not in waiting, "one may fall due while Vault is being unsealed"
        await eventually(lambda one=name, count=failed: _told_of(mesh, one, "issuer_recovered") >= count, LEAF_SECONDS)
        assert _told_of(mesh, name, "issuer_recovered") == _told_of(mesh, name, "issuer_failing") == failed
    assert running.failures == []


def _told_of(mesh: World, name: str, event: str) -> int:
    return len(lines(mesh, name, event))


async def _none_of(look: Callable[[World], Awaitable[dict[str, str]]], mesh: World, before: Mapping[str, str]) -> bool:
    now = await look(mesh)
    return all(now[name] != before[name] for name in before)


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


# --- secrets -------------------------------------------------------------------------------------------------------

# What Vault, OpenBao and ours make: service, batch and wrapping tokens.
TOKEN = re.compile(r"(?<![\w.])(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}")


def secrets(mesh: World) -> dict[str, str]:
    """Return every secret that this mesh was prepared with, by what it is."""
    found = {f"consul-{file.name}": file.read_text().strip() for file in (mesh.folder / "tokens").iterdir()}
    found |= {"consul-management": mesh.consul.token, "unseal-key": mesh.vault.unseal_key}
    if not mesh.embedded:  # whose root token is "root"
        found["vault-root"] = mesh.vault.token
        found["ca-provider"] = (mesh.folder / "consul-ca-token").read_text().strip()
    for file in (mesh.folder / "vault").glob("*/wrapped-secret-id"):
        found[f"wrapped-{file.parent.name}"] = file.read_text().strip()
    assert all(len(secret) >= 20 for secret in found.values()), found.keys()
    return found


async def test_no_secret_is_in_a_log_on_a_page_or_in_an_argument_list(mesh: World) -> None:
    secret_of = secrets(mesh)
    assert len(secret_of) >= 10
    plain = await with_a_plain_secret_id(mesh)
    places = {f"log of {name}": one.log for name, one in mesh.apps.items()}
    for name, proxy in mesh.proxies.items():
        places[f"log of {name}"] = proxy.program.log
        if proxy.program.running():
            places |= {f"{page} of {name}": str(await admin(mesh, name, page)) for page in PAGES}
            places[f"arguments of {name}"] = Path(f"/proc/{proxy.program.pid}/cmdline").read_text().replace("\0", " ")
    await asyncio.to_thread(mesh.proxies.pop("plain").program.stop)
    assert "log of plain" in places
    assert "certs of plain" in places
    assert "BEGIN CERTIFICATE" in places["certs of api-v1"]
    for place, text in places.items():
        assert [name for name, secret in {**secret_of, "plain": plain}.items() if secret in text] == [], place
        assert "PRIVATE KEY" not in text, place
        assert TOKEN.findall(text) == [], place
        assert '"level": "critical"' not in text, place
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]


PAGES = ("ready", "live", "config_dump", "certs", "clusters", "metrics", "stats/prometheus")


async def with_a_plain_secret_id(mesh: World) -> str:
    """Start a proxy whose secret-id lies unwrapped in its file, so that its value is known; return it."""
    given = await asyncio.to_thread(mesh.vault.api, "auth/approle/role/web/secret-id", "PUT", {})
    secret_id = str(given["data"]["secret_id"])
    app, side = free_ports(2)
    settings = sidecar_settings("web", "web-plain", app, side, [])
    proxy = await asyncio.to_thread(mesh.start_proxy, "plain", "sidecar", settings, "web")
    await asyncio.to_thread(proxy.program.stop)
    file = mesh.folder / "plain.yaml"
    whole = yaml.safe_load(file.read_text())
    Path(whole["vault"]["auth"]["secret_id_file"]).write_text(secret_id)
    whole["vault"]["auth"]["wrapped"] = False
    file.write_text(yaml.safe_dump(whole))
    proxy.program.start()
    await asyncio.to_thread(proxy.wait_ready)
    return secret_id


SHIM = """#!/bin/sh
printf '%s ' "$0" "$@" >>"{log}"
exec {program} "$@"
"""


def shims(folder: Path, log: Path, programs: Mapping[str, str]) -> None:
    """Put programs into a folder that note their arguments and do their work."""
    for name, program in programs.items():
        file = folder / name
        file.write_text(SHIM.format(log=log, program=program))
        file.chmod(0o700)


def test_no_script_puts_a_secret_into_an_argument_list(tmp_path: Path) -> None:
    """Whoever may list processes sees arguments. Every step runs twice: what is there already is looked at."""
    names = ("cat", "chmod", "chown", "cp", "date", "grep", "head", "mkdir", "mktemp", "mv", "rm", "sed", "tr", "wget")
    programs = {name: found for name in names if (found := shutil.which(name))}
    programs |= {"consul": str(consul_program()), "vault": str(vault_program())}
    bin_, log, folder = tmp_path / "bin", tmp_path / "arguments", tmp_path / "made"
    bin_.mkdir()
    shims(bin_, log, programs)
    ours = {
        "CONSUL_BIN": str(bin_ / "consul"),
        "VAULT_BIN": str(bin_ / "vault"),
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }
    with consul_server(acl=True) as consul, vault_server() as vault:
        for_vault = {**vault.environment, **ours}
        for_consul = {**consul.environment, **ours, "VAULT_ADDR": vault.address}
        for_consul["VAULT_CA_TOKEN_FILE"] = str(folder / "consul-ca-token")
        for _ in range(2):
            run_script(["vault/bootstrap.sh", "ca", str(folder)], for_vault)
            run_script(["consul/bootstrap.sh", str(folder / "tokens"), "web api", "edge"], for_consul)
            domain = consul.api("connect/ca/roots")["TrustDomain"]
            run_script(["vault/bootstrap.sh", "mesh", domain, "dc1", "web api edge"], for_vault)
            run_script(["vault/issue-secret-id.sh", "web", str(folder / "web")], for_vault)
        secret = [consul.token, vault.token]
        secret += [file.read_text().strip() for file in (folder / "tokens").iterdir()]
        secret += [(folder / name).read_text().strip() for name in ("consul-ca-token", "web/wrapped-secret-id")]
    noted = log.read_text()
    assert "acl token create" in noted
    assert "acl token read" in noted, "the second run looks at the tokens of the first"
    assert [number for number, one in enumerate(secret) if one in noted] == []
    assert TOKEN.findall(noted) == []


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
    await eventually(lambda: _is_status(port, 200), 20)


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
