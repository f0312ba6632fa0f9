"""The api-gateway's data plane: hosts and rules of routes, filters, changes under way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from harness.certificates import Authority
from harness.halves import Half, half
from harness.meshes import Json, api_gateway, chain, intention, sidecar, upstream
from harness.servers import eventually
from harness.wire import App, Wire, echo_server, say
from lictor.up.ports import free_ports
from policies.watches import ApiGatewayWatch, RoutesWatch


@contextlib.asynccontextmanager
async def edge(
    authority: Authority,
    listeners: list[Json],
    http_routes: list[Json],
    apps: dict[str, int],
    tcp_routes: list[Json] | None = None,
    protocol: str = "http",
) -> AsyncIterator[Half]:
    """Run a gateway in front of sidecars of these services, each with its app's port."""
    async with contextlib.AsyncExitStack() as stack:
        member = api_gateway("gw", authority, listeners, http_routes, tcp_routes or [])
        for service, port in apps.items():
            rows = [intention("gw", service, "allow")]
            side = await stack.enter_async_context(
                half(sidecar(service, authority, local_port=port, protocol=protocol, intentions=rows))
            )
            upstream(member, service, [side.port("inbound")], chain(service, protocol))
        yield await stack.enter_async_context(half(member))


def get(target: str = "/", host: str = "shop.example") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def is_closed(port: int) -> bool:
    """Return whether nobody listens there; the loop gives up a listener a moment after it was told to."""
    try:
        async with await Wire.open(port):
            return False
    except ConnectionError:
        return True


def rule(service: str, path: str = "/", **more: object) -> Json:
    return {"Matches": [{"Path": {"Match": "prefix", "Value": path}}], "Services": [{"Name": service}], **more}


async def test_hosts_and_rules_lead_to_services(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Name": "l", "Port": port, "Protocol": "http", "Hostname": "*.example"}]
    routes = [
        {"Name": "r1", "Rules": [rule("web"), rule("api", "/api")]},
        {"Name": "r2", "Hostnames": ["api.example"], "Rules": [rule("api", "/only")]},
    ]
    async with (
        App(say(b"web")).running() as web,
        App(say(b"api")).running() as api,
        edge(authority, listeners, routes, {"web": web.port, "api": api.port}),
        await Wire.open(port) as wire,
    ):
        asked = (
            ("/", "shop.example"),
            ("/api/x", f"a.shop.example:{port}"),
            ("/only", "api.example"),
            ("/other", "api.example"),  # no other route of that name's is asked
            ("/", "example"),
            ("/", "shop.example:1"),
        )
        answers = [await wire.ask(get(*one)) for one in asked]
    assert [(one.status, one.body.decode()) for one in answers] == [
        (200, "web"),
        (200, "api"),
        (200, "api"),
        (404, ""),
        (404, ""),
        (404, ""),
    ]


async def test_filters_are_applied_and_what_cannot_be_is_a_403(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Name": "l", "Port": port, "Protocol": "http"}]
    filters = {"URLRewrite": {"Path": "/new"}, "Headers": [{"Set": {"x-rule": "1"}}]}
    answers = {"Headers": [{"Set": {"x-answer": "1"}}]}
    routes = [
        {
            "Name": "r",
            "Rules": [
                rule("web", "/old", Filters=filters, ResponseFilters=answers),
                rule("web", "/closed", Filters={"JWT": {}}),
            ],
        }
    ]
    async with (
        App().running() as web,
        edge(authority, listeners, routes, {"web": web.port}),
        await Wire.open(port) as wire,
    ):
        answer, refused = await wire.ask(get("/old/x")), await wire.ask(get("/closed"))
    (request,) = web.requests
    assert (request.target, request.get("x-rule"), request.get("x-forwarded-host")) == ("/new/x", "1", "shop.example")
    assert (answer.status, answer.get("x-answer")) == (200, "1")
    assert (refused.status, refused.get("x-lictor-reason")) == (403, "route_refused")


async def test_a_tcp_route_relays(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Name": "l", "Port": port, "Protocol": "tcp"}]
    tcp = [{"Name": "t", "Services": [{"Name": "db"}]}]
    async with (
        echo_server() as db,
        edge(authority, listeners, [], {"db": db}, tcp, "tcp"),
        await Wire.open(port) as wire,
    ):
        await wire.send(b"select")
        assert await wire.read() == b"select"


async def test_what_changes_touches_no_other_connection(authority: Authority) -> None:
    first, second, third = free_ports(3)
    listeners = [
        {"Name": f"l{number}", "Port": port, "Protocol": "http"} for number, port in enumerate((first, second, third))
    ]
    parents = [{"Parents": [{"Name": "gw", "SectionName": f"l{number}"}]} for number in range(3)]
    routes = [
        {"Name": f"r{number}", **parents[number], "Rules": [rule("web"), rule("api", "/api")]} for number in range(2)
    ]
    async with (
        App(say(b"web")).running() as web,
        App(say(b"api")).running() as api,
        edge(authority, listeners, routes, {"web": web.port, "api": api.port}) as gateway,
        await Wire.open(first) as kept,
        await Wire.open(second) as gone,
    ):
        assert [(await wire.ask(get())).body for wire in (kept, gone)] == [b"web", b"web"]
        assert await is_closed(third)  # no route is bound to it
        changed = [
            {**routes[0], "Rules": [rule("api")]},
            {"Name": "r2", **parents[2], "Rules": [rule("web")]},
        ]
        gateway.member.hear(RoutesWatch("http-route", "gw"), changed)
        gateway.follow()
        assert (await kept.ask(get())).body == b"api"  # on the connection of before
        async with await Wire.open(third) as new:
            assert (await new.ask(get())).body == b"web"
        await eventually(lambda: is_closed(second))
        gateway.member.hear(ApiGatewayWatch("gw"), None)
        gateway.follow()
        await eventually(lambda: is_closed(first))
    assert gateway.reasons() == {}


async def test_a_share_that_nobody_serves_answers_503(authority: Authority) -> None:
    (port,) = free_ports(1)
    member = api_gateway(
        "gw",
        authority,
        [{"Name": "l", "Port": port, "Protocol": "http"}],
        [{"Name": "r", "Rules": [rule("web"), rule("x", "/none") | {"Services": []}]}],
    )
    upstream(member, "web", [])
    async with half(member), await Wire.open(port) as wire:
        for target in ("/", "/none"):
            answer = await wire.ask(get(target))
            assert (answer.status, answer.get("x-lictor-reason")) == (503, "no_healthy_upstream")


async def test_no_rule_sees_what_a_caller_claims_of_a_certificate(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Name": "l", "Port": port, "Protocol": "http"}]
    fields = ("Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert")
    matches = [{"Headers": [{"Name": name, "Match": "present"}]} for name in fields]
    routes = [{"Name": "r", "Rules": [{"Matches": matches, "Services": [{"Name": "admin"}]}, rule("web")]}]
    async with (
        App(say(b"web")).running() as web,
        App(say(b"admin")).running() as admin,
        edge(authority, listeners, routes, {"web": web.port, "admin": admin.port}),
        await Wire.open(port) as wire,
    ):
        for name in fields:
            assert (await wire.ask(get().replace(b"\r\n\r\n", f"\r\n{name}: :aa:\r\n\r\n".encode()))).body == b"web"
    assert admin.requests == []
