"""The ingress gateway's data plane: hosts, header changes, forwarded fields, tcp listeners."""

from __future__ import annotations

import pytest

from harness.certificates import Authority
from harness.halves import edge, half
from harness.meshes import ingress, upstream
from harness.wire import App, Wire, echo_server, say
from lictor.up.ports import free_ports


def get(host: str, more: str = "") -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


async def test_hosts_are_found_by_consuls_rules(authority: Authority) -> None:
    (port,) = free_ports(1)
    services = [
        {"Name": "web", "Hosts": ["web.example", "*.wild.example"]},
        {"Name": "api"},
        {"Name": "wide", "Hosts": ["*.example"]},
    ]
    listeners = [{"Port": port, "Protocol": "http", "Services": services}]
    async with (
        App(say(b"web")).running() as web,
        App(say(b"api")).running() as api,
        App(say(b"wide")).running() as wide,
        edge(authority, listeners, {"web": web.port, "api": api.port, "wide": wide.port}),
        await Wire.open(port) as wire,
    ):
        answers = {}
        for host in (
            "web.example",
            "WEB.example",
            f"web.example:{port}",
            "a.wild.example",
            "a.b.wild.example",
            "other.example",
            "api.ingress.consul",
            "api.ingress.anything:1234",
        ):
            answers[host] = (await wire.ask(get(host))).body.decode()
        assert list(answers.values()) == ["web", "web", "web", "web", "web", "wide", "api", "api"], answers
        for host in ("web.example:1", "web.example.", "example", "nothing", "api.ingress"):
            refused = await wire.ask(get(host))
            assert (host, refused.status, refused.get("x-lictor-reason")) == (host, 404, "no_host_matches")


async def test_a_star_takes_every_host(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]}]
    async with App().running() as web, edge(authority, listeners, {"web": web.port}), await Wire.open(port) as wire:
        for host in ("a", "b:9", ""):
            assert (await wire.ask(get(host))).status == 200


async def test_forwarded_fields_are_the_gateways_own(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]}]
    forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
    async with App().running() as web, edge(authority, listeners, {"web": web.port}), await Wire.open(port) as wire:
        await wire.ask(get("shop.example", forged))
    (request,) = web.requests
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["http"]
    assert request.all("x-forwarded-host") == ["shop.example"]


async def test_header_changes_of_the_entry_are_made(authority: Authority) -> None:
    (port,) = free_ports(1)
    service = {
        "Name": "web",
        "Hosts": ["*"],
        "RequestHeaders": {
            "Add": {"x-added": "one"},
            "Set": {"x-set": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% 100%%", "host": "never"},
            "Remove": ["x-gone"],
        },
        "ResponseHeaders": {"Set": {"server": "edge"}, "Remove": ["x-inner"]},
    }
    listeners = [{"Port": port, "Protocol": "http", "Services": [service]}]
    async with App(say(b"", lines=b"Server: app\r\nX-Inner: 1\r\n")).running() as web:
        async with edge(authority, listeners, {"web": web.port}), await Wire.open(port) as wire:
            answer = await wire.ask(get("shop", "X-Gone: 1\r\nX-Set: old\r\nX-Added: zero\r\n"))
    (request,) = web.requests
    assert request.all("x-added") == ["zero", "one"]
    assert request.all("x-set") == ["127.0.0.1 100%"]
    assert (request.get("x-gone"), request.get("host")) == (None, "shop")
    assert (answer.all("server"), answer.get("x-inner")) == (["edge"], None)


async def test_a_service_that_nobody_serves_is_a_503(authority: Authority) -> None:
    (port,) = free_ports(1)
    member = ingress(
        "edge", authority, [{"Port": port, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]}]
    )
    upstream(member, "web", [])
    async with half(member), await Wire.open(port) as wire:
        answer = await wire.ask(get("x"))
    assert (answer.status, answer.body, answer.get("x-lictor-reason")) == (
        503,
        b"no healthy upstream",
        "no_healthy_upstream",
    )


async def test_a_tcp_listener_relays_to_its_one_service(authority: Authority) -> None:
    (port,) = free_ports(1)
    listeners = [{"Port": port, "Protocol": "tcp", "Services": [{"Name": "db"}]}]
    async with echo_server() as db, edge(authority, listeners, {"db": db}, "tcp"), await Wire.open(port) as wire:
        await wire.send(b"select")
        assert await wire.read() == b"select"


async def test_listeners_come_and_go_with_the_entry(authority: Authority) -> None:
    from policies.watches import IngressWatch

    first, second = free_ports(2)
    services = [{"Name": "web", "Hosts": ["*"]}]
    listeners = [{"Port": first, "Protocol": "http", "Services": services}]
    async with App().running() as web, edge(authority, listeners, {"web": web.port}) as gateway:
        changed = {"Kind": "ingress-gateway", "Name": "edge", "Listeners": [{**listeners[0], "Port": second}]}
        gateway.member.hear(IngressWatch("edge"), changed)
        gateway.follow()
        async with await Wire.open(second) as wire:
            assert (await wire.ask(get("x"))).status == 200
        with pytest.raises(ConnectionRefusedError):
            await Wire.open(first)


async def test_an_answer_that_is_made_here_sees_the_request_as_it_would_have_been_sent(authority: Authority) -> None:
    (port,) = free_ports(1)
    service = {
        "Name": "web",
        "Hosts": ["*"],
        "RequestHeaders": {"Set": {"x-c": "changed"}},
        "ResponseHeaders": {"Set": {"x-seen": "%REQ(x-c)%"}},
    }
    member = ingress("edge", authority, [{"Port": port, "Protocol": "http", "Services": [service]}])
    upstream(member, "web", [])
    async with half(member), await Wire.open(port) as wire:
        answer = await wire.ask(get("x", "X-C: original\r\n"))
    assert (answer.status, answer.get("x-seen")) == (503, "changed")


async def test_what_changes_about_a_listener_touches_no_connection_of_the_others(authority: Authority) -> None:
    from policies.watches import IngressWatch

    first, second, third = free_ports(3)
    web = {"Name": "web", "Hosts": ["*"]}
    kept, changed, gone = ({"Port": port, "Protocol": "http", "Services": [web]} for port in (first, second, third))
    async with (
        App().running() as app,
        edge(authority, [kept, changed, gone], {"web": app.port}) as gateway,
        await Wire.open(first) as quiet,
        await Wire.open(second) as concerned,
    ):
        assert [(await wire.ask(get("x"))).status for wire in (quiet, concerned)] == [200, 200]
        pools = gateway.dataplane.pools.describe()
        limited = {
            "Name": "web",
            "Hosts": ["shop"],
            "MaxConcurrentRequests": 1,
            "PassiveHealthCheck": {"MaxFailures": 2},
        }
        entry = {"Kind": "ingress-gateway", "Name": "edge", "Listeners": [kept, {**changed, "Services": [limited]}]}
        gateway.member.hear(IngressWatch("edge"), entry)
        gateway.follow()
        after = {str(row["target"]): row for row in gateway.dataplane.pools.describe()}
        assert [after[str(row["target"])] for row in pools] == pools  # the connection to web's sidecar is still there
        assert [target.rpartition("@")[2] for target in after if "@" in target] == [str(second)]
        assert (await quiet.ask(get("x"))).status == 200
        assert [(await concerned.ask(get(host))).status for host in ("x", "shop")] == [404, 200]
    assert len(app.requests) == 4
