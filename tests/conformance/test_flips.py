"""A thousand changes of intentions on a real Consul while requests go through a real pair of sidecars.

Two sets of permissions have no rule in common, but there is a request that both deny, each by another rule, and one
that both allow, each by another rule. Were rules of two sets ever in force together, or none, these two would show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.peers import peers
from harness.servers import ConsulServer, consul_server, eventually
from harness.wire import App, Wire
from lictor.up.ports import free_ports

BOUND = 1.0  # seconds after a write's answer, when nothing may be judged otherwise any more
HOLD = BOUND + 0.5  # between bursts of changes
BURSTS, WRITES = 4, 125  # in each of the two tests

Source = Mapping[str, Any]
ODD: Source = {
    "Permissions": [
        {"Action": "deny", "HTTP": {"PathExact": "/x"}},
        {"Action": "allow", "HTTP": {"Header": [{"Name": "a", "Exact": "1"}]}},
        {"Action": "deny", "HTTP": {"PathPrefix": "/"}},
    ]
}
EVEN: Source = {
    "Permissions": [
        {"Action": "deny", "HTTP": {"Header": [{"Name": "h", "Present": True}]}},
        {"Action": "allow", "HTTP": {"PathExact": "/z"}},
    ]
}
HTTP = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}
ALLOW: Source = {"Action": "allow"}
DENY: Source = {"Action": "deny"}
REQUESTS = {
    "allowed by both": b"GET /z HTTP/1.1\r\nHost: api\r\na: 1\r\n\r\n",
    "denied by both": b"GET /x HTTP/1.1\r\nHost: api\r\na: 1\r\nh: 1\r\n\r\n",
    "allowed by odd": b"GET /y HTTP/1.1\r\nHost: api\r\na: 1\r\n\r\n",
    "allowed by even": b"GET /z HTTP/1.1\r\nHost: api\r\n\r\n",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and what came of it. Times are the monotonic clock's."""

    what: str
    begun: float
    ended: float
    status: int


@dataclass(frozen=True, slots=True)
class Pause:
    """A time without changes: `last` was written before it."""

    last: Source
    begun: float
    ended: float


@dataclass(slots=True)
class Mesh:
    """web and api beside each other, and all that was asked."""

    consul: ConsulServer
    port: int
    asked: list[Asked] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)

    def write(self, source: Source) -> None:
        self.consul.write({"Kind": "service-intentions", "Name": "api", "Sources": [{"Name": "web", **source}]})

    async def keep_asking(self, what: str) -> None:
        async with await Wire.open(self.port) as wire:
            while True:
                begun = time.monotonic()
                answer = await wire.ask(REQUESTS[what])
                self.asked.append(Asked(what, begun, time.monotonic(), answer.status))
                await asyncio.sleep(0.005)

    async def flip(self, one: Source, other: Source) -> None:
        """Write the two by turns, in bursts with pauses in which the last one must hold; half of them end on each."""
        for burst in range(BURSTS):
            first, second = (one, other) if burst % 2 else (other, one)
            for number in range(WRITES):
                last = first if number % 2 else second
                await asyncio.to_thread(self.write, last)
            begun = time.monotonic()
            await asyncio.sleep(HOLD)
            self.pauses.append(Pause(last, begun, time.monotonic()))

    async def settled(self, what: str, status: int) -> None:
        async def is_so() -> bool:
            async with await Wire.open(self.port) as wire:
                return (await wire.ask(REQUESTS[what])).status == status

        await eventually(is_so, 20)

    def judged(self) -> Iterator[tuple[Source, Asked]]:
        """Yield what was asked when the last change was at least BOUND ago, with the set that must have judged it."""
        for pause in self.pauses:
            for asked in self.asked:
                if asked.begun >= pause.begun + BOUND and asked.ended <= pause.ended:
                    yield pause.last, asked


@contextlib.asynccontextmanager
async def asking(mesh: Mesh) -> AsyncIterator[None]:
    mesh.asked.clear()
    mesh.pauses.clear()
    tasks = [asyncio.create_task(mesh.keep_asking(what)) for what in REQUESTS]
    try:
        yield
        assert [task.exception() for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def agent() -> Iterator[ConsulServer]:
    with consul_server(settings={"default_intention_policy": "deny"}) as server:
        server.write(HTTP)
        yield server


@pytest.fixture
async def mesh(agent: ConsulServer, tmp_path: Path) -> AsyncIterator[Mesh]:
    async with running(agent, tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def running(agent: ConsulServer, tmp_path: Path) -> AsyncIterator[Mesh]:
    (port,) = free_ports(1)
    with peers(agent, tmp_path) as proxies:
        async with App().running() as app:
            await asyncio.to_thread(proxies.register, "api", app.port)
            await asyncio.to_thread(lambda: proxies.register("web", 1, upstreams={"api": port}))
            for service in ("api-1", "web-1"):
                await asyncio.to_thread(proxies.lictor_sidecar, service)
            yield Mesh(agent, port)


async def test_permissions_that_flip_are_in_force_as_a_whole_and_within_a_second(mesh: Mesh) -> None:
    mesh.write(ODD)
    await mesh.settled("allowed by odd", 200)
    async with asking(mesh):
        await mesh.flip(ODD, EVEN)
    always = {"allowed by both": 200, "denied by both": 403}
    assert [asked for asked in mesh.asked if asked.status != always.get(asked.what, asked.status)] == []
    expected = {
        "allowed by odd": lambda last: 200 if last is ODD else 403,
        "allowed by even": lambda last: 200 if last is EVEN else 403,
    }
    judged = [(last, asked) for last, asked in mesh.judged() if asked.what in expected]
    assert [asked for last, asked in judged if asked.status != expected[asked.what](last)] == []
    assert {(last is ODD, asked.what) for last, asked in judged} == {
        (is_odd, what) for is_odd in (True, False) for what in expected
    }
    assert {asked.status for asked in mesh.asked} == {200, 403}


async def test_an_intention_that_flips_between_allow_and_deny_is_followed_within_a_second(mesh: Mesh) -> None:
    """Every deny closes the sessions between the two: no request may get lost by that."""
    mesh.write(ALLOW)
    await mesh.settled("allowed by odd", 200)
    async with asking(mesh):
        await mesh.flip(ALLOW, DENY)
    assert {asked.status for asked in mesh.asked} == {200, 403}
    judged = list(mesh.judged())
    assert [asked for last, asked in judged if asked.status != (200 if last is ALLOW else 403)] == []
    assert {last is ALLOW for last, _ in judged} == {True, False}


async def test_another_default_of_an_agent_that_restarts_is_followed(tmp_path: Path) -> None:
    """At first the default of ACLs is that of intentions, then the agent has a policy for these alone."""
    folder = tmp_path / "consul"
    folder.mkdir()
    with consul_server(settings={"acl": {"enabled": True, "default_policy": "allow"}}, folder=folder) as agent:
        agent.write(HTTP)
        async with running(agent, tmp_path) as mesh:
            await mesh.settled("allowed by odd", 200)
            async with await Wire.open(mesh.port) as held:
                assert (await held.ask(REQUESTS["allowed by odd"])).status == 200
                await asyncio.to_thread(agent.program.stop)
                file = folder / "consul.json"
                file.write_text(json.dumps({**json.loads(file.read_text()), "default_intention_policy": "deny"}))
                await asyncio.to_thread(agent.restart)
                await mesh.settled("allowed by odd", 403)
                assert (await held.ask(REQUESTS["allowed by odd"])).status == 403
