"""The routing that the table makes of Consul's chains, and of our own compiler's, is the same, request by request.

Random sets of entries, good and bad, are written to a real Consul. For each set that stands, every service's chain is
asked of Consul and compiled by us; each becomes a table, and random requests that are likely to hit the routes must be
decided alike: by both tables, and by a plain reading of Consul's chain that knows neither. `N=10000` asks for more.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataplane.exchange import Forward
from dataplane.heads import parse_request
from dataplane.routing import PreparedOutbound
from harness.certificates import Authority
from harness.meshes import instance, sidecar
from harness.routing import Chance, Json, Request
from harness.servers import ConsulServer, consul_server
from policies.compiler import compile_table
from policies.discovery import check_graph, compile_chain
from policies.entries import DecodeError, Entries, decode_entry, entry_name, normalise_entry
from policies.errors import EntryError
from policies.table import Leg, Outbound, Route
from policies.wanted import wanted
from policies.watches import ChainWatch, EndpointsWatch

EXAMPLES = int(os.environ.get("N", "0")) or 200
NAMES = ("a", "b", "c", "d")
SUBSETS = ("v1", "v2")


# --- random sets of entries -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Writing:
    """One set: entries over four names of its own, most of them good."""

    chance: Chance
    suffix: str

    def name(self) -> str:
        return f"{self.chance.one(NAMES)}{self.suffix}"

    def named(self, of: str) -> str:
        return f"{of}{self.suffix}" if of else self.name()

    def place(self) -> Json:
        found: Json = {"Service": self.name()} if self.chance.yes(70) else {}
        return {**found, "ServiceSubset": self.chance.one(SUBSETS)} if self.chance.yes(25) else found

    def entries(self) -> list[Json]:
        kinds = [self.router, self.router, self.splitter, self.splitter, self.defaults, self.resolver, self.resolver]
        later = [self.chance.one(kinds)() for _ in range(self.chance.draw.randrange(3, 9))]
        # Most sets begin so that routers and splitters may stand.
        first = [self.resolver(name) for name in NAMES if self.chance.yes(85)]
        return [*first, *(self.router("a") for _ in range(2)), *later]

    def defaults(self) -> Json:
        return {
            "Kind": "service-defaults",
            "Name": self.name(),
            "Protocol": self.chance.one(("http", "http", "http", "grpc", "tcp", "HTTP")),
        }

    def router(self, of: str = "") -> Json:
        routes = []
        for _ in range(self.chance.draw.randrange(1, 8)):
            route = self.chance.route([self.place()])
            route["Destination"] |= self.chance.timeouts() | self.chance.retries()
            routes.append(self.spoilt(route) if self.chance.yes(2) else route)
        return {"Kind": "service-router", "Name": self.named(of), "Routes": routes}

    def spoilt(self, route: Json) -> Json:
        """Return a route that Consul refuses, or maybe not."""
        more: Json = self.chance.one(
            ({"PathExact": "a"}, {"PathExact": "/a", "PathPrefix": "/b"}, {"Header": [{"Name": "x"}]})
        )
        return {**route, "Match": {"HTTP": {**route["Match"]["HTTP"], **more}}}

    def splitter(self) -> Json:
        weights = self.chance.one(([100], [50, 50], [33.33, 66.67], [0, 100], [25, 25, 50], [0.5, 99.5], [90, 5]))
        splits = []
        for weight in weights:
            # Header changes on all legs or on none: Consul dies of some mixtures in nested splitters.
            changes = {"RequestHeaders": self.chance.modifiers(), "ResponseHeaders": self.chance.modifiers()}
            splits.append({"Weight": weight, **self.place(), **changes})
        return {"Kind": "service-splitter", "Name": self.name(), "Splits": splits}

    def resolver(self, of: str = "") -> Json:
        chance = self.chance
        entry: Json = {"Kind": "service-resolver", "Name": self.named(of)}
        entry["Subsets"] = {"v1": {"Filter": "Service.Meta.version == v1"}, "v2": {"OnlyPassing": True}}
        if chance.yes(30):
            entry["DefaultSubset"] = chance.one((*SUBSETS, "v9") if chance.yes(10) else SUBSETS)
        if chance.yes(20):
            entry["Redirect"] = self.place()
        elif chance.yes(40):
            place = self.place()
            entry["Failover"] = {chance.one(("*", "v1")): chance.one((place, {"Targets": [place, self.place()]}))}
        for field in ("ConnectTimeout", "RequestTimeout"):
            if chance.yes(30):
                entry[field] = chance.one(("1s", "250ms", "1m30s", "0s"))
        if chance.yes(30):
            entry["LoadBalancer"] = chance.one(BALANCERS)
        return entry


BALANCERS: tuple[Json, ...] = (
    {"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 3}},
    {"Policy": "random"},
    {"Policy": "maglev",
     "HashPolicies": [{"Field": "header", "FieldValue": "x-a", "Terminal": True}, {"SourceIP": True}]},
    {"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 8, "MaximumRingSize": 64},
     "HashPolicies": [{"Field": "cookie", "FieldValue": "c", "CookieConfig": {"TTL": "1h", "Path": "/"}}]},
)  # fmt: skip


class Consul:
    """The real one, and our own entries after the same writes."""

    def __init__(self, server: ConsulServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
        self.trust_domain = str(self.ask("GET", "connect/ca/roots")[1]["TrustDomain"])
        self.numbers = itertools.count()
        self.seen: Counter[str] = Counter()  # what the random sets have led to
        self.ours = Entries()
        assert self.put({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
        self.beginning = self.ours

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        self._connection.request(method, f"/v1/{path}", body=None if body is None else json.dumps(body))
        answer = self._connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if answer.status == 200 else text

    def put(self, raw: Json) -> bool:
        """Write to both, which must agree on whether it may stand."""
        status, answer = self.ask("PUT", "config", raw)
        after, why = self.ours, ""
        try:
            entry = normalise_entry(decode_entry(raw))
            after = self.ours.put(entry)
            check_graph(self.ours, after, entry["Kind"], entry_name(entry), trust_domain=self.trust_domain)
        except (DecodeError, EntryError) as error:
            why = str(error)
        assert (status == 200) is not bool(why), f"{raw}\nConsul {answer}\nours {why}"
        self.seen["refused" if why else "taken"] += 1
        self.ours = self.ours if why else after
        return not why

    def chains(self, service: str) -> tuple[Json, Json] | None:
        """Return Consul's chain and ours, or None where both find that there is none."""
        status, theirs = self.ask("GET", f"discovery-chain/{service}")
        ours, why = None, ""
        try:
            ours = compile_chain(self.ours, service, datacenter="dc1", trust_domain=self.trust_domain)
        except EntryError as error:
            why = str(error)
        assert (status == 200) is not bool(why), f"{service}\nConsul {theirs}\nours {why}"
        return (theirs["Chain"], ours) if ours is not None else None


@pytest.fixture(scope="module")
def consul() -> Iterator[Consul]:
    with consul_server() as server, contextlib.closing(Consul(server)) as both:
        yield both


# --- decisions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What stands in for an endpoint: it only says which arm of which route was taken."""

    route: Route
    leg: Leg


def outbound(authority: Authority, service: str, chain: Json) -> Outbound:
    """Return what the table of a caller has for this chain; half of the services have instances."""
    member = sidecar("web", authority, upstreams={service: 1})
    member.hear(ChainWatch(service, service), chain)
    for watch in wanted(member.snapshot):
        if isinstance(watch, EndpointsWatch):
            there = watch.service[0] in "ab"
            rows = [instance(watch.service, port, port, Meta={"version": f"v{port}"}) for port in (1, 2)]
            member.hear(watch, rows if there else [])
    table, problems = compile_table(member.snapshot)
    assert not problems, problems
    return table.outbounds[service]


Decided = tuple[Route, bytes, bytes]


def decision(made: PreparedOutbound, request: Request) -> Decided:
    """Return the route that takes a request, with all its legs, and the head as the route leaves it."""
    head = parse_request(request.lines())
    found = cast("object", made.decide(head))
    assert isinstance(found, Taken), found
    assert found.leg in found.route.legs
    return found.route, head.target, head.lines


def prepared(made: Outbound) -> PreparedOutbound:
    return PreparedOutbound(made, lambda route, leg: cast("Forward", Taken(route, leg)))


@pytest.mark.timeout(180 + EXAMPLES // 4)
@given(st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_request_is_routed_alike_by_consuls_chain_and_by_ours(
    consul: Consul, authority: Authority, seed: int
) -> None:
    chance = Chance(random.Random(seed))
    written = Writing(chance, f"-{next(consul.numbers)}")
    consul.ours = consul.beginning
    for raw in written.entries():
        consul.put(raw)
    for name in NAMES:
        service = f"{name}{written.suffix}"
        both = consul.chains(service)
        if both is None:
            continue
        tables = [outbound(authority, service, chain) for chain in both]
        made = [prepared(table) for table in tables]
        matches = list(matches_of(both[0]))
        for _ in range(14 if name == "a" else 2):
            request = chance.request(matches, "api.example.com")
            theirs, ours = (decision(one, request) for one in made)
            consul.seen.update(kinds_of(theirs[0], rewritten=theirs[1] != request.target.encode()))
            assert ours == theirs, f"{service}: {request}"
            check_by_reading(both[0], tables[0], request, theirs)


def kinds_of(route: Route, *, rewritten: bool) -> Iterator[str]:
    yield "catch-all" if route.match is None else "route"
    if len(route.legs) > 1:
        yield "split"
    if any(len(leg.clusters) > 1 for leg in route.legs):
        yield "failover"
    if any(leg.clusters[0].subset for leg in route.legs):
        yield "subset"
    if rewritten:
        yield "rewritten"


def test_the_sets_were_not_trivial(consul: Consul) -> None:
    """Runs after the test above, on what it has met."""
    assert consul.seen["refused"] > 0.05 * consul.seen["taken"]
    asked = consul.seen["catch-all"] + consul.seen["route"]
    shares = {kind: consul.seen[kind] / asked for kind in ("route", "split", "failover", "subset", "rewritten")}
    assert min(shares.values()) > 0.05, (shares, consul.seen)


# --- a plain reading of a chain ---------------------------------------------------------------------------------------


def matches_of(chain: Json) -> list[Mapping[str, Any]]:
    """Return the `Match.HTTP` of every route; one that asks nothing where there is no router."""
    routes = chain["Nodes"][chain["StartNode"]].get("Routes") or [{"Definition": {}}]
    return [(route["Definition"].get("Match") or {}).get("HTTP") or {} for route in routes]


def check_by_reading(chain: Json, table: Outbound, request: Request, decided: Decided) -> None:
    """Fail where the first route that takes the request, tried one by one, is not the one decided for."""
    route, target, _ = decided
    matches = matches_of(chain)
    position = next(number for number, match in enumerate(matches) if takes(match, request))
    assert route == table.routes[position], f"{request}: it is route {position} of {matches}"
    start = chain["Nodes"][chain["StartNode"]]
    below, rewrite = chain["StartNode"], ""
    if start["Type"] == "router":
        below = start["Routes"][position]["NextNode"]
        rewrite = (start["Routes"][position]["Definition"].get("Destination") or {}).get("PrefixRewrite") or ""
    assert [(round(leg.weight, 2), [cluster.target for cluster in leg.clusters]) for leg in route.legs] == [
        (round(weight, 2), targets) for weight, targets in legs_of(chain, below)
    ]
    path, mark, query = request.target.partition("?")
    if rewrite:
        match = matches[position]
        path = rewrite + ("" if "PathExact" in match else path[len(match["PathPrefix"]) :])
    assert target == f"{path}{mark}{query}".encode()


def legs_of(chain: Json, name: str) -> Iterator[tuple[float, list[str]]]:
    node = chain["Nodes"][name]
    if node["Type"] == "resolver":
        failover = (node["Resolver"].get("Failover") or {}).get("Targets") or []
        yield 100, [node["Resolver"]["Target"], *failover]
        return
    for split in node["Splits"]:
        for weight, targets in legs_of(chain, split["NextNode"]):
            yield split.get("Weight", 0) * weight / 100, targets


def takes(match: Mapping[str, Any], request: Request) -> bool:
    if match.get("Methods") and request.method not in match["Methods"]:
        return False
    if not takes_path(match, request.path):
        return False
    if not all(takes_header(test, request) for test in match.get("Header") or ()):
        return False
    return all(takes_parameter(test, request) for test in match.get("QueryParam") or ())


def takes_path(match: Mapping[str, Any], path: str) -> bool:
    if match.get("PathRegex"):
        return re.fullmatch(match["PathRegex"], path) is not None
    exact, prefix = match.get("PathExact", ""), match.get("PathPrefix", "")
    if match.get("CaseInsensitive"):
        exact, prefix, path = exact.lower(), prefix.lower(), path.lower()
    return path == exact if exact else path.startswith(prefix)


def takes_header(test: Mapping[str, Any], request: Request) -> bool:
    special = {":authority": "api.example.com", ":method": request.method, ":path": request.target}
    name = test["Name"].lower()
    values = [value.strip(" ") for key, value in request.headers if key.lower() == name]
    values = [special[name]] if name in special else values
    if test.get("Present"):
        return bool(values) is not bool(test.get("Invert"))
    return bool(values) and any(takes_value(test, value) for value in values) is not bool(test.get("Invert"))


def takes_value(test: Mapping[str, Any], value: str) -> bool:
    if test.get("Regex"):
        return re.fullmatch(test["Regex"], value) is not None
    if test.get("Prefix"):
        return value.startswith(test["Prefix"])
    return value.endswith(test["Suffix"]) if test.get("Suffix") else value == test["Exact"]


def takes_parameter(test: Mapping[str, Any], request: Request) -> bool:
    pairs = [pair.partition("=") for pair in request.target.partition("?")[2].split("&") if pair]
    value = next((value for name, _, value in pairs if name == test["Name"]), None)
    return value is not None and (bool(test.get("Present")) or takes_value(test, value))
