"""Our sidecars with those of others on one Consul, both ways: Consul's own proxy, and Envoy as Consul configures it.

Every pairing gets the same table of requests. Envoy on both ends is the oracle: what it answers, Lictor answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.peers import Peers, peers
from harness.servers import ConsulServer, consul_server, eventually
from harness.wire import App, Message, Side, Wire, echo_server
from lictor.up.ports import free_ports

PAIRS = ["envoy-envoy", "lictor-lictor", "lictor-envoy", "envoy-lictor"]


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    with consul_server(settings={"default_intention_policy": "deny"}) as running:
        running.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
        yield running


@pytest.fixture
def proxies(server: ConsulServer, tmp_path: Path) -> Iterator[Peers]:
    with peers(server, tmp_path) as running:
        yield running
        running.stop()
        for service in server.api("agent/services"):
            server.api(f"agent/service/deregister/{service}", "PUT")


async def tell(side: Side, message: Message) -> bytes:
    """Answer with what arrived: method, target, a few fields and the certificates told of, a line each."""
    shown = [f"{message.first[0]} {message.target}", f"body={message.body.decode()}"]
    shown += [f"{name}={','.join(message.all(name))}" for name in ("x-a", "x-forwarded-proto", "host", "te", "expect")]
    certificates = ",".join(message.all("x-forwarded-client-cert"))
    shown += re.findall(r"(?:By|URI)=spiffe:[^;,]*/svc/([^;,]*)", certificates)
    body = "\n".join(shown).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-app: yes\r\n\r\n" % len(body)
    return head if message.first[0] == "HEAD" else head + body


async def sidecar(proxies: Peers, kind: str, service_id: str, port: int) -> None:
    start = {"lictor": proxies.lictor_sidecar, "envoy": proxies.envoy_sidecar}
    if kind == "connect":
        await asyncio.to_thread(proxies.connect_proxy, service_id, port)
    else:
        await asyncio.to_thread(start[kind], service_id)


@contextlib.asynccontextmanager
async def a_pair(proxies: Peers, kinds: str, app_port: int, names: tuple[str, str]) -> AsyncIterator[int]:
    """Run a caller's and a called sidecar of these kinds. Yields the caller's upstream port."""
    caller, called = kinds.split("-")
    (port,) = free_ports(1)
    api_port = await asyncio.to_thread(proxies.register, names[1], app_port)
    await asyncio.to_thread(lambda: proxies.register(names[0], 1, upstreams={names[1]: port}))
    await sidecar(proxies, called, f"{names[1]}-1", api_port)
    await sidecar(proxies, caller, f"{names[0]}-1", port)
    yield port


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: api", *lines, "", ""]).encode()


# What is asked through every pairing. Named so that a difference names itself.
REQUESTS: dict[str, bytes] = {
    "plain": get("/open/a?b=c"),
    "denied-path": get("/closed"),
    "denied-method": get("/open", "Content-Length: 0", method="POST"),
    "post-allowed": get("/write", "Content-Length: 4", method="POST") + b"body",
    "chunked-allowed": get("/write", "Transfer-Encoding: chunked", method="POST") + b"4\r\nbody\r\n0\r\n\r\n",
    "put-denied": get("/write", "Content-Length: 4", method="PUT") + b"body",
    "head": get("/open", method="HEAD"),
    "header-missing": get("/header"),
    "header-right": get("/header", "X-A: yes"),
    "header-wrong": get("/header", "X-A: no"),
    "header-two-lines": get("/header", "X-A: no", "X-A: yes"),
    "header-one-list": get("/header", "X-A: no,yes"),
    "header-blanks": get("/header", "X-A:   yes  "),
    "dot-segments": get("/x/../open"),
    "dot-segments-to-closed": get("/open/../closed"),
    "escaped-dots": get("/x/%2e%2e/open"),
    "escaped-letter": get("/%6fpen"),
    "double-slash": get("//open"),
    "escaped-slash": get("/open%2Fa"),
    "backslash": get("/x\\..\\open"),
    "nul": get("/open%00"),
    "fragment": get("/open#x"),
    "regex": get("/v12"),
    "regex-part": get("/v12x"),
    "route-rewrite": get("/old/thing?q=1"),
    "route-query": get("/open?version=two"),
    "websocket-denied": get("/closed", "Connection: Upgrade", "Upgrade: websocket"),
    "upgrade-other": get("/open", "Connection: Upgrade", "Upgrade: foo"),
    "http-1.0": b"GET /open HTTP/1.0\r\nHost: api\r\n\r\n",
    "two-lengths": get("/write", "Content-Length: 1", "Content-Length: 2", method="POST") + b"xy",
    "length-and-chunked": get("/write", "Content-Length: 4", "Transfer-Encoding: chunked", method="POST")
    + b"0\r\n\r\n",
    "gzip-coding": get("/write", "Transfer-Encoding: gzip", method="POST"),
    "lower-case-method": b"get /open HTTP/1.1\r\nHost: api\r\n\r\n",
    "no-host": b"GET /open HTTP/1.1\r\n\r\n",
    "many-fields": get("/open", *(f"X-{number}: 1" for number in range(120))),
    "large-head": get("/open", "X-Large: " + "x" * 70000),
    "grpc-denied": get("/closed", "Content-Type: application/grpc", "Content-Length: 0", method="POST"),
    "host-as-a-field": get("/by-host"),
    "authority-as-a-field": get("/by-authority"),
    "method-as-a-field": get("/by-method"),
    "method-as-a-field-wrong": get("/by-method", "Content-Length: 0", method="POST"),
    "judged-with-what-the-route-set": get("/set"),
    "te-trailers": get("/open", "TE: trailers"),
    "te-other": get("/open", "TE: deflate"),
    "expect-denied": get("/closed", "Expect: 100-continue", "Content-Length: 4", method="POST") + b"body",
    "app-hangs-up": get("/open/cut"),
    "app-talks-nonsense": get("/open/nonsense"),
    "app-is-late": get("/open/late"),
    "options-star": b"OPTIONS * HTTP/1.1\r\nHost: api\r\n\r\n",
}

ENTRIES: tuple[dict[str, Any], ...] = (
    {
        "Kind": "service-intentions",
        "Name": "io-api",
        "Sources": [
            {
                "Name": "io-web",
                "Permissions": [
                    {"Action": "deny", "HTTP": {"PathPrefix": "/closed"}},
                    {"Action": "allow", "HTTP": {"PathPrefix": "/write", "Methods": ["POST"]}},
                    {"Action": "allow", "HTTP": {"PathExact": "/header", "Header": [{"Name": "x-a", "Exact": "yes"}]}},
                    *(
                        {"Action": "allow", "HTTP": {"PathExact": path, "Header": [{"Name": name, "Exact": value}]}}
                        for path, name, value in (
                            ("/by-host", "Host", "api"),
                            ("/by-authority", ":authority", "api"),
                            ("/by-method", ":method", "GET"),
                            ("/set", "x-a", "set"),
                        )
                    ),
                    {"Action": "allow", "HTTP": {"PathRegex": "/v[0-9]+"}},
                    {"Action": "allow", "HTTP": {"PathPrefix": "/new"}},
                    {"Action": "allow", "HTTP": {"PathPrefix": "/open", "Methods": ["GET", "HEAD"]}},
                ],
            }
        ],
    },
    {
        "Kind": "service-router",
        "Name": "io-api",
        "Routes": [
            {"Match": {"HTTP": {"PathPrefix": "/old"}}, "Destination": {"PrefixRewrite": "/new"}},
            {"Match": {"HTTP": {"PathPrefix": "/set"}}, "Destination": {"RequestHeaders": {"Set": {"x-a": "set"}}}},
            {"Match": {"HTTP": {"PathPrefix": "/open/late"}}, "Destination": {"RequestTimeout": "1s"}},
            {
                "Match": {"HTTP": {"QueryParam": [{"Name": "version", "Exact": "two"}]}},
                "Destination": {"RequestHeaders": {"Set": {"x-a": "routed"}}},
            },
        ],
    },
)


async def answers(port: int) -> dict[str, tuple[int, str]]:
    """Return (status, body) of every request, each on a connection of its own."""
    found = {}
    for name, request in REQUESTS.items():
        async with await Wire.open(port) as wire:
            answer = await wire.ask(request, "HEAD" if name == "head" else "GET")
            found[name] = (answer.status, answer.body.decode("latin-1"))
    return found


async def behave(side: Side, message: Message) -> bytes | None:
    """Tell what arrived, or misbehave as the path says."""
    match message.target:
        case "/open/cut":
            return None
        case "/open/nonsense":
            return b"nonsense\r\n\r\n"
        case "/open/late":
            await asyncio.sleep(3)
    return await tell(side, message)


@pytest.fixture(scope="module")
def collected() -> dict[str, dict[str, tuple[int, str]]]:
    """Answers by pairing, filled by the tests in order: Envoy's own pairing first."""
    return {}


@pytest.mark.parametrize("kinds", PAIRS)
async def test_the_same_requests_get_the_answers_of_envoy_alone(
    server: ConsulServer, proxies: Peers, collected: dict[str, Any], kinds: str
) -> None:
    server.write(*ENTRIES)
    async with App(behave).running() as app, a_pair(proxies, kinds, app.port, ("io-web", "io-api")) as port:

        async def reaches() -> bool:
            async with await Wire.open(port) as wire:
                return (await wire.ask(REQUESTS["plain"])).status == 200

        await eventually(reaches, 20)
        found = collected[kinds] = await answers(port)
    assert found["plain"][0] == 200
    assert found["denied-path"][0] == 403
    oracle = collected["envoy-envoy"]
    assert {name: (answer, oracle[name]) for name, answer in found.items() if answer != oracle[name]} == {}


@pytest.mark.parametrize("kinds", PAIRS)
async def test_a_split_and_a_change_of_intentions_work_through_every_pairing(
    server: ConsulServer, proxies: Peers, kinds: str
) -> None:
    caller, called = kinds.split("-")
    server.write(
        {"Kind": "service-intentions", "Name": "sp-api", "Sources": [{"Name": "sp-web", "Action": "allow"}]},
        {
            "Kind": "service-resolver",
            "Name": "sp-api",
            "Subsets": {v: {"Filter": f"Service.Meta.version == {v}"} for v in ("v1", "v2")},
        },
        {
            "Kind": "service-splitter",
            "Name": "sp-api",
            "Splits": [{"Weight": 75, "ServiceSubset": "v1"}, {"Weight": 25, "ServiceSubset": "v2"}],
        },
    )
    async with contextlib.AsyncExitStack() as stack:
        (port,) = free_ports(1)
        for version in ("v1", "v2"):
            app = await stack.enter_async_context(App(_named(version)).running())
            side = await asyncio.to_thread(
                proxies.register, "sp-api", app.port, meta={"version": version}, instance=version
            )
            await sidecar(proxies, called, f"sp-api-{version}", side)
        await asyncio.to_thread(lambda: proxies.register("sp-web", 1, upstreams={"sp-api": port}))
        await sidecar(proxies, caller, "sp-web-1", port)

        async def counted(rounds: int) -> Counter[str]:
            async with await Wire.open(port) as wire:
                return Counter([(await wire.ask(get("/"))).body.decode() for _ in range(rounds)])

        seen: list[Counter[str]] = []

        async def both() -> bool:
            seen.append(await counted(30))
            return set(seen[-1]) == {"v1", "v2"}

        try:
            await eventually(both, 20)
        except AssertionError as error:
            raise AssertionError(seen[-1]) from error
        found = await counted(600)
        assert 0.65 < found["v1"] / 600 < 0.85
        server.write(
            {"Kind": "service-intentions", "Name": "sp-api", "Sources": [{"Name": "sp-web", "Action": "deny"}]}
        )

        async def denied() -> bool:
            async with await Wire.open(port) as wire:
                return (await wire.ask(get("/"))).status == 403

        await eventually(denied, 20)


def _named(version: str) -> Any:
    async def answer(side: Side, message: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + version.encode()

    return answer


@pytest.mark.parametrize("kinds", ["connect-lictor", "lictor-connect", "envoy-lictor", "lictor-envoy"])
async def test_tcp_goes_through_in_both_directions(server: ConsulServer, proxies: Peers, kinds: str) -> None:
    server.write(
        {"Kind": "service-defaults", "Name": "tc-web", "Protocol": "tcp"},
        {"Kind": "service-defaults", "Name": "tc-api", "Protocol": "tcp"},
        {"Kind": "service-intentions", "Name": "tc-api", "Sources": [{"Name": "tc-web", "Action": "allow"}]},
    )
    async with echo_server() as echo, a_pair(proxies, kinds, echo, ("tc-web", "tc-api")) as port:

        async def works() -> bool:
            async with await Wire.open(port) as wire:
                await wire.send(b"ping")
                return await wire.read() == b"ping"

        await eventually(works, 20)
        block = b"x" * 65536
        async with await Wire.open(port) as wire:
            received = 0
            sending = asyncio.create_task(_pour(wire, block, 64))
            while received < 64 * len(block):
                data = await wire.read()
                assert data
                received += len(data)
            await sending
        server.write(
            {"Kind": "service-intentions", "Name": "tc-api", "Sources": [{"Name": "tc-web", "Action": "deny"}]}
        )

        async def refused() -> bool:
            async with await Wire.open(port) as wire:
                await wire.send(b"ping")
                return await wire.read() == b""

        await eventually(refused, 20)


async def _pour(wire: Wire, block: bytes, count: int) -> None:
    for _ in range(count):
        await wire.send(block)


@pytest.mark.parametrize("kinds", ["envoy-envoy", "lictor-lictor", "lictor-envoy", "envoy-lictor"])
async def test_an_ingress_gateway_serves_hosts_in_front_of_either_sidecar(
    server: ConsulServer, proxies: Peers, kinds: str
) -> None:
    gateway, called = kinds.split("-")
    port, registered = free_ports(2)
    server.write(
        {"Kind": "service-intentions", "Name": "in-web", "Sources": [{"Name": "in-edge", "Action": "allow"}]},
        {
            "Kind": "ingress-gateway",
            "Name": "in-edge",
            "Listeners": [
                {
                    "Port": port,
                    "Protocol": "http",
                    "Services": [
                        {
                            "Name": "in-web",
                            "Hosts": ["web.example.com", "*.wide.example.com"],
                            "RequestHeaders": {"Set": {"x-a": "edge"}},
                        }
                    ],
                }
            ],
        },
    )
    async with App(tell).running() as app:
        side = await asyncio.to_thread(proxies.register, "in-web", app.port)
        await sidecar(proxies, called, "in-web-1", side)
        start = proxies.lictor_gateway if gateway == "lictor" else proxies.envoy_gateway
        await asyncio.to_thread(start, "in-edge", registered)

        async def status(host: str) -> int:
            async with await Wire.open(port) as wire:
                return (await wire.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status

        async def reaches() -> bool:
            with contextlib.suppress(OSError):
                return await status("web.example.com") == 200
            return False

        await eventually(reaches, 30)
        hosts = {
            "web.example.com": 200,
            "WEB.example.com": 200,
            f"web.example.com:{port}": 200,
            "a.wide.example.com": 200,
            "web.example.com:1": 404,
            "wide.example.com": 404,
            "nothing": 404,
        }
        assert {host: await status(host) for host in hosts} == hosts
        async with await Wire.open(port) as wire:
            assert b"x-a=edge" in (await wire.ask(b"GET / HTTP/1.1\r\nHost: web.example.com\r\n\r\n")).body
    with contextlib.suppress(Exception):
        server.api("config/ingress-gateway/in-edge", "DELETE")


@pytest.mark.parametrize("kinds", PAIRS)
async def test_the_intentions_that_count_are_those_of_the_service_finally_called(
    server: ConsulServer, proxies: Peers, kinds: str
) -> None:
    """A route leads to another service, a resolver redirects to it: its own intentions are asked, for its own paths."""
    prefix = "fi"
    rules = [{"Action": "allow", "HTTP": {"PathPrefix": "/ok"}}]
    server.write(
        {"Kind": "service-resolver", "Name": f"{prefix}-old", "Redirect": {"Service": f"{prefix}-final"}},
        {
            "Kind": "service-router",
            "Name": f"{prefix}-api",
            "Routes": [
                {
                    "Match": {"HTTP": {"PathPrefix": "/final"}},
                    "Destination": {"Service": f"{prefix}-old", "PrefixRewrite": "/ok"},
                },
                {"Match": {"HTTP": {"PathPrefix": "/no"}}, "Destination": {"Service": f"{prefix}-old"}},
            ],
        },
        {
            "Kind": "service-intentions",
            "Name": f"{prefix}-final",
            "Sources": [{"Name": f"{prefix}-web", "Permissions": rules}],
        },
        {
            "Kind": "service-intentions",
            "Name": f"{prefix}-api",
            "Sources": [{"Name": f"{prefix}-web", "Action": "allow"}],
        },
    )
    caller, called = kinds.split("-")
    async with App(_named("v1")).running() as api, App(tell).running() as final:
        (port,) = free_ports(1)
        for name, app in (("api", api), ("final", final)):
            await asyncio.to_thread(proxies.register, f"{prefix}-{name}", app.port)
            await sidecar(proxies, called, f"{prefix}-{name}-1", 0)
        await asyncio.to_thread(lambda: proxies.register(f"{prefix}-web", 1, upstreams={f"{prefix}-api": port}))
        await sidecar(proxies, caller, f"{prefix}-web-1", port)

        async def said(target: str) -> tuple[int, bytes]:
            async with await Wire.open(port) as wire:
                answer = await wire.ask(get(target))
                return answer.status, answer.body.split(b"\n")[0]

        async def reaches() -> bool:
            return (await said("/final/x"))[0] == 200 and (await said("/"))[0] == 200

        await eventually(reaches, 20)
        assert await said("/final/x") == (200, b"GET /ok/x")
        assert await said("/no") == (403, b"RBAC: access denied")
        assert await said("/") == (200, b"v1")
