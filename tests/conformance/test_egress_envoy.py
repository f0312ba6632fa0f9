"""The terminating gateway on a real Consul and on ours, and side by side with Envoy's over a table of random requests.

Beside Envoy, both gateways are linked to the same services, and a caller with a leaf of the mesh asks both by their
SNI: same status, same path and host seen outside. What differs on purpose is in `DIFFERENCES`, which names its row in
docs/differences.md. `N=5000` asks for more requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.outcomes import UNSEEN, Apps, Outcome, different
from harness.peers import Peers, peers
from harness.routing import Chance, Json, Request
from harness.servers import REPOSITORY, ConsulServer, consul_server, eventually, http_json
from harness.wire import App, Wire, echo_server, say
from lictor.up.ports import free_ports
from policies.paths import PathNormalization, normalize

REQUESTS = int(os.environ.get("N", "0")) or 150
GENERATION = 50  # requests to one set of intentions
GATEWAYS = ("e-out", "l-out")
SERVICES = ("ext", "named")  # of an address, of a host name
HOSTS = ("ext", "ext.example.com", "EXT.example.com:8080", "localhost", "127.0.0.1", "")
names = (f"t{number}" for number in itertools.count(1))


# --- what a mesh and its outside are told ----------------------------------------------------------------------------


def external(
    server: ConsulServer, service: str, port: int, address: str = "127.0.0.1", status: str = "passing"
) -> None:
    """Register a service outside by the catalog API, on a node without an agent."""
    check = {"CheckID": f"service:{service}", "Name": "probe", "Status": status, "ServiceID": service}
    body = {
        "Node": f"outside-{service}",
        "Address": address,
        "NodeMeta": {"external-node": "true", "external-probe": "true"},
        "Service": {"ID": service, "Service": service, "Port": port},
        "Checks": [check],
    }
    assert server.api("catalog/register", "PUT", body) is True


def allow(server: ConsulServer, destination: str, *sources: str) -> None:
    rows = [{"Name": name, "Action": "allow"} for name in sources] + [{"Name": "*", "Action": "deny"}]
    server.write({"Kind": "service-intentions", "Name": destination, "Sources": rows})


def sni(server: ConsulServer, service: str) -> str:
    return f"{service}.default.dc1.internal.{server.api('connect/ca/roots')['TrustDomain']}"


def context_of(server: ConsulServer, folder: Path, service: str) -> ssl.SSLContext:
    """Return the context of a caller with a leaf that the agent gives."""
    leaf = server.api(f"agent/connect/ca/leaf/{service}")
    file = folder / f"{service}.pem"
    file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    return context


# --- on both servers -------------------------------------------------------------------------------------------------


async def test_a_mesh_reaches_outside_as_its_intentions_say(consul: ConsulServer, tmp_path: Path) -> None:
    """An ordinary upstream of an ordinary sidecar; services come, change and go without a restart of anything."""
    ext, late, gateway, web = next(names), next(names), f"out-{next(names)}", f"web-{next(names)}"
    bind, bind_late, port = free_ports(3)
    consul.write(
        {"Kind": "service-defaults", "Name": ext, "Protocol": "http"},
        {"Kind": "service-defaults", "Name": late, "Protocol": "http"},
        {"Kind": "terminating-gateway", "Name": gateway, "Services": [{"Name": ext}]},
    )
    allow(consul, ext, web)
    allow(consul, late, web)
    async with App(say(b"outside")).running() as app, App(say(b"late")).running() as late_app:
        with peers(consul, tmp_path) as proxies:
            external(consul, ext, app.port)
            proxies.register(web, 1, upstreams={ext: bind, late: bind_late})
            gate = await asyncio.to_thread(proxies.lictor_gateway, gateway, port, "terminating")
            await asyncio.to_thread(proxies.lictor_sidecar, f"{web}-1")
            await eventually(lambda: answers(bind, 200, b"outside"), 20)

            row = consul.api(f"health/connect/{ext}")[0]["Service"]
            assert (row["Kind"], row["Service"], row["Port"]) == ("terminating-gateway", gateway, port)
            shown = http_json(f"http://127.0.0.1:{gate.admin_port}/certs")["linked"]
            assert [(name, leaf["spiffe_id"].rpartition("/")[2]) for name, leaf in shown.items()] == [(ext, ext)]
            assert "PRIVATE" not in str(http_json(f"http://127.0.0.1:{gate.admin_port}/config_dump")) + str(shown)

            # Another one, registered with the agent under an address that is not its own.
            definition = {"Name": late, "Port": late_app.port, "Address": "127.0.0.1"}
            consul.api("agent/service/register", "PUT", definition)
            links = [{"Name": ext}, {"Name": late}]
            consul.write({"Kind": "terminating-gateway", "Name": gateway, "Services": links})
            async with await Wire.open(bind) as kept:  # a change elsewhere does not end it
                assert (await kept.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
                await eventually(lambda: answers(bind_late, 200, b"late"), 20)
                assert (await kept.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200

            allow(consul, ext)
            await eventually(lambda: answers(bind, 403, b"RBAC: access denied"), 10)
            allow(consul, ext, web)
            await eventually(lambda: answers(bind, 200, b"outside"), 10)
            external(consul, ext, app.port, status="critical")
            await eventually(lambda: answers(bind, 503), 10)
            external(consul, ext, app.port)
            await eventually(lambda: answers(bind, 200, b"outside"), 10)
            consul.write({"Kind": "terminating-gateway", "Name": gateway, "Services": links[1:]})
            await eventually(lambda: answers(bind, 503), 10)
            assert await answers(bind_late, 200, b"late")
            clean_up(consul, ext, late, gateway)


async def answers(port: int, status: int, body: bytes | None = None) -> bool:
    """Return whether a request is answered like this just now."""
    with contextlib.suppress(ConnectionError):
        async with await Wire.open(port) as wire:
            answer = await wire.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return answer.status == status and body in {None, answer.body}
    return False


async def test_an_explicit_row_survives_what_the_catalog_makes_of_it(consul: ConsulServer, tmp_path: Path) -> None:
    """Consul overwrites it by the wildcard's row at the next registration: TLS would become plaintext."""
    ext, gateway = next(names), f"out-{next(names)}"
    (port,) = free_ports(1)
    explicit = {"Name": ext, "CAFile": "/nowhere/ca.pem", "SNI": "ext.example.com"}
    external(consul, ext, 1)
    consul.write({"Kind": "terminating-gateway", "Name": gateway, "Services": [explicit, {"Name": "*"}]})
    external(consul, ext, 2)
    with peers(consul, tmp_path) as proxies:
        gate = await asyncio.to_thread(proxies.lictor_gateway, gateway, port, "terminating")

        def chain() -> Any:
            egress = http_json(f"http://127.0.0.1:{gate.admin_port}/config_dump")["table"]["egress"]
            found = [one for one in egress["chains"].values() if one["service"] == ext]
            return found[0] if found and found[0]["cluster"]["endpoints"][0]["port"] == 2 else None

        found = await eventually(chain, 20, every=0.1)
        assert found["cluster"]["origination"]["ca_file"] == "/nowhere/ca.pem"
        assert found["cluster"]["origination"]["sni"] == "ext.example.com"
        clean_up(consul, ext, gateway)


def clean_up(server: ConsulServer, *told: str) -> None:
    """Forget the entries and the nodes outside: a shared server's wildcards must not meet them again."""
    for name in told:
        server.api(f"config/terminating-gateway/{name}", "DELETE")
    for name in told:
        server.api(f"config/service-intentions/{name}", "DELETE")
        server.api(f"config/service-defaults/{name}", "DELETE")
        server.api("catalog/deregister", "PUT", {"Node": f"outside-{name}"})
        with contextlib.suppress(Exception):
            server.api(f"agent/service/deregister/{name}", "PUT")


# --- beside Envoy ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Edges:
    """The two gateways, what is outside, and who asks."""

    server: ConsulServer
    apps: Apps
    ports: dict[str, int]
    proxies: Peers
    web: ssl.SSLContext
    snis: dict[str, str]
    echo: int  # its port

    async def ask(self, gateway: str, service: str, request: Request, number: str) -> Outcome:
        """Ask for a service at one of the two, as a caller's sidecar would."""
        whole = Request(request.method, request.target, (*request.headers, ("x-forwarded-proto", "http")))
        return await self.apps.ask(self.ports[gateway], whole, number, (self.web, self.snis[service]))

    def write(self, number: int) -> list[Json]:
        """Tell both what permissions are to be in force; return what requests are likely to meet."""
        chance = Chance(random.Random(f"egress {number}"))
        marks = [
            {"Action": action, "HTTP": {"PathExact": f"/{word}-in-generation-{number}"}}
            for action, word in (("allow", "yes"), ("deny", "no"))
        ]
        rules = [chance.permission() for _ in range(chance.draw.randrange(2, 7))]
        sources = [{"Name": "web", "Permissions": [*marks, *rules]}, {"Name": "*", "Action": "deny"}]
        for service in SERVICES:
            self.server.write({"Kind": "service-intentions", "Name": service, "Sources": sources})
        return [rule["HTTP"] for rule in rules]

    async def in_force(self, number: int) -> bool:
        """Return whether both go by it."""
        for gateway, service, (word, status) in itertools.product(GATEWAYS, SERVICES, (("yes", 200), ("no", 403))):
            request = Request("GET", f"/{word}-in-generation-{number}", (("Host", "x"),))
            if (await self.ask(gateway, service, request, "mark")).status != status:
                return False
        return True


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    with consul_server(settings={"default_intention_policy": "deny"}) as running:
        yield running


@contextlib.asynccontextmanager
async def edges(server: ConsulServer, folder: Path) -> AsyncIterator[Edges]:
    apps = Apps(UNSEEN | {"x-envoy-original-host"})
    numbers = free_ports(2)
    async with contextlib.AsyncExitStack() as stack:
        echo = await stack.enter_async_context(echo_server())
        for service, address in zip(SERVICES, ("127.0.0.1", "localhost"), strict=True):
            app = await stack.enter_async_context(apps.app(service).running())
            external(server, service, app.port, address)
            server.write({"Kind": "service-defaults", "Name": service, "Protocol": "http"})
        external(server, "raw", echo)
        allow(server, "raw", "web")
        links = [{"Name": name} for name in (*SERVICES, "raw")]
        for gateway in GATEWAYS:
            server.write({"Kind": "terminating-gateway", "Name": gateway, "Services": links})
        proxies = stack.enter_context(peers(server, folder))
        snis = {name: sni(server, name) for name in (*SERVICES, "raw", "nobody")}
        web = context_of(server, folder, "web")
        made = Edges(server, apps, dict(zip(GATEWAYS, numbers, strict=True)), proxies, web, snis, echo)
        made.write(1)
        starts = zip((proxies.envoy_gateway, proxies.lictor_gateway), made.ports.items(), strict=True)
        await asyncio.gather(*(asyncio.to_thread(start, *told, "terminating") for start, told in starts))
        yield made


@dataclass(frozen=True, slots=True)
class Case:
    """A request and the service that it is for."""

    service: str
    request: Request

    @property
    def normalized(self) -> bool:
        """Return whether its path is changed before it is judged."""
        return normalize(self.request.path, PathNormalization()) != self.request.path


Known = Callable[[Case, Outcome, Outcome], bool]
OF_HOST = "the Host that a terminating gateway has rewritten"  # it is not compared
DIFFERENCES: dict[str, Known] = {
    "paths at a terminating gateway": lambda case, envoy, ours: (
        case.normalized and (envoy.status, envoy.target) != (ours.status, ours.target)
    ),
}


def test_every_difference_stands_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "differences.md").read_text()
    assert [row for row in (OF_HOST, *DIFFERENCES) if f"| {row} |" not in text] == []


@pytest.mark.timeout(180 + REQUESTS // 8)
async def test_envoy_and_our_terminating_gateway_do_the_same(server: ConsulServer, tmp_path: Path) -> None:
    found: list[str] = []
    outcomes: list[Outcome] = []
    async with edges(server, tmp_path) as gateways:
        for number in range(1, 1 + -(-REQUESTS // GENERATION)):
            matches = gateways.write(number)
            await eventually(lambda number=number: gateways.in_force(number), 30, every=0.1)
            chance = Chance(random.Random(f"requests to the outside {number}"))
            for turn in range(min(GENERATION, REQUESTS - (number - 1) * GENERATION)):
                case = Case(chance.one(SERVICES), chance.request(matches, chance.one(HOSTS)))
                theirs, mine = await asyncio.gather(
                    *(gateways.ask(one, case.service, case.request, f"{number}.{turn}.{one}") for one in GATEWAYS)
                )
                outcomes.append(theirs)
                known = [row for row, holds in DIFFERENCES.items() if holds(case, theirs, mine)]
                if (wrong := different(theirs, mine, ("Envoy", "ours"))) and not known:
                    found.append("\n  ".join([f"{case}", *wrong]))
        await compare_connections(gateways)
        await callers(gateways)
    assert not found, f"{len(found)} of {len(outcomes)} differ:\n" + "\n".join(found[:20])
    statuses = [outcome.status for outcome in outcomes]
    assert min(statuses.count(200), statuses.count(403)) > len(statuses) / 5


async def compare_connections(gateways: Edges) -> None:
    """What is decided before a request: the SNI, and tcp."""
    for name in ("", "nobody", gateways.snis["nobody"], "ext"):
        for port in gateways.ports.values():
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await Wire.open(port, gateways.web, name)
    api = context_of(gateways.server, gateways.proxies.folder, "api")
    for port in gateways.ports.values():
        async with await Wire.open(port, gateways.web, gateways.snis["raw"]) as wire:
            await wire.send(b"ping")
            assert await wire.read() == b"ping"
        async with await Wire.open(port, api, gateways.snis["raw"]) as wire:
            await wire.send(b"ping")
            assert await wire.rest() == b""


async def callers(gateways: Edges) -> None:
    """Sidecars of both kinds go out by the gateway that Consul names, ours alone for a service linked to it alone."""
    server, proxies = gateways.server, gateways.proxies
    async with App(say(b"only")).running() as app:
        external(server, "only", app.port)
        server.write({"Kind": "service-defaults", "Name": "only", "Protocol": "http"})
        allow(server, "only", "web")
        links = [{"Name": name} for name in (*SERVICES, "raw", "only")]
        server.write({"Kind": "terminating-gateway", "Name": "l-out", "Services": links})
        binds = dict(zip((("web", "e"), ("web", "l"), ("api", "e"), ("api", "l")), free_ports(4), strict=True))
        for (service, kind), bind in binds.items():
            proxies.register(service, 1, upstreams={"only": bind}, instance=kind)
            start = proxies.envoy_sidecar if kind == "e" else proxies.lictor_sidecar
            await asyncio.to_thread(start, f"{service}-{kind}")
        for (service, _), bind in binds.items():
            told = (200, b"only") if service == "web" else (403, b"RBAC: access denied")
            await eventually(lambda bind=bind, told=told: answers(bind, *told), 20, every=0.1)
