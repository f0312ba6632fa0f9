"""Retries of a route, through a caller's sidecar and those of several instances: what reaches the apps is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from dataplane.attempts import MAX_KEPT
from harness.certificates import Authority
from harness.halves import ALLOW_ALL, Half, half
from harness.meshes import Json, chain, instance, sidecar
from harness.servers import eventually
from harness.wire import App, Behaviour, Message, Side, Wire, raw_and_close, say
from lictor.up.ports import free_ports
from policies.snapshot import ChainWatch, EndpointsWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
TARGET = "api.default.default.dc1"
BUSY = say(b"busy", b"503 Service Unavailable")


def routed(**destination: Any) -> Json:
    """Return a chain with one route that takes everything."""
    answer = chain("api")
    answer["StartNode"] = "router:api.default.default"
    answer["Nodes"]["router:api.default.default"] = {
        "Type": "router",
        "Name": "api.default.default",
        "Routes": [{"Definition": {"Destination": destination}, "NextNode": f"resolver:{TARGET}"}],
    }
    return answer


@dataclass(slots=True)
class Mesh:
    """A caller, and the instances that it calls."""

    web: Half
    apis: list[Half]
    apps: list[App]
    port: int

    @property
    def requests(self) -> list[int]:
        return [len(app.requests) for app in self.apps]

    @property
    def retries(self) -> int:
        return self.web.metrics.for_upstream(TARGET).retries


@contextlib.asynccontextmanager
async def mesh(
    authority: Authority,
    behaviours: Sequence[Behaviour],
    config: Json | None = None,
    **destination: Any,
) -> AsyncIterator[Mesh]:
    async with contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(App(behaviour).running()) for behaviour in behaviours]
        apis = [
            await stack.enter_async_context(
                half(sidecar("api", authority, local_port=app.port, intentions=[ALLOW_ALL]))
            )
            for app in apps
        ]
        (port,) = free_ports(1)
        web = sidecar("web", authority, upstreams={"api": port}, config=config)
        web.hear(ChainWatch("api", "api"), routed(**destination))
        web.hear(
            EndpointsWatch("api"), [instance("api", api.port("inbound"), n) for n, api in enumerate(apis, 1)]
        )
        yield Mesh(await stack.enter_async_context(half(web)), apis, apps, port)


async def test_a_status_that_the_route_names_is_asked_again_at_another_instance(authority: Authority) -> None:
    async with mesh(authority, [BUSY, say(b"good")], NumRetries=1, RetryOnStatusCodes=[503]) as m:
        async with await Wire.open(m.port) as wire:
            for _ in range(6):
                answer = await wire.ask(GET)
                assert (answer.status, answer.body) == (200, b"good")
    assert m.requests == [3, 6]
    assert m.retries == 3
    assert m.web.metrics.for_upstream(TARGET).retries_succeeded == 3


async def test_without_a_condition_nothing_is_asked_again(authority: Authority) -> None:
    async with mesh(authority, [BUSY, BUSY], NumRetries=5) as m, await Wire.open(m.port) as wire:
        assert (await wire.ask(GET)).status == 503
    assert sum(m.requests) == 1
    assert m.retries == 0
