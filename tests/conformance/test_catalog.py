"""The client of Consul's API: against the real agent, and against a faulty one for what a healthy agent does not do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controlplane.consul.catalog import Catalog
from controlplane.consul.paths import Segment, path
from controlplane.consul.rows import Rows
from controlplane.consul.settings import ConsulSettings
from harness.certificates import Authority, Mistakes
from harness.meshes import instance
from harness.servers import MANAGEMENT_TOKEN, ConsulServer, consul_server, eventually
from lictor.up.ports import free_ports
from policies.errors import (
    CatalogBadAnswer,
    CatalogError,
    CatalogFault,
    CatalogForbidden,
    CatalogNotFound,
    CatalogRateLimited,
    CatalogRefused,
    CatalogTimedOut,
    CatalogUnreachable,
)
from policies.watches import (
    ChainWatch,
    DefaultActionWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    MeshWatch,
    RegistrationWatch,
    RootsWatch,
    Watch,
)


def catalog(server: ConsulServer, **more: Any) -> Catalog:
    return Catalog(ConsulSettings(server.http_addr, token=server.token, **more))


def definition(name: str, port: int = 1234) -> dict[str, object]:
    return {"Name": name, "ID": f"{name}-1", "Port": port, "Meta": {"version": "v1"}}


# --- the real agent ---------------------------------------------------------------------------------------------


async def test_everything_that_a_proxy_watches_can_be_read(consul: ConsulServer) -> None:
    consul.write({"Kind": "ingress-gateway", "Name": "cat-edge", "Listeners": []})
    async with catalog(consul) as agent:
        await agent.register(definition("cat-web"))
        proxy = {
            "Kind": "connect-proxy",
            "Name": "cat-web-proxy",
            "ID": "cat-web-proxy",
            "Port": 2345,
            "Proxy": {"DestinationServiceName": "cat-web", "DestinationServiceID": "cat-web-1"},
        }
        await agent.register(proxy)
        for watch in (
            RootsWatch(),
            RegistrationWatch("cat-web-proxy"),
            IntentionsWatch("cat-web"),
            DefaultActionWatch("cat-web"),
            MeshWatch(),
            ChainWatch("cat-web", "cat-web"),
            ChainWatch("cat-web", "cat-web", "", "http", 250),
            EndpointsWatch("cat-web"),
            IngressWatch("cat-edge"),
            GatewayServicesWatch("cat-edge"),
        ):
            answer = await agent.read(watch, "", 1)
            assert answer.cursor or isinstance(watch, DefaultActionWatch), watch
        chain = (await agent.read(ChainWatch("cat-web", "cat-web", "", "http", 250), "", 1)).data
        assert chain["Protocol"] == "http"
        assert next(iter(chain["Targets"].values()))["ConnectTimeout"] in {"250ms", 250_000_000}
        rows = (await agent.read(EndpointsWatch("cat-web"), "", 1)).data
        assert [row["Service"]["ID"] for row in rows] == ["cat-web-proxy"]
        for service_id in ("cat-web-proxy", "cat-web-1"):
            await agent.deregister(service_id)


async def test_a_blocking_read_answers_when_something_changed(consul: ConsulServer) -> None:
    async with catalog(consul) as agent:
        watch = IntentionsWatch("cat-blocked")
        first = await agent.read(watch, "", 10)
        waiting = asyncio.create_task(agent.read(watch, first.cursor, 10))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        entry = {"Kind": "service-intentions", "Name": "cat-blocked", "Sources": [{"Name": "a", "Action": "allow"}]}
        await asyncio.to_thread(consul.write, entry)
        async with asyncio.timeout(10):
            answer = await waiting
        assert [row["SourceName"] for row in answer.data] == ["a"]
        assert int(answer.cursor) > int(first.cursor)


async def test_a_blocking_read_ends_after_its_wait(consul: ConsulServer) -> None:
    async with catalog(consul) as agent:
        first = await agent.read(RootsWatch(), "", 1)
        async with asyncio.timeout(10):
            again = await agent.read(RootsWatch(), first.cursor, 0.5)
        assert again.data == first.data


async def test_an_entry_that_is_not_there_is_none_and_its_coming_is_waited_for(consul: ConsulServer) -> None:
    async with catalog(consul) as agent:
        watch = IngressWatch("cat-late")
        first = await agent.read(watch, "", 10)
        assert first.data is None
        assert first.cursor
        waiting = asyncio.create_task(agent.read(watch, first.cursor, 10))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        await asyncio.to_thread(consul.write, {"Kind": "ingress-gateway", "Name": "cat-late", "Listeners": []})
        async with asyncio.timeout(10):
            assert (await waiting).data["Name"] == "cat-late"


async def test_registering_twice_is_one_registration_and_deregistering_twice_is_fine(consul: ConsulServer) -> None:
    async with catalog(consul) as agent:
        await agent.register(definition("cat-twice"))
        await agent.register(definition("cat-twice", 99))
        assert (await agent.service("cat-twice-1"))["Port"] == 99
        await agent.maintenance("cat-twice-1", enable=True, reason="for a test, with spaces & signs")
        assert (await agent.services())["cat-twice-1"]["Port"] == 99
        await agent.maintenance("cat-twice-1", enable=False, reason="")
        await agent.deregister("cat-twice-1")
        await agent.deregister("cat-twice-1")
        with pytest.raises(CatalogNotFound):
            await agent.service("cat-twice-1")


@pytest.mark.parametrize("name", ["../../v1/agent/self", "..", ".", "", "a/b", "a\\b", "a\x00b"])
async def test_no_name_can_climb_out_of_its_path(consul: ConsulServer, name: str) -> None:
    async with catalog(consul) as agent:
        with pytest.raises(CatalogRefused):
            await agent.service(name)
        with pytest.raises(CatalogRefused):
            await agent.deregister(name)


@pytest.mark.parametrize("name", ["a b", "a?x=1", "a#b", "é", "a%2fb"])
async def test_odd_names_reach_the_agent_as_they_are(consul: ConsulServer, name: str) -> None:
    async with catalog(consul) as agent:
        with pytest.raises(CatalogNotFound):
            await agent.service(name)
    assert path("agent/service", Segment(name)).startswith("/v1/agent/service/")


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_a_missing_token_sees_nothing_and_is_told_so(consul_with_acls: ConsulServer) -> None:
    async with Catalog(ConsulSettings(consul_with_acls.http_addr)) as agent:
        with pytest.raises(CatalogForbidden):
            await agent.register(definition("cat-none"))
        with pytest.raises(CatalogForbidden):
            await agent.read(EndpointsWatch("cat-none"), "", 1)
    async with Catalog(ConsulSettings(consul_with_acls.http_addr, token="no-such-token")) as agent:
        with pytest.raises(CatalogForbidden) as caught:
            await agent.read(IntentionsWatch("x"), "", 1)
        assert "no-such-token" not in str(caught.value)


async def test_rows_hidden_by_acls_are_noticed(consul_with_acls: ConsulServer) -> None:
    management = catalog(consul_with_acls)
    async with management:
        proxy = {"Kind": "connect-proxy", "Name": "hid-proxy", "ID": "hid-proxy", "Port": 1}
        await management.register({**proxy, "Proxy": {"DestinationServiceName": "hid"}})
        rules = 'service_prefix "" { policy = "read" }'  # but no node:read, which a row needs as well
        consul_with_acls.api("acl/policy", "PUT", {"Name": "no-nodes", "Rules": rules})
        made = consul_with_acls.api("acl/token", "PUT", {"Policies": [{"Name": "no-nodes"}]})
        async with Catalog(ConsulSettings(consul_with_acls.http_addr, token=made["SecretID"])) as blind:
            answer = await blind.read(EndpointsWatch("hid"), "", 1)
            assert answer.data == []
            assert answer.filtered
        await management.deregister("hid-proxy")


async def test_services_of_a_gateway_hidden_by_acls_are_noticed(consul_with_acls: ConsulServer) -> None:
    consul_with_acls.write(
        {"Kind": "service-defaults", "Name": "hid-api", "Protocol": "http"},
        {
            "Kind": "ingress-gateway",
            "Name": "hid-edge",
            "Listeners": [{"Port": 8080, "Protocol": "http", "Services": [{"Name": "hid-api"}]}],
        },
    )
    rules = 'service "hid-edge" { policy = "write" }'
    consul_with_acls.api("acl/policy", "PUT", {"Name": "edge-alone", "Rules": rules})
    made = consul_with_acls.api("acl/token", "PUT", {"Policies": [{"Name": "edge-alone"}]})
    async with catalog(consul_with_acls) as agent:
        assert (await agent.read(GatewayServicesWatch("hid-edge"), "", 1)).data
    async with Catalog(ConsulSettings(consul_with_acls.http_addr, token=made["SecretID"])) as blind:
        answer = await blind.read(GatewayServicesWatch("hid-edge"), "", 1)
        assert (answer.data, answer.filtered) == ([], True)


async def test_a_rotated_token_file_is_taken_up(consul_with_acls: ConsulServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("wrong")
    async with Catalog(ConsulSettings(consul_with_acls.http_addr, token_file=str(file))) as agent:
        with pytest.raises(CatalogForbidden):
            await agent.register(definition("cat-rotated"))
        file.write_text(MANAGEMENT_TOKEN + "\n")
        await agent.register(definition("cat-rotated"))
        await agent.deregister("cat-rotated-1")


# --- TLS to the agent ---------------------------------------------------------------------------------------------


async def test_an_https_agent_is_spoken_to_with_its_ca_and_our_certificate(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    server = authority.leaf("server", Mistakes(dns=("server.dc1.consul", "localhost")))
    client = authority.leaf("client")
    for name, text in (
        ("ca", authority.pem),
        ("server", server.chain_pem),
        ("server-key", server.key_pem.decode()),
        ("client", client.chain_pem),
        ("client-key", client.key_pem.decode()),
        ("other", stranger.pem),
    ):
        (tmp_path / f"{name}.pem").write_text(text)
    (https,) = free_ports(1)
    tls = {
        "ca_file": str(tmp_path / "ca.pem"),
        "cert_file": str(tmp_path / "server.pem"),
        "key_file": str(tmp_path / "server-key.pem"),
        "verify_incoming": True,
    }
    with consul_server(settings={"ports": {"https": https}, "tls": {"https": tls}}):
        files: dict[str, Any] = {
            "ca_file": str(tmp_path / "ca.pem"),
            "client_cert": str(tmp_path / "client.pem"),
            "client_key": str(tmp_path / "client-key.pem"),
            "tls_server_name": "server.dc1.consul",
        }
        async with Catalog(ConsulSettings(f"https://127.0.0.1:{https}", **files)) as agent:
            assert (await agent.roots())["TrustDomain"]
        for wrong in (
            {"ca_file": str(tmp_path / "other.pem")},
            {"client_cert": "", "client_key": ""},
            {"tls_server_name": "x"},
        ):
            async with Catalog(ConsulSettings(f"https://127.0.0.1:{https}", **{**files, **wrong})) as agent:
                with pytest.raises(CatalogUnreachable):
                    await agent.roots()


# --- a faulty agent -----------------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_ROOTS = {"TrustDomain": "", "Roots": None}
EVERY_WATCH: tuple[Watch, ...] = (
    RootsWatch(),
    RegistrationWatch("web-sidecar-proxy"),
    IntentionsWatch("api"),
    DefaultActionWatch("api"),
    MeshWatch(),
    ChainWatch("api", "api"),
    ChainWatch("api", "api", "", "http", 250),
    EndpointsWatch("api"),
    IngressWatch("edge"),
    GatewayServicesWatch("edge"),
)


@contextlib.asynccontextmanager
async def faulty(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Catalog]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Catalog(ConsulSettings(f"127.0.0.1:{port}", token="s3cret")) as agent:
            yield agent
    finally:
        await runner.cleanup()


def always(status: int, text: str = "", headers: dict[str, str] | None = None) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "No cluster leader", CatalogFault),
        (503, "", CatalogFault),
        (429, "Your IP is issuing too many concurrent connections", CatalogRateLimited),
        (403, "Permission denied", CatalogForbidden),
        (400, "Bad request", CatalogRefused),
        (301, "", CatalogRefused),
        (200, "<html>a proxy's page</html>", CatalogBadAnswer),
        (200, '{"half": ', CatalogBadAnswer),
    ],
)
async def test_every_answer_that_is_none_is_a_typed_error(status: int, text: str, kind: type[CatalogError]) -> None:
    async with faulty(always(status, text)) as agent:
        with pytest.raises(kind) as caught:
            await agent.roots()
    assert "/v1/agent/connect/ca/roots" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_redirect_is_never_followed_with_the_token() -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/v1/elsewhere"})

    async with faulty(redirect) as agent:
        with pytest.raises(CatalogRefused):
            await agent.roots()
    assert asked == ["/v1/agent/connect/ca/roots"]


@pytest.mark.parametrize("watch", EVERY_WATCH, ids=repr)
@pytest.mark.parametrize("text", ["null", "[]", "{}", "true", '"text"', "[null]", '{"api": 5}', "<html>"])
async def test_garbage_is_never_heard_as_nothing(watch: Watch, text: str) -> None:
    """`[]` is good news for a list of instances or services and for nothing else."""
    async with faulty(always(200, text, {"X-Consul-Index": "7", "X-Consul-ContentHash": "7"})) as agent:
        if text == "[]" and isinstance(watch, EndpointsWatch | GatewayServicesWatch):
            assert (await agent.read(watch, "", 1)).data == []
            return
        with pytest.raises(CatalogBadAnswer):
            await agent.read(watch, "", 1)


async def test_a_404_that_is_not_consuls_does_not_take_an_entry_away() -> None:
    async with faulty(always(404, "404 page not found")) as agent:
        for watch in (MeshWatch(), IngressWatch("edge")):
            with pytest.raises(CatalogBadAnswer):
                await agent.read(watch, "", 1)


async def test_garbage_at_the_start_is_asked_again_about() -> None:
    async with faulty(always(200, "null")) as agent:
        for asking in (agent.services(), agent.service("web-1"), agent.roots(), agent.own_chain("web")):
            with pytest.raises(CatalogBadAnswer) as caught:
                await asking
            assert not caught.value.terminal


async def test_a_chain_answer_without_a_chain_is_a_bad_answer() -> None:
    async with faulty(always(200, "{}")) as agent:
        with pytest.raises(CatalogBadAnswer, match="expected an object with Chain"):
            await agent.own_chain("x")


async def test_an_answer_that_breaks_off_is_unreachable() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with faulty(cut) as agent:
        with pytest.raises(CatalogUnreachable):
            await agent.roots()


async def test_an_agent_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.consul.client.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("controlplane.consul.client.SLACK_SECONDS", 0.2)

    over = asyncio.Event()

    async def stall(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with faulty(stall) as agent:
        with pytest.raises(CatalogTimedOut):
            await agent.roots()
        with pytest.raises(CatalogTimedOut):
            await agent.read(RootsWatch(), "5", 0.2)
        over.set()


async def test_nobody_there_is_unreachable() -> None:
    (port,) = free_ports(1)
    async with Catalog(ConsulSettings(f"http://user:secret@127.0.0.1:{port}")) as agent:
        with pytest.raises(CatalogUnreachable) as caught:
            await agent.roots()
    assert caught.value.detail == f"no agent answers at 127.0.0.1:{port}: Connection refused"
    async with Catalog(ConsulSettings("unix:///nowhere/agent.sock")) as agent:
        with pytest.raises(CatalogUnreachable, match=r"no agent answers at /nowhere/agent\.sock: No such file"):
            await agent.roots()
    async with Catalog(ConsulSettings("nobody.invalid:8500")) as agent:
        with pytest.raises(CatalogUnreachable, match=r"no agent answers at nobody\.invalid:8500: \w+"):
            await agent.roots()


async def test_a_large_answer_is_read_whole() -> None:
    rows = [{"RootCert": str(number), "Text": "x" * 100} for number in range(5000)]
    async with faulty(always(200, json.dumps({"TrustDomain": "t", "Roots": rows}))) as agent:
        assert len((await agent.roots())["Roots"]) == 5000


async def test_many_instances_are_decoded_by_whoever_goes_through_them() -> None:
    rows = [instance("api", 1000 + number, number) for number in range(300)]
    async with faulty(always(200, json.dumps(rows), {"X-Consul-Index": "7"})) as agent:
        answer = await agent.read(EndpointsWatch("api"), "", 1)
        assert isinstance(answer.data, Rows)
        assert (list(answer.data), answer.cursor) == (rows, "7")
    async with faulty(always(200, json.dumps({"Chain": "x" * 100_000}))) as agent:
        answer = await agent.read(EndpointsWatch("api"), "", 1)
        with pytest.raises(CatalogBadAnswer):
            list(answer.data)


async def test_the_environment_of_this_process_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://192.0.2.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "other")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:2")
    seen: list[str | None] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("X-Consul-Token"))
        return web.json_response(NO_ROOTS)

    async with faulty(note) as agent:
        await agent.roots()
        await agent.maintenance("x", enable=True, reason="")
    assert seen == ["s3cret", "s3cret"]


@pytest.mark.parametrize(("cursor", "limit"), [("1", 48), ("", 12)])
async def test_reads_of_upstreams_never_take_every_connection_of_the_agent(cursor: str, limit: int) -> None:
    waiting, ended = list[str](), asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        waiting.append(request.path)
        await ended.wait()
        return web.json_response([], headers={"X-Consul-Index": "1"})

    async with faulty(hold) as agent:
        upstreams = [asyncio.create_task(agent.read(EndpointsWatch(f"s{n}"), cursor, 60)) for n in range(200)]
        await eventually(lambda: len(waiting) >= limit)
        await asyncio.sleep(0.1)  # more would come now
        assert len(waiting) == limit
        ended.set()
        await asyncio.gather(*upstreams)
    assert len(waiting) == 200


async def test_what_a_proxy_must_hear_of_itself_does_not_queue_behind_its_upstreams() -> None:
    queued, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "health" in request.path:
            queued.set()
            await ended.wait()
            return web.json_response([], headers={"X-Consul-Index": "1"})
        return web.json_response(NO_ROOTS, headers={"X-Consul-Index": "1"})

    async with faulty(answer) as agent:
        upstreams = [asyncio.create_task(agent.read(EndpointsWatch(f"s{number}"), "1", 60)) for number in range(100)]
        await queued.wait()
        async with asyncio.timeout(10):
            await agent.read(RootsWatch(), "1", 1)
        ended.set()
        await asyncio.gather(*upstreams)
