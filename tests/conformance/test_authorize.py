"""Our answers against the agent's own, /v1/agent/connect/authorize, over a table of intentions; and its default.

What no permission of an L7 intention matches falls to the default of the agent, which no intention may hide or feign.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from controlplane.consul.catalog import Catalog
from controlplane.consul.settings import ConsulSettings
from harness.peers import peers
from harness.routing import Chance
from harness.servers import ConsulServer, consul_server, dev_server, eventually
from harness.wire import App, Wire
from lictor.up.ports import free_ports
from policies.intentions import Action, parse_intentions
from policies.watches import DefaultActionWatch, IntentionsWatch

SOURCES = ("web", "db", "other")
TARGET = "auth-api"  # the beginning of the names of most: what it has heard of a name an agent remembers for a moment


@contextlib.contextmanager
def started(kind: str, default: str, *, acl: bool = False) -> Iterator[ConsulServer]:
    """Run the real server or ours with a default for intentions."""
    if kind == "real":
        settings = {"default_intention_policy": default} if default else {}
        with consul_server(acl=acl, settings=settings) as running:
            yield running
    else:
        with dev_server(acl=acl, default_intention_policy=default) as running:
            yield running


@pytest.fixture(scope="module", params=itertools.product(["real", "embedded"], ["allow", "deny"]), ids="-".join)
def serving(request: pytest.FixtureRequest) -> Iterator[tuple[ConsulServer, bool]]:
    """A server, and whether it allows what no intention says."""
    with started(*request.param) as running:
        yield running, request.param[1] == "allow"


def clear(server: ConsulServer) -> None:
    """Take away every intention."""
    for entry in server.api("config/service-intentions"):
        server.api(f"config/service-intentions/{entry['Name']}", "DELETE")


def sources(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return random sources for the exact destination and for `*`."""
    chance = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {}
    for destination in (f"{TARGET}-{seed}", "*"):
        rows = []
        for source in ("web", "db", "*"):
            kind = chance.choice(["none", "allow", "deny", "http"])
            if kind == "http" and destination != "*":
                action = chance.choice(["allow", "deny"])
                rows.append({"Name": source, "Permissions": [{"Action": action, "HTTP": {"PathPrefix": "/"}}]})
            elif kind in {"allow", "deny"}:
                rows.append({"Name": source, "Action": kind})
        found[destination] = rows
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_our_decision_is_the_agents(serving: tuple[ConsulServer, bool], seed: int) -> None:
    server, by_default = serving
    target = f"{TARGET}-{seed}"
    server.write({"Kind": "service-defaults", "Name": target, "Protocol": "http"})
    for destination, rows in sources(seed).items():
        if rows:
            server.write({"Kind": "service-intentions", "Name": destination, "Sources": rows})
        else:
            server.api(f"config/service-intentions/{destination}", "DELETE")
    async with Catalog(ConsulSettings(server.http_addr)) as agent:
        trust_domain = str((await agent.roots())["TrustDomain"])
        rows = (await agent.read(IntentionsWatch(target), "", 1)).data
        allowed = (await agent.read(DefaultActionWatch(target), "", 1)).data
    intentions, problems = parse_intentions(rows)
    assert not problems
    assert allowed is by_default
    default = Action.ALLOW if allowed else Action.DENY
    for source in SOURCES:
        uri = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{source}"
        body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "00"}
        theirs = server.api("agent/connect/authorize", "POST", body)
        ours = intentions.for_source(source, default).connection
        assert ours.allowed is theirs["Authorized"], (source, ours.because, theirs["Reason"])


# --- random sets ---------------------------------------------------------------------------------------------------

SETS = int(os.environ.get("N", "0")) or 200  # on a server, half of them under each default
PER_WILDCARD = 10  # destinations that share the intentions of `*`
CALLERS = ("web", "Web", "web2", "we.b", "db", "other")


def random_sources(chance: Chance, *, http: bool) -> list[dict[str, Any]]:
    """Return sources of one destination: some by name, some in other letters, everybody, some of a peer."""
    rows: list[dict[str, Any]] = []
    for source in chance.draw.sample((*CALLERS[:-1], "*"), chance.draw.randrange(1, 6)):
        row: dict[str, Any] = {"Name": source, "Action": chance.one(("allow", "deny"))}
        if http and chance.yes(30):
            permissions = [chance.permission() for _ in range(chance.draw.randrange(1, 3))]
            row = {"Name": source, "Permissions": permissions}
        if chance.yes(15) and source != "*":
            rows.append({"Name": source, "Peer": "p1", "Action": "allow"})
        rows.append(row)
    return rows


@pytest.mark.timeout(180 + SETS // 4)
async def test_on_random_sets_our_decision_is_that_of_authorize_and_of_check(
    serving: tuple[ConsulServer, bool], request: pytest.FixtureRequest
) -> None:
    """Every destination is a new one, so that no agent answers from what it has heard before."""
    server, by_default = serving
    default = Action.ALLOW if by_default else Action.DENY
    chance = Chance(random.Random(request.node.name))
    seen: Counter[str] = Counter()
    clear(server)
    server.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)

    def ask(method: str, path: str, body: object = None) -> Any:
        connection.request(method, f"/v1/{path}", body=None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)

    trust_domain = ask("GET", "connect/ca/roots")["TrustDomain"]
    with contextlib.closing(connection):
        for number in range(max(1, SETS // 2)):
            if number % PER_WILDCARD == 0:
                clear(server)
                if chance.yes(75):
                    sources = random_sources(chance, http=False)
                    ask("PUT", "config", {"Kind": "service-intentions", "Name": "*", "Sources": sources})
            target = f"random-{number}"
            if chance.yes(80):
                sources = random_sources(chance, http=True)
                ask("PUT", "config", {"Kind": "service-intentions", "Name": target, "Sources": sources})
            rows = ask("GET", f"connect/intentions/match?by=destination&name={target}")[target] or []
            intentions, problems = parse_intentions(rows)
            assert not problems
            shuffled, _ = parse_intentions(chance.draw.sample(rows, len(rows)))
            assert shuffled == intentions
            for source in CALLERS:
                decision = intentions.for_source(source, default).connection
                uri = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{source}"
                body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "00"}
                theirs = ask("POST", "agent/connect/authorize", body)
                assert decision.allowed is theirs["Authorized"], (source, decision.because, theirs, rows)
                checked = ask("GET", f"connect/intentions/check?source={source}&destination={target}")["Allowed"]
                # Where no row matches, check knows the default of ACLs alone, which are off here: allow.
                expected = decision.allowed if decision.intention is not None else True
                assert checked is expected, (source, decision.because, rows)
                seen[str(decision.intention.precedence if decision.intention else "default")] += 1
                seen[str(decision.allowed)] += 1
    clear(server)
    assert min(seen[kind] for kind in ("9", "8", "6", "5", "default", "True", "False")) > 0, seen


# --- what no permission matches: the default -----------------------------------------------------------------------


class NoHeaders:
    def get_all(self, name: str) -> Sequence[str]:
        del name
        return ()


NO_HEADERS = NoHeaders()
ONLY_OK = {"Name": "web", "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/ok"}}]}
HIDING: dict[str, dict[str, list[dict[str, Any]]]] = {
    "nothing": {},
    "all-to-it-allowed": {TARGET: [{"Name": "*", "Action": "allow"}]},
    "all-to-it-denied": {TARGET: [{"Name": "*", "Action": "deny"}]},
    "all-to-all-allowed": {"*": [{"Name": "*", "Action": "allow"}]},
    "all-to-all-denied": {"*": [{"Name": "*", "Action": "deny"}]},
    "both": {TARGET: [{"Name": "*", "Action": "deny"}], "*": [{"Name": "*", "Action": "allow"}]},
    "all-to-it-by-path": {TARGET: [{"Name": "*", "Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/x"}}]}]},
}


def write_hiding(server: ConsulServer, hiding: str, target: str) -> None:
    clear(server)
    server.write({"Kind": "service-defaults", "Name": target, "Protocol": "http"})
    for destination, sources in {TARGET: [], **HIDING[hiding]}.items():
        own, name = ([ONLY_OK], target) if destination == TARGET else ([], destination)
        server.write({"Kind": "service-intentions", "Name": name, "Sources": own + sources})


async def default_of(server: ConsulServer, token: str, target: str) -> bool | None:
    """Return what a token finds out of the default, once the agent has heard of the intentions."""
    async with Catalog(ConsulSettings(server.http_addr, token=token)) as agent:
        return (await agent.read(DefaultActionWatch(target), "", 1)).data  # type: ignore[no-any-return]


@pytest.mark.parametrize("hiding", HIDING)
async def test_no_intention_of_everybody_passes_for_the_default(
    serving: tuple[ConsulServer, bool], hiding: str
) -> None:
    server, expected = serving
    target = f"{TARGET}-{hiding}"
    write_hiding(server, hiding, target)
    for _ in range(3):
        assert await default_of(server, "", target) is expected
    async with Catalog(ConsulSettings(server.http_addr)) as agent:
        rows = (await agent.read(IntentionsWatch(target), "", 1)).data
    intentions, _ = parse_intentions(rows)
    policy = intentions.for_source("web", Action.ALLOW if expected else Action.DENY)
    assert policy.request("GET", "/ok", NO_HEADERS).allowed
    assert policy.request("GET", "/no", NO_HEADERS).allowed is expected
    assert policy.request("POST", "/no", NO_HEADERS).intention is None, "the default decided"


RULES = {
    "sidecar": """
        service "{0}" {{ policy = "write" }} service "{0}-sidecar-proxy" {{ policy = "write" }}
        service_prefix "" {{ policy = "read" }} node_prefix "" {{ policy = "read" }}""",
    "service-alone": """service "{0}" {{ policy = "write" }} service_prefix "" {{ policy = "read" }}""",
    "reader-of-the-agent": """
        service "{0}" {{ policy = "write" }} service_prefix "" {{ policy = "read" }}
        agent_prefix "" {{ policy = "read" }}""",
}
FINDS_OUT = {
    ("nothing", "service-alone"): True,
    ("all-to-it-allowed", "service-alone"): False,
    ("all-to-it-allowed", "sidecar"): True,
    ("all-to-it-allowed", "reader-of-the-agent"): True,
    ("all-to-all-allowed", "sidecar"): False,
    ("all-to-all-allowed", "reader-of-the-agent"): True,
    ("both", "reader-of-the-agent"): True,
}


@pytest.fixture(scope="module", params=["real", "embedded"])
def denying(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    """ACLs on, whose default (deny) is that of intentions too."""
    with started(request.param, "", acl=True) as running:
        yield running


@pytest.mark.parametrize(("hiding", "rules"), FINDS_OUT, ids=map("/".join, FINDS_OUT))
async def test_who_may_ask_less_knows_less_but_nothing_wrong(denying: ConsulServer, hiding: str, rules: str) -> None:
    name = f"{rules}-of-{hiding}"
    write_hiding(denying, hiding, name)
    denying.api("acl/policy", "PUT", {"Name": name, "Rules": RULES[rules].format(name)})
    token = str(denying.api("acl/token", "PUT", {"Policies": [{"Name": name}]})["SecretID"])
    assert await default_of(denying, token, name) is (False if FINDS_OUT[hiding, rules] else None)


async def test_envoy_and_our_sidecar_answer_alike_what_no_permission_matches(tmp_path: Path) -> None:
    """Web may GET /ok, everybody else may do everything, the agent denies by default: web's other paths are denied."""
    with consul_server(settings={"default_intention_policy": "deny"}) as server:
        server.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
        write_hiding(server, "all-to-it-allowed", TARGET)
        found = {}
        async with App().running() as app:
            for kind in ("envoy", "lictor"):
                with peers(server, tmp_path) as proxies:
                    (port,) = free_ports(1)
                    proxies.register(TARGET, app.port)
                    proxies.register("web", 1, upstreams={TARGET: port})
                    start = proxies.envoy_sidecar if kind == "envoy" else proxies.lictor_sidecar
                    for instance in (f"{TARGET}-1", "web-1"):
                        await asyncio.to_thread(start, instance)

                    async def status(path: str, port: int = port) -> int:
                        async with await Wire.open(port) as wire:
                            request = f"GET {path} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n"
                            return (await wire.ask(request.encode())).status

                    async def served() -> bool:
                        return await status("/ok") == 200

                    await eventually(served, 20)
                    found[kind] = [await status(path) for path in ("/ok", "/no", "/ok/x")]
        assert found == {"envoy": [200, 403, 403], "lictor": [200, 403, 403]}


def test_the_table_is_not_trivial() -> None:
    kinds = {
        str(row.get("Action") or "http")
        for seed, rows in itertools.chain.from_iterable(
            ((seed, rows) for rows in sources(seed).values()) for seed in range(12)
        )
        for row in rows
    }
    assert kinds == {"allow", "deny", "http"}
