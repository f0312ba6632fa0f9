"""Ingress and api gateways against Envoy ones of the same Consul, over a table of random requests.

Two gateways of each kind, Envoy's and ours, are told the same by their entries, generation after generation, and are
asked the same: same status, same instance, same path and headers seen by the app, same headers of the answer. Behind
them are the same sidecars. Not compared is what a gateway says of the caller, see docs/differences.md; other rows of
that page are kept out of the entries that are made here. `N=5000` asks for more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.outcomes import UNSEEN, Apps, Outcome, different
from harness.peers import peers
from harness.routing import METHODS, REWRITES, Chance, Json, Request
from harness.servers import REPOSITORY, ConsulServer, consul_server, eventually
from lictor.up.ports import free_ports

REQUESTS = int(os.environ.get("N", "0")) or 240
GENERATION = 60  # requests to one set of entries
INSTANCES = {"a-v1": {"version": "v1"}, "a-v2": {"version": "v2"}, "b-1": {}, "shut-1": {}, "t-1": {}}
GATEWAYS = ("e-in", "l-in", "e-api", "l-api")
SERVICES = ("a", "b", "s", "old", "dead", "shut")  # that a rule may lead to
TCP = "tcp"  # the name of a listener of either kind, which leads to `t`
LISTENERS = ("one", "two", "wild", "gone")  # `gone` has no route in every other generation
# What the gateway at the edge says of its caller and its request: see the row "who called, from outside".
OF_THE_EDGE = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "traceparent"})
HOSTS = (
    "a.example.com", "A.example.com", "a.example.com:PORT", "a.example.com:1", "a.example.com.", "b.example.com",
    "x.wild.example.com", "x.y.wild.example.com", "wild.example.com", "other.example.com", "example.com",
    "a.example.org", "r.ingress.consul", "r.ingress.dc1.consul:99", "s.ingress.", "s.ingress.x",
    "b.ingress.consul", "nobody", "",
)  # fmt: skip
# Exact paths are of other lengths than prefixes: which of two equally long ones comes first is a known difference.
EXACT = ("/exact", "/exact/x", "/api/v1/x")
PREFIXES = ("/", "/a", "/api", "/api/", "/API", "/x/y")
REGEXES = ("/a.*", r"/(api|x)/[a-z]+[0-9]?", "/[^/]*", "(?i)/api.*", ".*1x")
VALUES = ("1", "yes", "abc", "v1")
FAILING = ("x-fail", "503")  # asks the app to fail; some rules try again then


# --- entries ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Generation:
    """What is in force for a while: of services, and of gateways by their kind."""

    number: int
    services: list[Json] = field(default_factory=list)
    ingress: list[Json] = field(default_factory=list)  # listeners, without ports
    routes: list[Json] = field(default_factory=list)  # their parents name listeners
    matches: list[Json] = field(default_factory=list)  # as a router has them, for requests that are likely to meet them

    def marked(self) -> Json:
        """Return changes of answers that tell the generation."""
        return {"Set": {"x-generation": str(self.number)}}


def generation(number: int) -> Generation:
    """Return generation `number`."""
    made = Generation(number)
    chance = Chance(random.Random(f"gateways {number}"))
    made.services = services(chance)
    made.ingress = ingress(made, chance)
    made.routes = [http_route(made, chance, name) for name in LISTENERS if name != "gone" or number % 2]
    made.matches += [row["Match"]["HTTP"] for row in made.services[-1]["Routes"]]
    return made


def services(chance: Chance) -> list[Json]:
    """Return what stands behind: subsets, a redirect, a splitter with all its weight on one leg, a router."""
    versions = {subset: {"Filter": f"Service.Meta.version == {subset}"} for subset in ("v1", "v2")}
    whole = {"Weight": 100, "Service": "a", "ServiceSubset": chance.one(("v1", "v2")), **chance.modified(60)}
    places: list[Json] = [
        {},
        {"Service": "a", "ServiceSubset": "v2"},
        {"Service": "b"},
        {"Service": "s"},
        {"Service": "dead"},
    ]
    return [
        {"Kind": "service-resolver", "Name": "a", "Subsets": versions, "DefaultSubset": chance.one(("v1", "v2"))},
        {"Kind": "service-resolver", "Name": "old", "Redirect": {"Service": "b"}},
        {"Kind": "service-splitter", "Name": "s", "Splits": [whole, {"Weight": 0, "Service": "b"}]},
        {"Kind": "service-resolver", "Name": "r", "Redirect": {"Service": "b"}},
        {"Kind": "service-router", "Name": "s", "Routes": [chance.route(places) for _ in range(4)]},
    ]


def ingress(made: Generation, chance: Chance) -> list[Json]:
    """Return the listeners of an ingress gateway."""

    def service(name: str, *hosts: str) -> Json:
        changes = {field: chance.modifiers() for field in ("RequestHeaders", "ResponseHeaders")}
        changes["ResponseHeaders"]["Set"]["x-generation"] = str(made.number)
        return {"Name": name, "Hosts": list(hosts), **changes}

    hosts = {"a": ("a.example.com", "*.wild.example.com"), "s": ("b.example.com",), "b": ("*.example.com",)}
    named = {name: hosts[name] if chance.yes(75) else () for name in hosts}
    one = [service(name, *of) for name, of in named.items()] + [service("shut", "a.example.org"), service("r")]
    chance.draw.shuffle(one)
    two = [service("s"), service(chance.one(("a", "b", "dead")), "*")]
    return [
        {"Protocol": "http", "Services": one},
        {"Protocol": "http", "Services": two},
        {"Protocol": "tcp", "Services": [{"Name": "t"}]},
    ]


def http_route(made: Generation, chance: Chance, section: str) -> Json:
    """Return a route of one listener; its first rule tells the generation."""
    hosts: dict[str, list[str]] = {
        "one": [],
        "two": ["a.example.com", "b.example.com"],
        "wild": ["a.example.com", "other.example.com", "a.example.org"],
        "gone": [],
    }
    mark = {
        "Matches": [{"Path": {"Match": "prefix", "Value": f"/the-generation-{made.number}"}}],
        "ResponseFilters": {"Headers": [made.marked()]},
        "Services": [{"Name": "b"}],
    }
    # Nobody asks for these. Whoever follows a generation follows every service, those too that are new to its rules.
    every = [
        {"Matches": [{"Path": {"Match": "exact", "Value": f"/every/{name}"}}], "Services": [{"Name": name}]}
        for name in SERVICES
    ]
    rules = [rule(made, chance) for _ in range(chance.draw.randrange(3, 8))]
    return {"Kind": "http-route", "Section": section, "Hostnames": hosts[section], "Rules": [mark, *every, *rules]}


def rule(made: Generation, chance: Chance) -> Json:
    matches = [match(made, chance) for _ in range(chance.one((1, 1, 2)))]
    filters: Json = {"Headers": header_filters(chance)}
    if chance.yes(40) and not any(one["Path"]["Match"] == "regex" for one in matches):
        filters["URLRewrite"] = {"Path": chance.one(REWRITES)}
    if chance.yes(20):
        filters["TimeoutFilter"] = {"RequestTimeout": "7s", "IdleTimeout": "-1s"}
    if chance.yes(70):
        filters["RetryFilter"] = {"NumRetries": 2, "RetryOnStatusCodes": [503]}
    several = chance.yes(30)
    if several:  # all of them lead to the same instance, so that one draw is as good as another
        rows = [{"Name": "b", "Weight": 3}, {"Name": "old", "Weight": 1}]
        own = {"Headers": header_filters(chance)}
        rows = [row | {"Filters": own} for row in rows]
    else:
        row: Json = {"Name": chance.one(SERVICES)}
        if chance.yes(40):
            row["Filters"] = {"Headers": header_filters(chance)}
            row["ResponseFilters"] = {"Headers": header_filters(chance)}
        rows = [row]
    return {
        "Matches": matches,
        "Filters": filters,
        "ResponseFilters": {"Headers": header_filters(chance)},
        "Services": rows,
    }


def header_filters(chance: Chance) -> list[Json]:
    return [chance.modifiers() for _ in range(chance.one((0, 1, 1, 2)))]


def match(made: Generation, chance: Chance) -> Json:
    kind, values, field_name = chance.one(
        (("exact", EXACT, "PathExact"), ("prefix", PREFIXES, "PathPrefix"), ("regex", REGEXES, "PathRegex"))
    )
    value = chance.one(values)
    found: Json = {"Path": {"Match": kind, "Value": value}}
    asked: Json = {field_name: value}
    if chance.yes(25):
        found["Method"] = chance.one(METHODS)
        asked["Methods"] = [found["Method"]]
    tests: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...], int], ...] = (
        ("Headers", "Header", ("x-a", "X-B", "host"), ("present", "exact", "prefix", "suffix", "regex"), 30),
        ("Query", "QueryParam", ("q", "v"), ("present", "exact", "regex"), 20),
    )
    for field_of_route, field_of_router, names, kinds, percent in tests:
        if chance.yes(percent):
            name, how, what = chance.one(names), chance.one(kinds), chance.one(VALUES)
            found[field_of_route] = [{"Match": how, "Name": name, "Value": what if how != "present" else ""}]
            asked[field_of_router] = [{"Name": name, how.capitalize(): what if how != "present" else True}]
    made.matches.append(asked)
    return found


# --- the gateways -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Edges:
    """The four gateways, by name, and the ports of their listeners: of an ingress numbers, of an api gateway names."""

    server: ConsulServer
    apps: Apps
    ports: dict[str, dict[str, int]]

    def write(self, made: Generation) -> None:
        """Tell all of them what is to be in force."""
        self.server.write(*made.services)
        for gateway in ("e-in", "l-in"):
            ports = self.ports[gateway].values()
            rows = [{"Port": port, **row} for port, row in zip(ports, made.ingress, strict=True)]
            self.server.write({"Kind": "ingress-gateway", "Name": gateway, "Listeners": rows})
        there = {route["Section"] for route in made.routes}
        for name in LISTENERS:
            if name not in there:
                self.server.api(f"config/http-route/{name}", "DELETE")
        for route in made.routes:
            section = route["Section"]
            parents = [
                {"Kind": "api-gateway", "Name": gateway, "SectionName": section} for gateway in ("e-api", "l-api")
            ]
            rest = {key: value for key, value in route.items() if key != "Section"}
            self.server.write({**rest, "Name": section, "Parents": parents})

    async def in_force(self, made: Generation) -> bool:
        """Return whether every listener of every gateway follows this generation."""
        mark = f"/the-generation-{made.number}"
        there = {route["Section"] for route in made.routes}
        asked = [
            (name, port, "a.example.org", "/")
            for name in ("e-in", "l-in")
            for key, port in self.ports[name].items()
            if key != TCP
        ]
        asked += [
            (name, port, "a.example.com", mark)
            for name in ("e-api", "l-api")
            for section, port in self.ports[name].items()
            if section in there
        ]
        for _, port, host, target in asked:
            found = await self.apps.ask(port, Request("GET", target, (("Host", host),)), "mark")
            if found.answer.get("x-generation") != [str(made.number)]:
                return False
        closed = [ports["gone"] for name, ports in self.ports.items() if name.endswith("api")]
        return "gone" in there or not any([await self.is_open(port) for port in closed])

    async def is_open(self, port: int) -> bool:
        """Return whether anybody listens."""
        return (await self.apps.ask(port, Request("GET", "/", (("Host", "x"),)), "mark")).status != 0


@pytest.fixture(scope="module")
def server() -> Any:
    with consul_server(settings={"default_intention_policy": "deny"}) as running:
        running.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
        sources = [{"Name": name, "Action": "allow"} for name in GATEWAYS]
        running.write({"Kind": "service-defaults", "Name": "t", "Protocol": "tcp"})
        for service in ("a", "b", "t"):
            running.write({"Kind": "service-intentions", "Name": service, "Sources": sources})
        yield running


@contextlib.asynccontextmanager
async def edges(server: ConsulServer, folder: Path) -> AsyncIterator[Edges]:
    """Run the gateways, and behind them apps with our sidecars; nobody may call `shut`."""
    apps = Apps(UNSEEN | OF_THE_EDGE)
    numbers = iter(free_ports(2 * (3 + 1 + len(LISTENERS)) + len(GATEWAYS)))
    ports = {
        name: {key: next(numbers) for key in (("first", "second", TCP) if name.endswith("in") else (*LISTENERS, TCP))}
        for name in GATEWAYS
    }
    async with contextlib.AsyncExitStack() as stack:
        proxies = stack.enter_context(peers(server, folder))
        for instance, meta in INSTANCES.items():
            app = await stack.enter_async_context(apps.app(instance).running())
            service, _, number = instance.partition("-")
            proxies.register(service, app.port, meta=meta, instance=number)
        made = Edges(server, apps, ports)
        for name in ("e-api", "l-api"):
            rows = [
                {"Name": key, "Port": port, "Protocol": "tcp" if key == TCP else "http"}
                for key, port in ports[name].items()
            ]
            rows[LISTENERS.index("wild")]["Hostname"] = "*.example.com"
            server.write({"Kind": "api-gateway", "Name": name, "Listeners": rows})
        parents = [{"Name": name, "SectionName": TCP} for name in ("e-api", "l-api")]
        server.write({"Kind": "tcp-route", "Name": TCP, "Parents": parents, "Services": [{"Name": "t"}]})
        made.write(generation(1))
        starts: list[tuple[Callable[..., object], tuple[object, ...]]] = [
            (proxies.lictor_sidecar, (instance,)) for instance in INSTANCES
        ]
        for name in GATEWAYS:
            start = proxies.envoy_gateway if name.startswith("e") else proxies.lictor_gateway
            starts.append((start, (name, next(numbers), "ingress" if name.endswith("in") else "api")))
        turns = asyncio.Semaphore(2)  # each has its time to get ready, and a machine may be busy

        async def started(start: Callable[..., object], arguments: tuple[object, ...]) -> None:
            async with turns:
                await asyncio.to_thread(start, *arguments)

        await asyncio.gather(*(started(*one) for one in starts))
        yield made


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A request and where it went."""

    generation: int
    kind: str
    listener: str
    request: Request


def test_what_is_not_compared_stands_in_the_docs() -> None:
    assert "| who called, from outside |" in (REPOSITORY / "docs" / "differences.md").read_text()


@pytest.mark.timeout(240 + REQUESTS // 8)
async def test_envoy_and_our_gateways_do_the_same_with_random_requests(server: ConsulServer, tmp_path: Path) -> None:
    found: list[str] = []
    outcomes: list[Outcome] = []
    async with edges(server, tmp_path) as gateways:
        for number in range(1, 1 + -(-REQUESTS // GENERATION)):
            made = generation(number)
            gateways.write(made)
            await eventually(lambda made=made: gateways.in_force(made), 30, every=0.1)
            chance = Chance(random.Random(f"requests to gateways {number}"))
            for turn in range(min(GENERATION, REQUESTS - (number - 1) * GENERATION)):
                case = a_case(chance, made)
                theirs, mine = await asyncio.gather(
                    *(ask(gateways, case, name, f"{number}.{turn}.{name}") for name in ("e", "l"))
                )
                outcomes.append(theirs)
                if wrong := different(theirs, mine, ("Envoy", "ours")):
                    found.append("\n  ".join([f"{case}", *wrong]))
    assert not found, f"{len(found)} of {len(outcomes)} differ:\n" + "\n".join(found[:20])
    check_not_trivial(outcomes)


def a_case(chance: Chance, made: Generation) -> Case:
    kind = chance.one(("in", "api"))
    listener = chance.one(("first", "first", "second") if kind == "in" else LISTENERS) if chance.yes(95) else TCP
    host = chance.one(HOSTS) if chance.yes(60) else chance.one(("a.example.com", "b.example.com", "s.ingress.consul"))
    request = chance.request(made.matches, host)
    fields = (*request.headers, FAILING) if chance.yes(20) else request.headers
    return Case(made.number, kind, listener, Request(request.method, request.target, fields))


async def ask(gateways: Edges, case: Case, prefix: str, number: str) -> Outcome:
    """Ask one of the two gateways; a port in the Host is its own."""
    port = gateways.ports[f"{prefix}-{case.kind}"][case.listener]
    fields = tuple((name, value.replace("PORT", str(port))) for name, value in case.request.headers)
    found = await gateways.apps.ask(port, Request(case.request.method, case.request.target, fields), number)
    if host := found.seen.get("host"):
        found.seen["host"] = [value.replace(str(port), "PORT") for value in host]
    return found


def check_not_trivial(outcomes: list[Outcome]) -> None:
    statuses = [outcome.status for outcome in outcomes]
    assert statuses.count(200) > len(statuses) / 4
    assert {0, 200, 403, 404, 503} <= set(statuses)
    assert max(outcome.attempts for outcome in outcomes) > 1
    assert {outcome.instance for outcome in outcomes} == {*INSTANCES, ""} - {"shut-1"}
