"""Blocking queries: who is woken by what, and what an index means, asked of the real Consul and of the embedded one.

Every case is one conversation about names of its own. All of them are held at once, so that a whole table takes as long
as its slowest row: a watch begins, what must not wake it is written, it still waits; what must wake it is written, it
answers with a higher index.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from harness.servers import ConsulServer, eventually

QUIET_SECONDS = 1.0  # a watch that has not answered within it after a write was not woken
WAKE_SECONDS = 15.0
SETTLED_SECONDS = 0.6  # in which an agent has told its catalog, as a rule


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query answered."""

    status: int
    index: int
    text: str
    headers: Any

    @property
    def data(self) -> Any:
        """Return its JSON."""
        return json.loads(self.text)


class Talk:
    """One conversation: requests to one server."""

    def __init__(self, session: aiohttp.ClientSession, address: str, name: str) -> None:
        self._session = session
        self._address = address
        self.name = name

    def named(self, text: str) -> str:
        """Return a text with this conversation's name in place of `@`: two never meet."""
        return text.replace("@", self.name)

    async def get(self, path: str, **params: str) -> Answer:
        """Read."""
        async with self._session.get(f"{self._address}/v1/{self.named(path)}", params=params) as answer:
            index = int(answer.headers.get("X-Consul-Index") or 0)
            return Answer(answer.status, index, await answer.text(), answer.headers)

    async def put(self, path: str, body: object = None, method: str = "PUT") -> str:
        """Write, and insist that it was taken."""
        data = None if body is None else self.named(json.dumps(body))
        async with self._session.request(method, f"{self._address}/v1/{self.named(path)}", data=data) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
            return text

    async def settled(self) -> None:
        """Wait until the agent has told its catalog, and a little longer: of virtual addresses it hears later."""
        await asyncio.sleep(SETTLED_SECONDS)
        if not await self._told():
            await eventually(self._told, 60, every=SETTLED_SECONDS)
            await asyncio.sleep(SETTLED_SECONDS)

    async def _told(self) -> bool:
        """Return whether the catalog knows what the agent does."""
        services, checks = [(await self.get(f"agent/{what}")).data for what in ("services", "checks")]
        rows, known = (await self.get("catalog/node-services/n1")).data, (await self.get("health/node/n1")).data
        there = {row["ID"]: _shown(row) for row in rows["Services"]}
        held = {row["CheckID"]: row["Status"] for row in known}
        return all(there.get(name) == _shown(row) for name, row in services.items()) and all(
            held.get(name) == row["Status"] for name, row in checks.items()
        )


def _shown(service: Any) -> Any:
    """Return what an agent tells of a service."""
    return service["Port"], service["Tags"] or [], service.get("Meta") or {}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as made:
        yield made


# --- what is written -----------------------------------------------------------------------------------------------

Write = Callable[[Talk], Awaitable[object]]


def service(name: str, **fields: object) -> Write:
    return lambda talk: talk.put("agent/service/register", {"Name": name, "Port": 1, **fields})


def proxy(of: str, **fields: object) -> Write:
    given = {"Kind": "connect-proxy", "Proxy": {"DestinationServiceName": of}, **fields}
    return service(f"{of}-proxy", **given)


def checked(name: str, status: str = "passing") -> Write:
    check = {"CheckID": f"{name}-check", "Name": "c", "TTL": "10m", "Status": status}
    return service(name, Check=check)


def beat(name: str, word: str, note: str = "") -> Write:
    return lambda talk: talk.put(f"agent/check/{word}/{name}-check?note={note}")


def leave(service_id: str) -> Write:
    return lambda talk: talk.put(f"agent/service/deregister/{service_id}")


def maintenance(service_id: str, enable: str) -> Write:
    return lambda talk: talk.put(f"agent/service/maintenance/{service_id}?enable={enable}")


def entry(kind: str, name: str, **fields: object) -> Write:
    return lambda talk: talk.put("config", {"Kind": kind, "Name": name, **fields})


def defaults(name: str, protocol: str = "http") -> Write:
    return entry("service-defaults", name, Protocol=protocol)


def allows(name: str, *sources: str) -> Write:
    return entry("service-intentions", name, Sources=[{"Name": source, "Action": "allow"} for source in sources])


def exact(source: str, destination: str) -> Write:
    path = f"connect/intentions/exact?source={source}&destination={destination}"
    return lambda talk: talk.put(path, {"Action": "allow"})


def drop(kind: str, name: str) -> Write:
    return lambda talk: talk.put(f"config/{kind}/{name}", method="DELETE")


def key(name: str, value: object = 1) -> Write:
    return lambda talk: talk.put(f"kv/{name}", value)


def drop_key(name: str) -> Write:
    return lambda talk: talk.put(f"kv/{name}", method="DELETE")


async def lock(talk: Talk) -> None:
    made = json.loads(await talk.put("session/create", {"Name": "@", "LockDelay": "0s"}))
    assert await talk.put(f"kv/@?acquire={made['ID']}", 2) == "true"


def external(node: str, name: str, **fields: object) -> Write:
    given = {"Node": node, "Address": "10.0.0.1", "Service": {"ID": name, "Service": name, "Port": 1, **fields}}
    return lambda talk: talk.put("catalog/register", given)


def node(name: str, **fields: object) -> Write:
    return lambda talk: talk.put("catalog/register", {"Node": name, "Address": "10.0.0.1", **fields})


def of_node(name: str, status: str) -> Write:
    return node(name, Check={"CheckID": "c", "Name": "c", "Status": status})


def ingress(name: str, *services: str, port: int = 80) -> Write:
    listed = [{"Name": one} for one in services]
    return entry("ingress-gateway", name, Listeners=[{"Port": port, "Protocol": "http", "Services": listed}])


def terminating(name: str, *services: str) -> Write:
    return entry("terminating-gateway", name, Services=[{"Name": one} for one in services])


def gateway(name: str, kind: str = "terminating-gateway") -> Write:
    return service(name, Kind=kind, Port=8443)


# --- what wakes what -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watch:
    """`before` is written first; `leaves` must not wake the watch, `wakes` must. `@` is the case's own name."""

    path: str
    wakes: Write
    leaves: tuple[Write, ...] = ()
    before: tuple[Write, ...] = ()


WATCHES: dict[str, Watch] = {
    "health/service: an instance": Watch(
        "health/service/@", service("@", Port=2), (service("@-other"), proxy("@"), defaults("@")), (service("@"),)
    ),
    "health/service: a second instance": Watch(
        "health/service/@", service("@", ID="@-2"), (service("@-other"),), (service("@"),)
    ),
    "health/service: its check": Watch(
        "health/service/@", beat("@", "fail"), (beat("@-other", "fail"),), (checked("@"), checked("@-other"))
    ),
    "health/service: maintenance": Watch(
        "health/service/@",
        maintenance("@", "true"),
        (maintenance("@-other", "true"),),
        (service("@"), service("@-other")),
    ),
    "health/service: it leaves": Watch(
        "health/service/@", leave("@"), (leave("@-other"),), (service("@"), service("@-other"))
    ),
    "health/service: with a filter, outside of it": Watch(
        "health/service/@?filter=Service.Port==99", service("@", Port=2), (service("@-other"),), (service("@"),)
    ),
    "health/service?passing: a check": Watch("health/service/@?passing", beat("@", "fail"), (), (checked("@"),)),
    "health/service: of another node": Watch(
        "health/service/@",
        node("@-node", Address="10.0.0.2"),
        (node("@-node2"),),
        (external("@-node", "@"),),
    ),
    "health/service: absent": Watch("health/service/@", service("@"), (service("@-other"), defaults("@"))),
    "health/connect: a proxy": Watch(
        "health/connect/@", proxy("@", Port=2), (service("@", Port=2), proxy("@-other")), (service("@"), proxy("@"))
    ),
    "health/connect: its check": Watch(
        "health/connect/@",
        beat("@-proxy", "fail"),
        (beat("@", "fail"), beat("@", "pass")),
        (checked("@"), proxy("@", Check={"CheckID": "@-proxy-check", "Name": "c", "TTL": "10m", "Status": "passing"})),
    ),
    "health/connect: an alias follows the app": Watch(
        "health/connect/@", beat("@", "fail"), (), (checked("@"), proxy("@", Check={"Name": "a", "AliasService": "@"}))
    ),
    "health/connect: a terminating gateway links it": Watch(
        "health/connect/@",
        terminating("@-out", "@"),
        (terminating("@-out", "@-other"),),
        (gateway("@-out"), external("@-node", "@")),
    ),
    "health/connect: absent": Watch("health/connect/@", proxy("@"), (service("@"), proxy("@-other"))),
    "health/ingress: a gateway of it": Watch(
        "health/ingress/@",
        service("@-edge", Kind="ingress-gateway", Port=2),
        (service("@-other"), service("@-edge2", Kind="ingress-gateway", Port=3)),
        (defaults("@"), ingress("@-edge", "@"), gateway("@-edge", "ingress-gateway")),
    ),
    "health/checks": Watch(
        "health/checks/@", beat("@", "warn"), (beat("@-other", "warn"),), (checked("@"), checked("@-other"))
    ),
    "health/node": Watch(
        "health/node/@-node",
        of_node("@-node", "critical"),
        (of_node("@-node2", "critical"),),
        (of_node("@-node", "passing"), of_node("@-node2", "passing")),
    ),
    "catalog/service": Watch("catalog/service/@", service("@", Port=2), (service("@-other"),), (service("@"),)),
    "catalog/node": Watch(
        "catalog/node/@-node", external("@-node", "@"), (external("@-node2", "@"),), (node("@-node"),)
    ),
    "catalog/gateway-services: its entry": Watch(
        "catalog/gateway-services/@-edge",
        ingress("@-edge", "@", "@-b"),
        (),
        (defaults("@"), defaults("@-b"), ingress("@-edge", "@")),
    ),
    "config: an entry": Watch(
        "config/service-defaults/@",
        defaults("@", "grpc"),
        (defaults("@-other", "grpc"), service("@")),
        (defaults("@"), defaults("@-other")),
    ),
    "config: an entry that goes": Watch(
        "config/service-defaults/@", drop("service-defaults", "@"), (), (defaults("@"),)
    ),
    "config: an absent entry": Watch(
        "config/service-defaults/@", defaults("@"), (defaults("@-other"), allows("@", "x"))
    ),
    "config: an entry by another spelling": Watch(
        "config/service-defaults/@", defaults("@".upper(), "grpc"), (), (defaults("@"),)
    ),
    "chain: its entry": Watch(
        "discovery-chain/@",
        entry("service-resolver", "@", ConnectTimeout="3s"),
        (defaults("@-other"), allows("@", "x"), service("@"), proxy("@-other")),
        (defaults("@"),),
    ),
    "chain: the entry of a service behind it": Watch(
        "discovery-chain/@",
        entry("service-resolver", "@-b", ConnectTimeout="3s"),
        (entry("service-resolver", "@-c", ConnectTimeout="3s"),),
        (entry("service-resolver", "@", Redirect={"Service": "@-b"}),),
    ),
    "chain: a change without effect on it": Watch(
        "discovery-chain/@",
        entry("service-resolver", "@", ConnectTimeout="3s"),
        (entry("service-defaults", "@", Protocol="http", MaxInboundConnections=3),),
        (defaults("@"),),
    ),
    "chain: of no entry": Watch("discovery-chain/@", defaults("@"), (defaults("@-other"),)),
    "intentions/match: its own": Watch(
        "connect/intentions/match?by=destination&name=@",
        allows("@", "x", "y"),
        (allows("@-other", "x"), defaults("@-other")),
        (allows("@", "x"),),
    ),
    "intentions/match: an exact write, even an equal one": Watch(
        "connect/intentions/match?by=destination&name=@",
        exact("x", "@"),
        (exact("x", "@-other"),),
        (exact("x", "@"),),
    ),
    "intentions/match: none yet": Watch(
        "connect/intentions/match?by=destination&name=@", allows("@", "x"), (allows("@-other", "x"),)
    ),
    "intentions/match: the last one goes": Watch(
        "connect/intentions/match?by=destination&name=@", drop("service-intentions", "@"), (), (allows("@", "x"),)
    ),
    "kv: a key": Watch("kv/@", key("@", 2), (key("@-other"), key("@/below")), (key("@"),)),
    "kv: an absent key": Watch("kv/@", key("@"), (key("@-other"),)),
    "kv: a key that goes": Watch("kv/@", drop_key("@"), (drop_key("@-other"),), (key("@"), key("@-other"))),
    "kv: keys under a prefix": Watch("kv/@/?keys", key("@/b"), (key("@-other"),), (key("@/a"),)),
    "kv: rows under a prefix": Watch("kv/@/?recurse", key("@/a", 2), (key("@-other"),), (key("@/a"),)),
    "kv: a lock": Watch(
        "kv/@",
        lock,
        (key("@-other"),),
        (key("@"),),
    ),
}


def _apart(path: str) -> tuple[str, dict[str, str]]:
    path, _, query = path.partition("?")
    return path, dict(pair.partition("=")[::2] for pair in query.split("&") if pair)


async def _watched(talk: Talk, watch: Watch, together: asyncio.Barrier) -> None:
    """Hold one conversation. All take their steps together: no write of another falls between a read and its wait."""
    for write in watch.before:
        await write(talk)
    await together.wait()
    await talk.settled()
    path, query = _apart(talk.named(watch.path))
    seen = (await talk.get(path, **query)).index
    assert seen > 0
    waiting = asyncio.create_task(talk.get(path, **query, index=str(seen), wait="30s"))
    try:
        done, _ = await asyncio.wait([waiting], timeout=QUIET_SECONDS)
        await together.wait()
        assert not done, f"it did not wait: {waiting.result()}"
        for write in watch.leaves:
            await write(talk)
        await together.wait()
        done, _ = await asyncio.wait([waiting], timeout=QUIET_SECONDS)
        await together.wait()
        assert not done, f"woken by what is none of its business: {waiting.result()}"
        await watch.wakes(talk)
        async with asyncio.timeout(WAKE_SECONDS):
            answer = await waiting
        assert answer.index > seen
    finally:
        waiting.cancel()


async def _all(cases: Iterable[tuple[str, Awaitable[None]]]) -> None:
    """Hold conversations at once; fail with every one that failed."""
    named = list(cases)
    results = await asyncio.gather(*(talk for _, talk in named), return_exceptions=True)
    wrong = [f"{name}: {found!r}" for (name, _), found in zip(named, results, strict=True) if found is not None]
    assert not wrong, "\n".join(wrong)


async def test_a_watch_is_woken_by_what_concerns_it_and_by_nothing_else(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    together = asyncio.Barrier(len(WATCHES))
    talks = (
        (name, _watched(Talk(session, consul.http_addr, f"wk{number}"), watch, together))
        for number, (name, watch) in enumerate(WATCHES.items())
    )
    await _all(talks)


# --- what concerns everybody, one after the other ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wide:
    """A write that several watches are about, and some that it must not wake."""

    wakes: tuple[str, ...]
    leaves: tuple[str, ...]
    write: Write
    after: tuple[Write, ...] = ()


WIDE: dict[str, Wide] = {
    "an entry of a kind": Wide(
        ("config/service-resolver",),
        ("connect/intentions", "config/service-router", "config/service-resolver/@-web"),
        entry("service-resolver", "@", ConnectTimeout="3s"),
    ),
    "a new service": Wide(
        ("catalog/services",),
        ("health/service/@-web", "discovery-chain/@-web", "config/service-defaults"),
        service("@-new"),
    ),
    "a tag": Wide(
        ("catalog/services", "health/service/@-web"), ("config/service-defaults",), service("@-web", Tags=["t"])
    ),
    "a check": Wide(("health/state/any",), ("catalog/services", "catalog/nodes"), beat("@-api", "fail")),
    "a new node": Wide(("catalog/nodes",), ("catalog/services", "health/service/@-web"), node("@-new")),
    "service-defaults of another service": Wide(
        ("config/service-defaults",),
        (
            "connect/intentions",
            "connect/intentions/match?by=destination&name=@-web",
            "health/service/@-web",
            "discovery-chain/@-web",
            "config/mesh/mesh",
        ),
        defaults("@-other"),
    ),
    "proxy-defaults": Wide(
        ("discovery-chain/@-web", "config/proxy-defaults/global"),
        ("health/service/@-web", "connect/intentions/match?by=destination&name=@-web"),
        entry("proxy-defaults", "global", Config={"protocol": "http"}),
        (drop("proxy-defaults", "global"),),
    ),
    "mesh": Wide(
        ("config/mesh/mesh",),
        ("discovery-chain/@-web", "config/service-defaults/@-web"),
        lambda talk: talk.put("config", {"Kind": "mesh", "TLS": {"Incoming": {"TLSMinVersion": "TLSv1_2"}}}),
        (drop("mesh", "mesh"),),
    ),
    "an intention of everybody": Wide(
        ("connect/intentions/match?by=destination&name=@-web", "connect/intentions/match?by=destination&name=@-api"),
        ("discovery-chain/@-web", "health/service/@-web"),
        allows("*", "@"),
        (drop("service-intentions", "*"),),
    ),
    "an intention of another service": Wide(
        ("connect/intentions", "config/service-intentions"),
        ("connect/intentions/match?by=destination&name=@-web", "discovery-chain/@-web"),
        allows("@-other", "x"),
    ),
    "the node in maintenance": Wide(
        ("health/service/@-web", "health/service/@-api", "health/node/n1"),
        ("catalog/services", "discovery-chain/@-web"),
        lambda talk: talk.put("agent/maintenance?enable=true"),
        (lambda talk: talk.put("agent/maintenance?enable=false"),),
    ),
    "the CA's configuration": Wide(
        ("connect/ca/roots", "agent/connect/ca/roots"),
        ("discovery-chain/@-web", "connect/intentions"),
        lambda talk: talk.put("connect/ca/configuration", {"Provider": "consul", "Config": {"LeafCertTTL": "71h"}}),
        (lambda talk: talk.put("connect/ca/configuration", {"Provider": "consul", "Config": {"LeafCertTTL": "72h"}}),),
    ),
    "a key": Wide(("kv/?keys", "kv/?recurse"), ("connect/intentions", "catalog/services"), key("@-key")),
    "a session": Wide(("session/list",), ("kv/?keys",), lambda talk: talk.put("session/create", {"Name": "@"})),
}


@pytest.mark.parametrize("name", WIDE)
async def test_one_write_wakes_these_and_leaves_those(
    session: aiohttp.ClientSession, consul: ConsulServer, name: str
) -> None:
    wide = WIDE[name]
    talk = Talk(session, consul.http_addr, f"wide{list(WIDE).index(name)}")
    for write in (service("@-web"), checked("@-api"), key("@-first"), allows("@-api", "x")):
        await write(talk)
    await talk.settled()
    tasks = {path: asyncio.create_task(_next(talk, path)) for path in (*wide.wakes, *wide.leaves)}
    try:
        await asyncio.sleep(0.2)
        assert not [path for path, task in tasks.items() if task.done()]
        await wide.write(talk)
        await asyncio.wait([tasks[path] for path in wide.wakes], timeout=WAKE_SECONDS)
        assert not [path for path in wide.wakes if not tasks[path].done()], "not woken"
        await asyncio.wait([tasks[path] for path in wide.leaves], timeout=QUIET_SECONDS)
        assert not [path for path in wide.leaves if tasks[path].done()], "woken"
        for path in wide.wakes:
            seen, answer = tasks[path].result()
            assert answer.index > seen, path
    finally:
        for task in tasks.values():
            task.cancel()
        for write in wide.after:
            await write(talk)


async def _next(talk: Talk, path: str) -> tuple[int, Answer]:
    bare, query = _apart(talk.named(path))
    seen = (await talk.get(bare, **query)).index
    return seen, await talk.get(bare, **query, index=str(seen), wait="30s")


# --- equal writes --------------------------------------------------------------------------------------------------

EQUAL: dict[str, tuple[str, tuple[Write, ...]]] = {
    "registration": ("health/service/@", (service("@"),)),
    "registration of a proxy": ("health/connect/@", (proxy("@"),)),
    "registration with a check": ("health/service/@", (checked("@"),)),
    "of another node": ("health/service/@", (external("@-n", "@"),)),
    "entry": ("config/service-defaults/@", (defaults("@"),)),
    "intentions": ("connect/intentions/match?by=destination&name=@", (allows("@", "x"),)),
    "chain": ("discovery-chain/@", (entry("service-resolver", "@", ConnectTimeout="2s"),)),
    "key": ("kv/@", (key("@"),)),
    "a passing check passes": (
        "health/service/@",
        (checked("@"), beat("@", "pass", "same"), beat("@", "pass", "same")),
    ),
}


async def test_an_equal_write_wakes_nobody_and_leaves_the_index(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    together = asyncio.Barrier(len(EQUAL))

    async def twice(talk: Talk, path: str, writes: tuple[Write, ...]) -> None:
        for write in writes:
            await write(talk)
        await together.wait()
        await talk.settled()
        bare, query = _apart(talk.named(path))
        seen = (await talk.get(bare, **query)).index
        waiting = asyncio.create_task(talk.get(bare, **query, index=str(seen), wait="30s"))
        try:
            await together.wait()
            await writes[-1](talk)
            done, _ = await asyncio.wait([waiting], timeout=QUIET_SECONDS)
            assert not done, "woken"
            assert (await talk.get(bare, **query)).index == seen
        finally:
            waiting.cancel()

    await _all(
        (name, twice(Talk(session, consul.http_addr, f"eq{number}"), path, writes))
        for number, (name, (path, writes)) in enumerate(EQUAL.items())
    )


# --- index and wait ------------------------------------------------------------------------------------------------

INDEXED = (
    "health/service/@",
    "health/service/@-absent",
    "health/connect/@",
    "catalog/services",
    "catalog/nodes",
    "catalog/service/@",
    "catalog/node/n1",
    "catalog/gateway-services/@",
    "config/service-defaults",
    "config/service-defaults/@",
    "config/service-defaults/@-absent",
    "discovery-chain/@",
    "connect/intentions",
    "connect/intentions/match?by=destination&name=@",
    "connect/ca/roots",
    "agent/connect/ca/roots",
    "kv/@",
    "kv/@-absent",
    "kv/@?keys",
    "session/list",
)


async def test_no_answer_has_an_index_below_one_and_zero_answers_at_once(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    talk = Talk(session, consul.http_addr, "ix")
    for write in (service("@"), defaults("@"), allows("@", "x"), key("@")):
        await write(talk)
    await talk.settled()
    for path in INDEXED:
        bare, query = _apart(talk.named(path))
        begun = time.monotonic()
        assert (await talk.get(bare, **query)).index >= 1, path
        assert (await talk.get(bare, **query, index="0", wait="20s")).index >= 1, path
        assert time.monotonic() - begun < 5, path


async def test_a_wait_that_ends_tells_the_same_data_after_its_time_and_a_sixteenth(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    async def waits(talk: Talk, path: str, beyond: int) -> None:
        bare, query = _apart(talk.named(path))
        first = await talk.get(bare, **query)
        begun = time.monotonic()
        answer = await talk.get(bare, **query, index=str(first.index + beyond), wait="1s")
        took = time.monotonic() - begun
        assert 0.99 <= took < 10, f"{took:.2f} s"  # twenty are answered at once, by a machine that does much else
        assert answer.status == first.status
        assert (answer.text, beyond) == (first.text, beyond)
        assert beyond == 0 or answer.index < first.index + beyond, "an index of the future is not kept"

    talk = Talk(session, consul.http_addr, "ix")
    for write in (service("@"), defaults("@"), allows("@", "x"), key("@")):
        await write(talk)
    await talk.settled()
    await _all((f"{path} + {beyond}", waits(talk, path, beyond)) for path in INDEXED for beyond in (0, 1_000_000))


async def test_what_never_blocks_sends_no_index(session: aiohttp.ClientSession, consul: ConsulServer) -> None:
    talk = Talk(session, consul.http_addr, "nb")
    for write in (service("@"), allows("@", "x")):
        await write(talk)
    begun = time.monotonic()
    for path in (
        "connect/intentions/check?source=x&destination=@",
        "agent/services",
        "agent/checks",
        "agent/self",
        "agent/members",
        "status/leader",
        "catalog/datacenters",
        "connect/ca/configuration",
    ):
        bare, query = _apart(talk.named(path))
        answer = await talk.get(bare, **query, index="999999", wait="20s")
        assert (answer.status, answer.index) == (200, 0), path
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"index": "x"}, "Invalid index"),
        ({"index": "-1"}, "Invalid index"),
        ({"index": "1.5"}, "Invalid index"),
        ({"index": "18446744073709551616"}, "Invalid index"),
        ({"index": "1", "wait": "5"}, "Invalid wait time"),
        ({"index": "1", "wait": "x"}, "Invalid wait time"),
        ({"wait": "1h1"}, "Invalid wait time"),
    ],
    ids=str,
)
async def test_a_wrong_index_and_a_wrong_wait_are_refused_everywhere(
    session: aiohttp.ClientSession, consul: ConsulServer, params: dict[str, str], said: str
) -> None:
    talk = Talk(session, consul.http_addr, "wr")
    for path in (*INDEXED, "agent/connect/ca/leaf/@"):
        bare, query = _apart(talk.named(path))
        answer = await talk.get(bare, **query, **params)
        assert (answer.status, answer.text) == (400, said), path


async def test_a_wait_of_nothing_or_less_is_the_wait_of_five_minutes(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    talk = Talk(session, consul.http_addr, "zero")
    await key("@")(talk)
    seen = (await talk.get("kv/@")).index
    tasks = [asyncio.create_task(talk.get("kv/@", index=str(seen), wait=wait)) for wait in ("0s", "-5s", "", "999h")]
    done, _ = await asyncio.wait(tasks, timeout=QUIET_SECONDS)
    assert not done
    await key("@", 2)(talk)
    async with asyncio.timeout(WAKE_SECONDS):
        assert {answer.index > seen for answer in await asyncio.gather(*tasks)} == {True}


async def test_an_index_moves_only_for_what_it_is_of(session: aiohttp.ClientSession, consul: ConsulServer) -> None:
    talk = Talk(session, consul.http_addr, "mv")
    for write in (service("@"), defaults("@"), key("@"), allows("@", "x")):
        await write(talk)
    await talk.settled()
    paths = ("health/service/@", "catalog/service/@", "kv/@")
    before = {path: (await talk.get(path)).index for path in paths}
    for write in (service("@-b"), key("@-b"), allows("@-b", "x"), entry("service-resolver", "@-b")):
        await write(talk)
    await talk.settled()
    assert {path: (await talk.get(path)).index for path in paths} == before


# --- the agent's own service: by the hash of its content -----------------------------------------------------------


async def _hash_of(talk: Talk, service_id: str) -> str:
    """Return the hash once it is at rest: a real agent learns the virtual address a moment after the registration."""
    answer = await talk.get(f"agent/service/{service_id}")
    assert answer.headers["X-Consul-Contenthash"] == answer.data["ContentHash"]
    return str(answer.data["ContentHash"])


HASHED: dict[str, tuple[Write, tuple[Write, ...]]] = {
    "its registration": (proxy("@", Port=2), (service("@-other"), checked("@"), proxy("@", Port=1))),
    "its metadata": (proxy("@", Meta={"a": "b"}), (key("@"),)),
    "service-defaults of what it stands for": (
        entry("service-defaults", "@", MaxInboundConnections=7),
        (defaults("@-other"),),
    ),
}


async def test_the_agents_service_waits_by_hash(session: aiohttp.ClientSession, consul: ConsulServer) -> None:
    async def waits(talk: Talk, wakes: Write, leaves: tuple[Write, ...]) -> None:
        for write in (service("@"), proxy("@")):
            await write(talk)
        await talk.settled()
        seen = await _hash_of(talk, "@-proxy")
        waiting = asyncio.create_task(talk.get("agent/service/@-proxy", hash=seen, wait="30s"))
        try:
            for write in leaves:
                await write(talk)
            done, _ = await asyncio.wait([waiting], timeout=QUIET_SECONDS)
            assert not done, "woken"
            await wakes(talk)
            async with asyncio.timeout(WAKE_SECONDS):
                answer = await waiting
            assert answer.data["ContentHash"] != seen
        finally:
            waiting.cancel()

    await _all(
        (name, waits(Talk(session, consul.http_addr, f"hs{number}"), wakes, leaves))
        for number, (name, (wakes, leaves)) in enumerate(HASHED.items())
    )


async def test_another_hash_and_none_answer_at_once_and_an_equal_one_after_the_wait(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    talk = Talk(session, consul.http_addr, "hw")
    await service("@")(talk)
    await talk.settled()
    seen = await _hash_of(talk, "@")
    begun = time.monotonic()
    for params in ({"hash": "other"}, {"hash": ""}, {}, {"index": "999999"}):
        answer = await talk.get("agent/service/@", wait="20s", **params)
        assert answer.data["ContentHash"] == seen
    assert time.monotonic() - begun < 5
    begun = time.monotonic()
    answer = await talk.get("agent/service/@", hash=seen, wait="1s")
    assert 0.99 <= time.monotonic() - begun <= 4
    assert answer.data["ContentHash"] == seen


async def test_a_watch_by_hash_learns_that_its_service_is_gone(
    session: aiohttp.ClientSession, consul: ConsulServer
) -> None:
    talk = Talk(session, consul.http_addr, "hg")
    await service("@")(talk)
    await talk.settled()
    seen = await _hash_of(talk, "@")
    waiting = asyncio.create_task(talk.get("agent/service/@", hash=seen, wait="30s"))
    await asyncio.sleep(0.2)
    await leave("@")(talk)
    async with asyncio.timeout(WAKE_SECONDS):
        answer = await waiting
    assert (answer.status, answer.text) == (404, "unknown service ID: hg")
