"""The egress policy: hosts outside, asked for through the gateway as a forward proxy, and every way around it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.certificates import TRUST_DOMAIN, Authority, client_context
from harness.dns import Names
from harness.halves import Half, half
from harness.meshes import Json, intention, link, outside, proxy, sidecar, terminating
from harness.outside import server_context, write_leaf, write_root
from harness.servers import eventually
from harness.wire import App, Message, Wire, echo_server, say, serving
from lictor.up.ports import free_ports
from policies.watches import IntentionsWatch, OutsideWatch, TerminatingWatch

API, MAIL = "api.example.com", "mail.example.com"
SNI = f"egress.default.dc1.internal.{TRUST_DOMAIN}"
ALLOW_WEB, DENY_WEB = intention("web", "ext", "allow"), intention("web", "ext", "deny")


@dataclass
class World:
    """A gateway that is linked to `ext` (http, api.example.com) and `mail` (tcp, mail.example.com)."""

    authority: Authority
    gate: Half
    api_port: int
    mail_port: int
    dns: Names = field(default_factory=Names)

    async def peer(self, source: str = "web") -> Wire:
        """Return a connection of a mesh peer that speaks to the gateway without a sidecar."""
        return await Wire.open(self.gate.port("egress"), client_context(self.authority, source), SNI)

    async def ask(self, raw: str, source: str = "web") -> Message:
        """Ask once. `@api` and `@mail` stand for the authorities that are linked."""
        async with await self.peer(source) as wire:
            return await wire.ask(self.raw(raw))

    def raw(self, text: str) -> bytes:
        known = {"@api": f"{API}:{self.api_port}", "@mail": f"{MAIL}:{self.mail_port}", "@port": str(self.api_port)}
        for word, meant in known.items():
            text = text.replace(word, meant)
        return text.replace("\n", "\r\n").encode() + b"\r\n\r\n"

    def hear(self, *intentions: Json, service: str = "ext") -> None:
        self.gate.member.hear(IntentionsWatch(service), list(intentions))
        self.gate.follow()

    @contextlib.asynccontextmanager
    async def app(self, source: str = "web") -> AsyncIterator[Wire]:
        """Run a sidecar; yield a connection of its app to the loopback proxy."""
        (port,) = free_ports(1)
        member = sidecar(source, self.authority, upstreams={"egress": port}, proxies=["egress"])
        proxy(member, "egress", self.gate.port("egress"))
        async with half(member) as side, await Wire.open(side.port("proxy")) as wire:
            yield wire


@contextlib.asynccontextmanager
async def world(
    authority: Authority,
    api_port: int,
    mail_port: int = 9,
    *,
    intentions: tuple[Json, ...] = (ALLOW_WEB,),
    ext: Json | None = None,
) -> AsyncIterator[World]:
    dns = Names({API: ("127.0.0.1",), MAIL: ("127.0.0.1",)})
    links: list[Json] = [{"Name": "ext", **(ext or {})}, {"Name": "mail"}]
    member = terminating("egress", authority, links, config={"forward_proxy": True})
    link(member, "ext", intentions=intentions)
    member.hear(OutsideWatch("ext"), [outside("ext", api_port, Address=API)])
    link(member, "mail", protocol="tcp", intentions=[intention("web", "mail", "allow")])
    member.hear(OutsideWatch("mail"), [outside("mail", mail_port, Address=MAIL)])
    async with half(member, dns) as gate:
        await eventually(lambda: gate.dataplane.settled)
        yield World(authority, gate, api_port, mail_port, dns)


# --- what is open ----------------------------------------------------------------------------------------------------


async def test_an_app_opens_a_tunnel_through_its_sidecar_and_the_gateway(authority: Authority) -> None:
    async with echo_server() as port, world(authority, 9, port) as w, w.app() as wire:
        await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail") + b"sent ahead")
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert await wire.read() == b"sent ahead"
        await wire.send(b"x" * 300_000)
        got = b""
        while len(got) < 300_000:
            got += await wire.read()
        assert got == b"x" * 300_000


async def test_tls_in_a_tunnel_is_the_apps_own(authority: Authority, tmp_path: Path) -> None:
    """Even where the link has TLS origination: the gateway adds none to it."""
    others = Authority("outside")
    context, seen = server_context(write_leaf(tmp_path, others, "server", dns=(API,)))
    async with App().running(context=context) as app:
        async with (
            world(authority, app.port, ext={"CAFile": write_root(tmp_path, Authority("nobody"))}) as w,
            w.app() as wire,
        ):
            await wire.send(w.raw("CONNECT @api HTTP/1.1\nHost: @api"))
            await wire.until(b"\r\n\r\n")
            trusting = ssl.create_default_context(cadata=others.pem)
            await wire.writer.start_tls(trusting, server_hostname=API)
            assert (await wire.ask(w.raw("GET / HTTP/1.1\nHost: x"))).body == b"hello"
    assert seen.names == [API]


async def test_each_way_of_a_tunnel_ends_by_itself(authority: Authority) -> None:
    heard = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"z" * 500_000)
        writer.write_eof()
        assert await reader.read() == b"y" * 500_000
        heard.set()

    async with serving(talk) as port, world(authority, 9, port) as w, w.app() as wire:
        await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail"))
        await wire.until(b"\r\n\r\n")
        assert len(await wire.rest()) == 500_000
        await wire.send(b"y" * 500_000)
        wire.writer.write_eof()
        async with asyncio.timeout(5):
            await heard.wait()
        (listener,) = w.gate.dataplane.listeners.values()
        await eventually(lambda: not listener.connections)


async def test_a_caller_of_a_tunnel_that_has_said_all_hears_the_rest(authority: Authority) -> None:
    async with echo_server() as port, world(authority, 9, port) as w, w.app() as wire:
        await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail"))
        await wire.until(b"\r\n\r\n")
        await wire.send(b"x" * 300_000)
        wire.writer.write_eof()
        assert await wire.rest() == b"x" * 300_000 + b"bye"
        (listener,) = w.gate.dataplane.listeners.values()
        await eventually(lambda: not listener.connections)


async def test_a_tunnel_through_which_nothing_comes_is_cut(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.upstream.TUNNEL_SECONDS", 60.0)
    async with echo_server() as port, world(authority, 9, port) as w, await w.peer() as wire:
        await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail"))
        await wire.until(b"\r\n\r\n")
        for _ in range(3):
            w.gate.later(50)
            await wire.send(b"ping")
            assert await wire.read() == b"ping"
        w.gate.later(61)
        assert await wire.rest() == b""
        assert w.gate.metrics.for_http("egress").reasons == {"idle_tunnel": 1}


async def test_a_request_in_the_clear_arrives_in_origin_form_under_the_name_of_the_host(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w, w.app() as wire:
        raw = "GET http://@api/a?b=c HTTP/1.1\nHost: @api\nProxy-Authorization: Basic x\nProxy-Connection: keep-alive"
        for _ in range(2):
            answer = await wire.ask(w.raw(raw))
            assert (answer.status, answer.body) == (200, b"hello")
    asked = app.requests[0]
    assert (asked.target, asked.all("host")) == ("/a?b=c", [API])
    assert asked.get("proxy-authorization") is None
    assert asked.get("proxy-connection") is None
    assert asked.get("x-forwarded-client-cert") is None, "who in the mesh asks is nobody's concern outside"
    assert app.connections == 1


async def test_without_host_rewriting_the_host_stays(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port, ext={"DisableAutoHostRewrite": True}) as w:
        assert (await w.ask("GET http://@api/ HTTP/1.1\nHost: @api")).status == 200
        assert app.requests[0].all("host") == [f"{API}:{app.port}"]


async def test_what_is_asked_in_the_clear_goes_out_by_tls_where_the_link_says_so(
    authority: Authority, tmp_path: Path
) -> None:
    others = Authority("outside")
    context, _ = server_context(write_leaf(tmp_path, others, "server", dns=(API,)), alpn=["http/1.1"])
    how = {"CAFile": write_root(tmp_path, others), "SNI": API}
    async with App().running(context=context) as app, world(authority, app.port, ext=how) as w, w.app() as wire:
        assert (await wire.ask(w.raw("GET http://@api/ HTTP/1.1\nHost: @api"))).body == b"hello"
    wrong = {**how, "SNI": "other.example.com"}
    async with App().running(context=context) as app, world(authority, app.port, ext=wrong) as w:
        answer = await w.ask("GET http://@api/ HTTP/1.1\nHost: @api")
        assert (answer.status, answer.get("x-lictor-reason")) == (503, "remote_connection_failure")
        assert answer.body.endswith(b"reset reason: remote connection failure")
        assert app.requests == []


async def test_names_are_asked_for_in_any_case_and_with_a_dot(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w:
        for name in (f"API.Example.COM:{app.port}", f"{API}.:{app.port}"):
            assert (await w.ask(f"GET http://{name}/ HTTP/1.1\nHost: {name.lower()}")).status == 200


async def test_each_request_of_a_connection_is_judged_for_its_own_host(authority: Authority) -> None:
    async with App(say(b"api")).running() as app, App(say(b"mail")).running() as mail:
        async with world(authority, app.port, mail.port) as w, await w.peer() as wire:
            for _ in range(2):
                assert (await wire.ask(w.raw("GET http://@api/ HTTP/1.1\nHost: @api"))).body == b"api"
                assert (await wire.ask(w.raw("GET http://@mail/ HTTP/1.1\nHost: @mail"))).body == b"mail"
                w.hear(DENY_WEB)
                assert (await wire.ask(w.raw("GET http://@api/ HTTP/1.1\nHost: @api"))).status == 403
                assert (await wire.ask(w.raw("GET http://@mail/ HTTP/1.1\nHost: @mail"))).body == b"mail"
                w.hear(ALLOW_WEB)


async def test_a_host_that_cannot_be_reached_is_503(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with world(authority, dead, dead) as w:
        assert (await w.ask("GET http://@api/ HTTP/1.1\nHost: @api")).status == 503
        assert (await w.ask("CONNECT @mail HTTP/1.1\nHost: @mail")).status == 503
        w.gate.member.hear(OutsideWatch("mail"), [outside("mail", dead, 1, "critical", Address=MAIL)])
        w.gate.follow()
        answer = await w.ask("CONNECT @mail HTTP/1.1\nHost: @mail")
        assert (answer.status, answer.body) == (503, b"no healthy upstream")


# --- what is not -----------------------------------------------------------------------------------------------------

OTHER_HOSTS = [
    "evil.example.com:@port",  # another host
    f"evil.{API}:@port",
    f"{API}.evil.example.com:@port",
    f"{API}:1",  # another port
    f"{MAIL}:@port",  # the port of another service
    "127.0.0.1:@port",  # what a linked name stands for
    "[::1]:@port",
    "[::ffff:127.0.0.1]:@port",
    "2130706433:@port",
    "0x7f.1:@port",
    "localhost:@port",
    "169.254.169.254:80",  # metadata of a cloud
    "127.0.0.1:8500",  # ports of the mesh itself
    "127.0.0.1:19000",
    "ext:@port",
    f"ext.default.dc1.internal.{TRUST_DOMAIN}:@port",
    f"{SNI}:443",
]


async def test_every_other_host_is_denied_and_told_with_who_asked(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w:
        for host in OTHER_HOSTS:
            for line in (f"CONNECT {host} HTTP/1.1", f"GET http://{host}/ HTTP/1.1"):
                with capture_logs() as logs:
                    answer = await w.ask(f"{line}\nHost: {host}")
                assert (answer.status, answer.body) == (403, b"RBAC: access denied"), line
                told = [one for one in logs if one["event"] == "egress_denied"]
                assert [(one["source"], one["host"]) for one in told] == [("web", host.replace("@port", str(app.port)))]
        assert app.connections == 0
        assert w.gate.metrics.for_http("egress").reasons == {"host_not_linked": 2 * len(OTHER_HOSTS)}


async def test_who_is_denied_again_and_again_fills_no_log(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w, w.app() as wire:
        with capture_logs() as logs:
            for host in ("a.example.com", "b.example.com"):
                for _ in range(20):
                    assert (await wire.ask(w.raw(f"GET http://{host}/ HTTP/1.1\nHost: {host}"))).status == 403
        told = [(one["host"], one["untold"]) for one in logs if one["event"] == "egress_denied"]
        assert told == [("a.example.com", 0), ("b.example.com", 0)]
        assert w.gate.metrics.for_http("egress").reasons == {"host_not_linked": 40}


GAMES = {
    "another Host": ("GET http://@api/ HTTP/1.1\nHost: @mail", 400),
    "another Host for a tunnel": ("CONNECT @api HTTP/1.1\nHost: evil.example.com:443", 400),
    "a Host without the port": (f"GET http://@api/ HTTP/1.1\nHost: {API}", 400),
    "two Hosts": ("GET http://@api/ HTTP/1.1\nHost: @api\nHost: @mail", 400),
    "no Host": ("GET http://@api/ HTTP/1.1\nX: y", 400),
    "no Host for a tunnel": ("CONNECT @api HTTP/1.1\nX: y", 400),
    "a user": ("GET http://user@@api/ HTTP/1.1\nHost: @api", 400),
    "a user that looks like the host": ("GET http://@api@evil.example.com/ HTTP/1.1\nHost: evil.example.com", 400),
    "a user for a tunnel": ("CONNECT user@@api HTTP/1.1\nHost: user@@api", 400),
    "https in the absolute form": ("GET https://@api/ HTTP/1.1\nHost: @api", 400),
    "another scheme": ("GET ftp://@api/ HTTP/1.1\nHost: @api", 400),
    "the origin form": ("GET / HTTP/1.1\nHost: @api", 400),
    "two slashes": ("GET //@api/ HTTP/1.1\nHost: @api", 400),
    "the asterisk form": ("OPTIONS * HTTP/1.1\nHost: @api", 404),
    "a path for a tunnel": ("CONNECT /admin HTTP/1.1\nHost: /admin", 400),
    "a URL for a tunnel": ("CONNECT http://@api/ HTTP/1.1\nHost: @api", 400),
    "a fragment": ("GET http://@api/#x HTTP/1.1\nHost: @api", 400),
    "a backslash": ("GET http://@api\\@evil.example.com/ HTTP/1.1\nHost: @api", 400),
    "a tunnel with a body": ("CONNECT @api HTTP/1.1\nHost: @api\nContent-Length: 3\n\nabc", 400),
    "a tunnel in chunks": ("CONNECT @api HTTP/1.1\nHost: @api\nTransfer-Encoding: chunked\n\n0", 400),
    "an old version": ("CONNECT @api HTTP/0.9\nHost: @api", 426),
    "another Host in an old version": ("CONNECT @api HTTP/1.0\nHost: @mail", 400),
    "a tunnel without a port": (f"CONNECT {API} HTTP/1.1\nHost: {API}", 403),
    "port 0": (f"CONNECT {API}:0 HTTP/1.1\nHost: {API}:0", 403),
    "a port with a zero before it": (f"CONNECT {API}:0@port HTTP/1.1\nHost: {API}:0@port", 400),
}


async def test_who_plays_games_with_what_is_asked_for_gets_nowhere(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w, w.app() as wire:
        port = wire.writer.get_extra_info("peername")[1]
        for name, (text, status) in GAMES.items():
            assert (await w.ask(text)).status == status, name
            async with await Wire.open(port) as through_the_sidecar:
                assert (await through_the_sidecar.ask(w.raw(text))).status == status, name
        assert app.connections == 0


async def test_an_identity_that_intentions_do_not_allow_is_denied(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port, app.port) as w:
        for text in ("CONNECT @api", "GET http://@api/", "CONNECT @mail", "GET http://@mail/"):
            with capture_logs() as logs:
                answer = await w.ask(
                    f"{text} HTTP/1.1\nHost: {text.split('/')[-2] if '/' in text else text[8:]}", "other"
                )
            assert (answer.status, answer.get("x-lictor-reason")) == (403, "denied_by_intention")
            (told,) = [one for one in logs if one["event"] == "egress_denied"]
            assert (told["source"], told["because"]) == (
                "other",
                "no intention has source other or *: the default is deny",
            )
        assert app.connections == 0


async def test_where_an_intention_names_requests_each_is_judged_and_no_tunnel_opened(authority: Authority) -> None:
    rules = intention("web", "ext", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/ok"}}])
    async with App().running() as app, world(authority, app.port, intentions=(rules,)) as w:
        for path, status in (("/ok/1", 200), ("/no", 403), ("/ok/../no", 403), ("/ok/%2e%2e/no", 403), ("", 403)):
            assert (await w.ask(f"GET http://@api{path} HTTP/1.1\nHost: @api")).status == status
        assert (await w.ask("CONNECT @api HTTP/1.1\nHost: @api")).status == 403
        assert [one.target for one in app.requests] == ["/ok/1"]


async def test_what_was_sent_ahead_of_a_denied_tunnel_is_no_request(authority: Authority) -> None:
    async with App().running() as app, world(authority, app.port) as w, await w.peer() as wire:
        ahead = w.raw("GET http://@api/ HTTP/1.1\nHost: @api")
        await wire.send(w.raw("CONNECT evil.example.com:443 HTTP/1.1\nHost: evil.example.com:443") + ahead)
        said = await wire.rest()
        assert said.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in said
        assert app.requests == []


async def test_nor_is_what_was_sent_ahead_of_a_tunnel_that_cannot_be_made(authority: Authority) -> None:
    (dead,) = free_ports(1)
    async with App().running() as app, world(authority, app.port, dead) as w:
        ahead = w.raw("GET http://@api/ HTTP/1.1\nHost: @api")
        async with await w.peer() as straight, w.app() as through_the_sidecar:
            for wire in (straight, through_the_sidecar):
                await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail") + ahead)
                said = await wire.rest()
                assert said.startswith(b"HTTP/1.1 503 ")
                assert said.count(b"HTTP/1.1 ") == 1
        assert app.requests == []


async def test_a_gateway_that_is_no_proxy_knows_nobody_of_its_own_name(authority: Authority) -> None:
    member = link(terminating("egress", authority, [{"Name": "ext"}]), "ext", [9], intentions=[ALLOW_WEB])
    async with half(member) as gate:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await Wire.open(gate.port("egress"), client_context(authority, "web"), SNI)
        await eventually(lambda: gate.refused() == {"unknown_sni": 1})


async def test_a_linked_services_own_door_is_no_proxy(authority: Authority) -> None:
    """Who is allowed to one service cannot name another host there."""
    async with App().running() as app, world(authority, app.port) as w:
        name = f"ext.default.dc1.internal.{TRUST_DOMAIN}"
        async with await Wire.open(w.gate.port("egress"), client_context(authority, "web"), name) as wire:
            assert (await wire.ask(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail"))).status == 404
        async with await Wire.open(w.gate.port("egress"), client_context(authority, "web"), name) as wire:
            assert (await wire.ask(w.raw("GET http://evil.example.com/ HTTP/1.1\nHost: x"))).status == 200
        assert [(one.target, one.get("host")) for one in app.requests] == [("/", API)]


# --- what was open and is not any more -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tunnel(w: World, source: str = "web") -> AsyncIterator[Wire]:
    async with await w.peer(source) as wire:
        await wire.send(w.raw("CONNECT @mail HTTP/1.1\nHost: @mail"))
        await wire.until(b"\r\n\r\n")
        yield wire


@pytest.mark.parametrize(
    "ends",
    [
        lambda w: w.hear(intention("web", "mail", "deny"), intention("*", "mail", "allow"), service="mail"),
        lambda w: w.hear(
            intention("web", "mail", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]),
            intention("*", "mail", "allow"),
            service="mail",
        ),
    ],
    ids=["denied", "judged by request"],
)
async def test_a_tunnel_is_cut_when_it_is_denied_and_others_are_not(
    authority: Authority, ends: Callable[[World], None]
) -> None:
    async with echo_server() as port, world(authority, 9, port) as w:
        w.hear(intention("*", "mail", "allow"), service="mail")
        async with tunnel(w) as web, tunnel(w, "other") as other:
            w.hear()  # something else changes
            await web.send(b"still")
            assert await web.read() == b"still"
            with capture_logs() as logs:
                ends(w)
            assert await web.rest() == b""
            await other.send(b"here")
            assert await other.read() == b"here"
        assert [(one["what"], one["source"], one["path"]) for one in logs if one["event"] == "revoked"] == [
            ("tunnel", "web", f"{MAIL}:{port}")
        ]
        assert w.gate.metrics.for_listener("egress").revoked == {"tunnel": 1}


async def test_tunnels_to_what_is_linked_no_more_are_cut(authority: Authority) -> None:
    async with echo_server() as port, world(authority, 9, port) as w:
        async with tunnel(w) as one:
            w.gate.member.hear(TerminatingWatch("egress"), {"Name": "egress", "Services": [{"Name": "ext"}]})
            w.gate.follow()
            assert await one.rest() == b""


async def test_tunnels_to_a_host_that_left_the_catalog_are_cut(authority: Authority) -> None:
    async with echo_server() as port, world(authority, 9, port) as w:
        async with tunnel(w) as one:
            w.gate.member.hear(OutsideWatch("mail"), [outside("mail", port, Address="new.example.com")])
            w.gate.follow()
            assert await one.rest() == b""
