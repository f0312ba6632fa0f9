"""The terminating gateway: who comes out of the mesh, to which service, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from dataplane.credentials import Credential
from harness.certificates import TRUST_DOMAIN, Authority, client_context, spiffe
from harness.halves import Half, half
from harness.meshes import Json, intention, link, outside, sidecar, terminating, upstream
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, echo_server, say
from lictor.up.ports import free_ports
from policies.edge.rate_limit import Rate
from policies.edge.settings import EdgeSettings
from policies.protection import INSIDE, Protection
from policies.watches import GatewayServicesWatch, IntentionsWatch, OutsideWatch, TerminatingWatch

GET = b"GET / HTTP/1.1\r\nHost: ext\r\n\r\n"
ALLOW_WEB, DENY_WEB = intention("web", "ext", "allow"), intention("web", "ext", "deny")


def sni(service: str, subset: str = "") -> str:
    prefix = f"{subset}." if subset else ""
    return f"{prefix}{service}.default.dc1.internal.{TRUST_DOMAIN}"


@contextlib.asynccontextmanager
async def gateway(
    authority: Authority,
    ext: Iterable[int] = (),
    intentions: Iterable[Json] = (ALLOW_WEB,),
    *,
    protocol: str = "http",
    resolver: Json | None = None,
) -> AsyncIterator[Half]:
    """Run a gateway that is linked to `ext` and to `other`, which nobody may call."""
    member = terminating("egress", authority, [{"Name": "ext"}, {"Name": "other"}])
    link(member, "ext", ext, protocol=protocol, intentions=intentions, resolver=resolver)
    link(member, "other", ext)
    async with half(member) as running:
        yield running


async def dial(gate: Half, authority: Authority, source: str = "web", name: str | None = None) -> Wire:
    return await Wire.open(gate.port("egress"), client_context(authority, source), sni("ext") if name is None else name)


def permissions(*rows: tuple[str, str]) -> Json:
    """Return an intention of web with a permission for each (action, path prefix)."""
    return intention("web", "ext", permissions=[{"Action": a, "HTTP": {"PathPrefix": p}} for a, p in rows])


# --- the way out -----------------------------------------------------------------------------------------------------


async def test_an_allowed_caller_reaches_outside_and_meets_the_linked_services_own_leaf(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate, await dial(gate, authority) as wire:
        answer = await wire.ask(GET)
        certificate = wire.writer.get_extra_info("ssl_object").getpeercert()
        assert certificate["subjectAltName"] == (("URI", str(spiffe("ext"))),)
        assert (answer.status, answer.body) == (200, b"hello")
    asked = app.requests[0]
    assert asked.get("x-forwarded-client-cert") is not None
    assert f"By={spiffe('ext')};" in str(asked.get("x-forwarded-client-cert"))
    assert f"URI={spiffe('web')}" in str(asked.get("x-forwarded-client-cert"))
    assert gate.metrics.for_http("egress:ext").by_class[2] == 1


async def test_a_callers_claims_about_certificates_are_replaced(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate, await dial(gate, authority) as wire:
        forged = b"GET / HTTP/1.1\r\nHost: ext\r\nX-Forwarded-Client-Cert: URI=spiffe://admin\r\n\r\n"
        assert (await wire.ask(forged)).status == 200
    (told,) = app.requests[0].all("x-forwarded-client-cert")
    assert "admin" not in told


async def test_a_sidecar_reaches_outside_through_an_upstream_like_any_other(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        (port,) = free_ports(1)
        web = upstream(sidecar("web", authority, upstreams={"ext": port}), "ext", [gate.port("egress")])
        async with half(web) as caller, await Wire.open(caller.port("upstream")) as wire:
            answer = await wire.ask(GET)
            assert (answer.status, answer.body) == (200, b"hello")
    assert gate.refused() == {}


async def test_tcp_goes_out_too(authority: Authority) -> None:
    async with (
        echo_server() as port,
        gateway(authority, [port], protocol="tcp") as gate,
        await dial(gate, authority) as wire,
    ):
        await wire.send(b"ping")
        assert await wire.read() == b"ping"


async def test_a_subset_is_asked_for_by_its_sni(authority: Authority) -> None:
    resolver = {"Subsets": {name: {"Filter": f"Service.Meta.version == {name}"} for name in ("v1", "v2")}}
    async with App(say(b"one")).running() as one, App(say(b"two")).running() as two:
        async with gateway(authority, resolver=resolver) as gate:
            rows = [outside("ext", app.port, n, Meta={"version": f"v{n}"}) for n, app in enumerate((one, two), 1)]
            gate.member.hear(OutsideWatch("ext"), rows)
            gate.follow()
            for subset, body in (("v1", b"one"), ("v2", b"two")):
                async with await dial(gate, authority, name=sni("ext", subset)) as wire:
                    assert (await wire.ask(GET)).body == body


async def test_critical_instances_get_nothing_and_none_is_503(authority: Authority) -> None:
    async with App().running() as app, gateway(authority) as gate:
        (dead,) = free_ports(1)
        gate.member.hear(OutsideWatch("ext"), [outside("ext", dead, 1, "critical"), outside("ext", app.port, 2)])
        gate.follow()
        async with await dial(gate, authority) as wire:
            assert [(await wire.ask(GET)).status for _ in range(4)] == [200] * 4
            gate.member.hear(OutsideWatch("ext"), [outside("ext", app.port, 2, "critical")])
            gate.follow()
            answer = await wire.ask(GET)
            assert (answer.status, answer.body) == (503, b"no healthy upstream")


# --- who does not come out -------------------------------------------------------------------------------------------


STRANGE = ["ext", "ext.example.com", sni("nobody"), sni("ext", "v9"), sni("ext").replace("dc1", "dc2"), sni("egress")]


async def test_an_sni_of_no_linked_service_is_reset_without_a_word(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        for name in ("", *STRANGE):
            with pytest.raises(ConnectionResetError):
                await dial(gate, authority, name=name)
        assert gate.refused() == {"no_sni": 1, "unknown_sni": len(STRANGE)}
    assert app.connections == 0


async def test_an_sni_is_taken_in_any_case(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        async with await dial(gate, authority, name=sni("ext").upper()) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_what_is_no_tls_is_closed(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        async with await Wire.open(gate.port("egress")) as wire:
            await wire.send(GET)
            assert await wire.rest() == b""
        assert gate.refused() == {"plaintext": 1}
    assert app.connections == 0


async def test_without_a_certificate_of_the_mesh_nobody_comes_in(authority: Authority) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        wire = await Wire.open(gate.port("egress"), stranger, sni("ext"))
        assert await wire.rest() == b""
        await wire.close()
        await eventually(lambda: gate.refused() == {"no_certificate": 1})
    assert app.connections == 0


DIRECT = [
    b"GET / HTTP/1.1\r\nHost: ext\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: other\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: ext\r\n\r\n",
    b"GET http://ext/ HTTP/1.1\r\nHost: ext\r\n\r\n",
    b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"CONNECT ext:443 HTTP/1.1\r\nHost: ext:443\r\n\r\n",
    b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: ext\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: ext\r\n\r\n",
]


async def test_a_caller_whom_nothing_allows_gets_nowhere(authority: Authority) -> None:
    """Neither by the SNI of a service that it may not call, nor by what it then says of where it wants to go."""
    async with App().running() as app, gateway(authority, [app.port], [intention("api", "ext", "allow")]) as gate:
        for service, request in itertools.product(("ext", "other"), DIRECT):
            async with await dial(gate, authority, "web", sni(service)) as wire:
                assert (await wire.ask(_addressed(request, app))).status in {400, 403, 404}, (service, request)
    assert app.connections == 0


async def test_where_a_request_goes_is_said_by_the_sni_alone(authority: Authority) -> None:
    """The answers are those of a sidecar's inbound listener, and whatever goes out goes to `ext`."""
    async with App(say(b"ext")).running() as ext, App(say(b"elsewhere")).running() as elsewhere:
        api = sidecar("api", authority, local_port=ext.port, intentions=[intention("web", "api", "allow")])
        async with half(api) as called, gateway(authority, [ext.port]) as gate:
            for request in DIRECT:
                answers = []
                for port, name in ((called.port("inbound"), ""), (gate.port("egress"), sni("ext"))):
                    async with await Wire.open(port, client_context(authority, "web"), name) as wire:
                        answer = await wire.ask(_addressed(request, elsewhere))
                        answers.append((answer.status, answer.body))
                assert answers[0] == answers[1], request
    assert elsewhere.connections == 0
    assert [one.target for one in ext.requests[::2]] == [one.target for one in ext.requests[1::2]]


def _addressed(request: bytes, app: App) -> bytes:
    return request % app.port if b"%d" in request else request


async def test_a_denied_tcp_caller_gets_no_byte(authority: Authority) -> None:
    async with echo_server() as port, gateway(authority, [port], [DENY_WEB], protocol="tcp") as gate:
        async with await dial(gate, authority) as wire:
            await wire.send(b"ping")
            assert await wire.rest() == b""
        assert gate.metrics.for_listener("egress:ext").denied == 1


async def test_permissions_never_let_tcp_out(authority: Authority) -> None:
    async with echo_server() as port, gateway(authority, [port], [permissions(("allow", "/"))], protocol="tcp") as gate:
        async with await dial(gate, authority) as wire:
            await wire.send(b"ping")
            assert await wire.rest() == b""


async def test_a_path_is_judged_as_it_goes_out(authority: Authority) -> None:
    """Consul's gateways let these pass an allow of `/ok`, since they never normalise."""
    async with App().running() as app, gateway(authority, [app.port], [permissions(("allow", "/ok"))]) as gate:
        async with await dial(gate, authority) as wire:
            for path in (b"/ok/../no", b"/no", b"/ok/%2e%2e/no", b"/ok/..\\no"):
                assert (await wire.ask(b"GET %b HTTP/1.1\r\nHost: ext\r\n\r\n" % path)).status == 403, path
            assert (await wire.ask(b"GET /x/../ok/./a HTTP/1.1\r\nHost: ext\r\n\r\n")).status == 200
    assert [one.target for one in app.requests] == ["/ok/a"]


async def test_a_deny_is_not_passed_by_another_spelling(authority: Authority) -> None:
    rules = permissions(("deny", "/adm"), ("allow", "/"))
    async with App().running() as app, gateway(authority, [app.port], [rules]) as gate:
        async with await dial(gate, authority) as wire:
            for path in (b"/x/../adm", b"/%61dm"):
                assert (await wire.ask(b"GET %b HTTP/1.1\r\nHost: ext\r\n\r\n" % path)).status == 403, path
    assert app.requests == []


async def test_a_denied_grpc_call_is_told_in_its_own_way(authority: Authority) -> None:
    request = b"POST /a.B/C HTTP/1.1\r\nHost: ext\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"
    async with gateway(authority, [], [DENY_WEB]) as gate, await dial(gate, authority) as wire:
        answer = await wire.ask(request, "POST")
        assert (answer.status, answer.get("grpc-status")) == (200, "7")


# --- while it runs ---------------------------------------------------------------------------------------------------


async def test_a_revoked_intention_closes_exactly_the_idle_sessions_that_it_denies(authority: Authority) -> None:
    allow = [ALLOW_WEB, intention("api", "ext", "allow")]
    async with App().running() as app, gateway(authority, [app.port], allow) as gate:
        gate.member.hear(IntentionsWatch("other"), [intention("web", "other", "allow")])
        gate.follow()
        web, api = [await dial(gate, authority, name) for name in ("web", "api")]
        elsewhere = await dial(gate, authority, "web", sni("other"))
        for wire in (web, api, elsewhere):
            assert (await wire.ask(GET)).status == 200
        gate.member.hear(IntentionsWatch("ext"), [DENY_WEB, allow[1]])
        gate.follow()
        assert await web.rest() == b""
        for wire in (api, elsewhere):
            assert (await wire.ask(GET)).status == 200
        assert dict(gate.metrics.for_listener("egress:ext").revoked) == {"session": 1}
        assert dict(gate.metrics.for_listener("egress:other").revoked) == {}
        for wire in (web, api, elsewhere):
            await wire.close()


async def test_a_revoked_intention_cuts_the_tcp_connections_that_it_denies(authority: Authority) -> None:
    allow = [ALLOW_WEB, intention("api", "ext", "allow")]
    async with echo_server() as port, gateway(authority, [port], allow, protocol="tcp") as gate:
        web, api = [await dial(gate, authority, name) for name in ("web", "api")]
        for wire in (web, api):
            await wire.send(b"ping")
            assert await wire.read() == b"ping"
        gate.member.hear(IntentionsWatch("ext"), [DENY_WEB, allow[1]])
        gate.follow()
        assert await web.rest() == b""
        await api.send(b"pong")
        assert await api.read() == b"pong"
        for wire in (web, api):
            await wire.close()


async def test_a_service_that_is_unlinked_is_closed_and_others_go_on(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        gate.member.hear(IntentionsWatch("other"), [intention("web", "other", "allow")])
        gate.follow()
        ext, other = await dial(gate, authority), await dial(gate, authority, "web", sni("other"))
        for wire in (ext, other):
            assert (await wire.ask(GET)).status == 200
        gate.member.hear(TerminatingWatch("egress"), {"Name": "egress", "Services": [{"Name": "other"}]})
        gate.follow()
        assert await ext.rest() == b""
        assert (await other.ask(GET)).status == 200
        with pytest.raises(ConnectionResetError):
            await dial(gate, authority)
        gate.follow()
        for wire in (ext, other):
            await wire.close()


async def test_a_request_under_way_to_an_unlinked_service_finishes_and_is_the_last(authority: Authority) -> None:
    go_on = asyncio.Event()

    async def slowly(side: Side, message: Message) -> bytes:
        await go_on.wait()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    async with App(slowly).running() as app, gateway(authority, [app.port]) as gate:
        async with await dial(gate, authority) as wire:
            await wire.send(GET)
            await eventually(lambda: app.requests)
            gate.member.hear(TerminatingWatch("egress"), None)
            gate.follow()
            go_on.set()
            assert (await wire.answer()).status == 200
            refused = await wire.ask(GET)
            assert (refused.status, refused.get("connection")) == (503, "close")


async def test_a_service_that_a_wildcard_finds_at_run_time_is_served_when_its_leaf_is_there(
    authority: Authority,
) -> None:
    async with App().running() as app:
        member = terminating("egress", authority, [{"Name": "*"}])
        async with half(member) as gate:
            member.hear(GatewayServicesWatch("egress"), [{"Service": {"Name": "ext"}}, {"Service": {"Name": ""}}])
            link(member, "ext", [app.port], intentions=[ALLOW_WEB], leaf=False)
            gate.follow()
            with pytest.raises(ConnectionResetError):
                await dial(gate, authority)
            assert gate.refused() == {"no_leaf": 1}
            member.renew_linked("ext")
            gate.follow()
            async with await dial(gate, authority) as wire:
                assert (await wire.ask(GET)).status == 200


async def test_a_bad_leaf_costs_only_its_service_and_the_last_good_one_goes_on(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        good = gate.live.current.linked["ext"]  # type: ignore[union-attr]
        stranger = Authority("another root")
        mine, gate.member.authority = gate.member.authority, stranger
        gate.member.renew_linked("ext")
        gate.member.authority = mine
        gate.member.renew_linked("other")
        gate.follow()
        assert [problem.where for problem in gate.credentials.problems] == ["leaf of ext"]
        assert gate.live.current is not None
        assert gate.live.current.linked["ext"] is good
        async with await dial(gate, authority) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_a_leaf_that_has_ended_answers_nobody(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate:
        monkeypatch.setattr(Credential, "ends", 0.0)
        with pytest.raises(ConnectionResetError):
            await dial(gate, authority)
        assert gate.refused() == {"no_leaf": 1}


async def test_a_renewed_leaf_answers_the_next_caller_and_leaves_the_last_one_alone(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate, await dial(gate, authority) as before:
        gate.member.renew_linked("ext")
        gate.follow()
        async with await dial(gate, authority) as after:
            certificates = [one.writer.get_extra_info("ssl_object").getpeercert(True) for one in (before, after)]
            assert certificates[0] != certificates[1]
            assert [(await one.ask(GET)).status for one in (before, after)] == [200, 200]


async def test_draining_finishes_what_is_under_way(authority: Authority) -> None:
    async with App().running() as app, gateway(authority, [app.port]) as gate, await dial(gate, authority) as wire:
        assert (await wire.ask(GET)).status == 200
        assert await gate.dataplane.drain_inbound(1.0)
        assert await wire.rest() == b""


async def test_an_identity_of_the_mesh_has_its_rate(authority: Authority) -> None:
    async with App(say(b"out")).running() as app:
        member = terminating("egress", authority, [{"Name": "ext"}])
        member.snapshot = replace(member.snapshot, edge=EdgeSettings(protection=Protection(per_identity=Rate(0.01, 2))))
        link(member, "ext", [app.port], intentions=[ALLOW_WEB, intention("api", "ext", "allow")])
        statuses = []
        async with half(member) as gate:
            for source in ("web", "web", "web", "api"):
                async with await dial(gate, authority, source) as wire:
                    answer = await wire.ask(GET)
                    statuses.append((answer.status, answer.get("x-lictor-reason")))
            assert statuses == [(200, None), (200, None), (429, "rate_limit_identity"), (200, None)]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(INSIDE, max_connections=2), "max_connections"),
        (replace(INSIDE, max_connections_per_address=2), "max_connections_per_address"),
    ],
)
async def test_who_has_not_said_a_word_takes_a_place_until_it_goes(
    authority: Authority, limits: Protection, reason: str
) -> None:
    member = terminating("egress", authority, [{"Name": "ext"}])
    member.snapshot = replace(member.snapshot, edge=EdgeSettings(protection=limits))
    async with App().running() as app:
        link(member, "ext", [app.port], intentions=[ALLOW_WEB])
        async with half(member) as gate, await dial(gate, authority) as known:
            assert (await known.ask(GET)).status == 200
            async with await Wire.open(gate.port("egress")):
                async with await Wire.open(gate.port("egress")) as third:
                    assert await third.rest() == b""
                assert gate.refused() == {reason: 1}
            await eventually(lambda: gate.refused() == {reason: 1, "closed": 1})
            async with await dial(gate, authority) as wire:
                assert (await wire.ask(GET)).status == 200


async def test_requests_and_waits_of_the_mesh_have_limits_where_they_are_asked_for(authority: Authority) -> None:
    limits = replace(INSIDE, max_body=3, max_requests_per_connection=3, per_address=Rate(0.01, 4), idle_timeout=20)
    member = terminating("egress", authority, [{"Name": "ext"}])
    member.snapshot = replace(member.snapshot, edge=EdgeSettings(protection=limits))
    large = b"POST / HTTP/1.1\r\nHost: ext\r\nContent-Length: 4\r\n\r\nbody"
    async with App().running() as app:
        link(member, "ext", [app.port], intentions=[ALLOW_WEB])
        async with half(member) as gate:
            async with await dial(gate, authority) as wire:
                answers = [await wire.ask(GET), await wire.ask(large, "POST"), await wire.ask(GET)]
                assert [answer.status for answer in answers] == [200, 413, 200]
                assert answers[-1].get("connection") == "close"
            async with await dial(gate, authority) as wire:
                assert [(await wire.ask(GET)).status for _ in range(2)] == [200, 429]
                gate.later(21)
                assert await wire.rest() == b""
    assert all(one.get("x-request-id") is None and one.get("x-forwarded-for") is None for one in app.requests)
