"""Routes and HTTP intentions against real Envoy sidecars under the same Consul, over a table of random requests.

Two meshes of the same shape, `e-` of Envoy sidecars and `l-` of ours, get the same entries, generation after
generation, and the same requests: same status, same instance, same path and headers seen by the app, same headers of
the answer. What differs on purpose is in `DIFFERENCES`, which names its row in docs/differences.md. `N=5000` asks for
more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.outcomes import Apps, Outcome, different
from harness.peers import peers
from harness.routing import Chance, Json, Request
from harness.servers import REPOSITORY, ConsulServer, Program, consul_server, eventually, http_json
from lictor.up.ports import free_ports

REQUESTS = int(os.environ.get("N", "0")) or 300
GENERATION = 60  # requests to one set of entries
INSTANCES = {"a-v1": {"version": "v1"}, "a-v2": {"version": "v2"}, "b-1": {}}
HOST = "api.example.com"
FAILURES = ("503", "503", "500", "504", "429", "409", "404", "cut")


# --- entries ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Generation:
    """The entries in force for a while, for the mesh of a prefix."""

    number: int
    prefix: str
    entries: list[Json] = field(default_factory=list)
    matches: list[Json] = field(default_factory=list)

    def name(self, service: str) -> str:
        return f"{self.prefix}-{service}"


def generation(number: int, prefix: str) -> Generation:
    """Return generation `number`: the same for both prefixes."""
    made = Generation(number, prefix)
    chance = Chance(random.Random(number))
    made.entries += [intentions(made, chance, service) for service in ("a", "b")]
    made.entries += resolvers(made, chance)
    made.entries += splitters(made, chance)
    made.entries.append(router(made, chance))
    return made


def intentions(made: Generation, chance: Chance, service: str) -> Json:
    """Return L7 intentions of the caller; the first rules tell which generation is in force."""
    mark = [
        {"Action": "allow", "HTTP": {"PathPrefix": f"/gen-{made.number}/"}},
        {"Action": "deny", "HTTP": {"PathPrefix": "/gen-"}},
    ]
    rules = [chance.permission() for _ in range(chance.draw.randrange(1, 6))]
    rest = [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}] if chance.yes(75) else []
    source = {"Name": chance.one((made.name("web"), "*")), "Permissions": [*mark, *rules, *rest]}
    made.matches += [rule["HTTP"] for rule in rules]
    return {"Kind": "service-intentions", "Name": made.name(service), "Sources": [source]}


def resolvers(made: Generation, chance: Chance) -> list[Json]:
    a, b = made.name("a"), made.name("b")
    some = chance.one(({"Service": b}, {"Service": a}, {"Service": a, "ServiceSubset": "v2"}))
    backup: tuple[Json, ...] = (
        {"Service": b},
        {"ServiceSubset": "v2"},
        {"Targets": [{"Service": made.name("dead")}, {"ServiceSubset": "v1"}]},
    )
    versions = {subset: {"Filter": f"Service.Meta.version == {subset}"} for subset in ("v1", "v2", "v9")}
    return [
        {
            "Kind": "service-resolver",
            "Name": a,
            "Subsets": versions,
            "DefaultSubset": chance.one(("v1", "v2")),
            "Failover": {"v9": chance.one(backup)},
        },
        {"Kind": "service-resolver", "Name": made.name("old"), "Redirect": some},
        {"Kind": "service-resolver", "Name": made.name("gone"), "Failover": {"*": {"Targets": [some, {"Service": b}]}}},
    ]


def splitters(made: Generation, chance: Chance) -> list[Json]:
    """Return `s`, which has all its weight on one leg, and `t`, which leads to it and tells the generation."""
    a, b, s = made.name("a"), made.name("b"), made.name("s")
    whole = {"Weight": 100, "Service": a, "ServiceSubset": chance.one(("v1", "v2")), **modifiers(chance)}
    legs = [whole, {"Weight": 0, "Service": b}]
    outer: Json = {"Weight": 100, "Service": s, **modifiers(chance)}
    outer["ResponseHeaders"]["Set"]["x-generation"] = str(made.number)
    return [
        {"Kind": "service-splitter", "Name": s, "Splits": legs[:: chance.one((1, -1))]},
        {"Kind": "service-splitter", "Name": made.name("t"), "Splits": [outer, {"Weight": 0, "Service": b}]},
    ]


def modifiers(chance: Chance) -> Json:
    return {"RequestHeaders": chance.modifiers(), "ResponseHeaders": chance.modifiers()}


def router(made: Generation, chance: Chance) -> Json:
    """Return the router of `a`: one route to each instance that tells the generation, then random ones."""
    names = ("b", "s", "t", "old", "gone", "dead")
    places: list[Json] = [{}, {"ServiceSubset": "v1"}, {"ServiceSubset": "v2"}, {"ServiceSubset": "v9"}]
    places += [{"Service": made.name(name)} for name in names]
    ways = ({"ServiceSubset": "v1"}, {"ServiceSubset": "v2"}, {"Service": made.name("b")})
    marks = [
        {
            "Match": {"HTTP": {"PathPrefix": f"/gen-{made.number}/{instance}"}},
            "Destination": {**way, "ResponseHeaders": {"Set": {"x-generation": str(made.number)}}},
        }
        for instance, way in zip(INSTANCES, ways, strict=True)
    ]
    routes = [chance.route(places) for _ in range(chance.draw.randrange(4, 10))]
    for route in routes:
        route["Destination"] |= chance.retries()
    made.matches += [route["Match"]["HTTP"] for route in routes] * 3
    return {"Kind": "service-router", "Name": made.name("a"), "Routes": [*marks, *routes]}


# --- the meshes -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Mesh:
    """The sidecars of one kind, and what their apps have seen, by the number of the request."""

    prefix: str
    ports: dict[str, int] = field(default_factory=dict)
    apps: Apps = field(default_factory=Apps)
    admin_ports: list[int] = field(default_factory=list)

    async def ask(self, upstream: str, request: Request, number: str) -> Outcome:
        """Send one request, on a connection of its own."""
        return await self.apps.ask(self.ports[upstream], request, number)

    async def in_force(self, number: int) -> bool:
        """Return whether every sidecar follows this generation, over every connection that there is."""
        wanted = [("a", instance) for instance in INSTANCES] + [("t", "")]
        for upstream, instance in wanted:
            request = Request("GET", f"/gen-{number}/{instance}", (("Host", HOST),))
            found = await self.ask(upstream, request, "mark")
            if found.status != 200 or found.answer.get("x-generation") != [str(number)]:
                return False
        return True


@pytest.fixture(scope="module")
def server() -> Any:
    with consul_server(settings={"default_intention_policy": "deny"}) as running:
        running.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
        yield running


@contextlib.asynccontextmanager
async def meshes(server: ConsulServer, folder: Path) -> AsyncIterator[tuple[Mesh, Mesh]]:
    """Run both: an app and a sidecar for every instance, and the caller's sidecar."""
    both = Mesh("e"), Mesh("l")
    async with contextlib.AsyncExitStack() as stack:
        proxies = stack.enter_context(peers(server, folder))
        for mesh in both:
            for instance, meta in INSTANCES.items():
                app = await stack.enter_async_context(mesh.apps.app(instance).running())
                service, _, version = instance.partition("-")
                proxies.register(f"{mesh.prefix}-{service}", app.port, meta=meta, instance=version)
            mesh.ports = dict(zip(("a", "t"), free_ports(2), strict=True))
            upstreams = {f"{mesh.prefix}-{name}": port for name, port in mesh.ports.items()}
            proxies.register(f"{mesh.prefix}-web", 1, upstreams=upstreams)
        write(server, 1)
        starts: list[tuple[Mesh, Callable[[str], Program], str]] = [
            (mesh, start, f"{mesh.prefix}-{instance}")
            for instance in (*INSTANCES, "web-1")
            for mesh, start in zip(both, (proxies.envoy_sidecar, proxies.lictor_sidecar), strict=True)
        ]
        programs = await asyncio.gather(*(asyncio.to_thread(start, instance) for _, start, instance in starts))
        for (mesh, *_), program in zip(starts, programs, strict=True):
            mesh.admin_ports.append(program.admin_port)
        yield both


def write(server: ConsulServer, number: int) -> None:
    for prefix in ("e", "l"):
        server.write(*generation(number, prefix).entries)


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A request and where it went."""

    generation: int
    upstream: str
    request: Request


def cut(case: Case) -> bool:
    return ("x-fail", "cut") in case.request.headers


def but_for_attempts(envoy: Outcome, ours: Outcome) -> bool:
    return replace(ours, attempts=envoy.attempts) == envoy


Known = Callable[[Case, Outcome, Outcome], bool]
# What may differ, by its row in docs/differences.md.
DIFFERENCES: dict[str, Known] = {
    "a kept connection that ends before the first byte of the answer": lambda case, envoy, ours: (
        cut(case)
        and case.request.method not in {"POST", "PATCH"}
        and ours.attempts == envoy.attempts + 1
        and but_for_attempts(envoy, ours)
    ),
    "a retry": lambda case, envoy, ours: (
        envoy.attempts > 1 and any(name == "x-fail" for name, _ in case.request.headers) and envoy.status == ours.status
    ),
    "a POST whose connection was lost": lambda case, envoy, ours: (
        cut(case)
        and case.request.method in {"POST", "PATCH"}
        and ours.attempts == 1 < envoy.attempts
        and but_for_attempts(envoy, ours)
    ),
}


def test_every_difference_stands_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "differences.md").read_text()
    assert [row for row in DIFFERENCES if f"| {row} |" not in text] == []


@pytest.mark.timeout(180 + REQUESTS // 8)
async def test_envoy_and_lictor_do_the_same_with_random_requests(server: ConsulServer, tmp_path: Path) -> None:
    found: list[str] = []
    outcomes: list[Outcome] = []
    async with meshes(server, tmp_path) as (envoy, ours):
        for number in range(1, 1 + -(-REQUESTS // GENERATION)):
            write(server, number)
            await asyncio.gather(*(settled(mesh, number) for mesh in (envoy, ours)))
            chance, matches = Chance(random.Random(f"requests {number}")), generation(number, "e").matches
            for turn in range(min(GENERATION, REQUESTS - (number - 1) * GENERATION)):
                case = Case(number, "t" if chance.yes(15) else "a", failing(chance, chance.request(matches, HOST)))
                asked = (mesh.ask(case.upstream, case.request, f"{number}.{turn}") for mesh in (envoy, ours))
                theirs, mine = await asyncio.gather(*asked)
                outcomes.append(theirs)
                known = [row for row, holds in DIFFERENCES.items() if holds(case, theirs, mine)]
                if (wrong := different(theirs, mine, ("Envoy", "ours"))) and not known:
                    found.append("\n  ".join([f"{case}", *wrong]))
    assert not found, f"{len(found)} of {len(outcomes)} differ:\n" + "\n".join(found[:20])
    check_not_trivial(outcomes)


def failing(chance: Chance, request: Request) -> Request:
    """Return the request, now and then with the wish that the app should fail."""
    if not chance.yes(15):
        return request
    return replace(request, headers=(*request.headers, ("x-fail", chance.one(FAILURES))))


async def settled(mesh: Mesh, number: int) -> None:
    """Wait until a generation is in force; Envoy's connections of before go by the old one until they are drained."""
    await eventually(lambda: mesh.in_force(number), 30, every=0.1)
    if mesh.prefix == "e":
        await eventually(lambda: asyncio.to_thread(drained, mesh), 30, every=0.1)
        await eventually(lambda: mesh.in_force(number), 30, every=0.1)


def drained(mesh: Mesh) -> bool:
    pages = [f"http://127.0.0.1:{port}/stats?format=json&filter=_draining$" for port in mesh.admin_ports]
    stats = [stat for page in pages for stat in http_json(page)["stats"]]
    assert len(stats) >= 2 * len(pages), stats  # of listeners and of filter chains
    return not any(stat["value"] for stat in stats)


def check_not_trivial(outcomes: list[Outcome]) -> None:
    statuses = [outcome.status for outcome in outcomes]
    assert statuses.count(200) > len(statuses) / 4
    assert {200, 403, 503} <= set(statuses)
    assert {outcome.instance for outcome in outcomes} == {*INSTANCES, ""}
