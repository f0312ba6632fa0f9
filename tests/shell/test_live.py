"""What a change of intentions, the end of a certificate, and a slow caller do to connections that are open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from dataplane.downstream import Downstream
from harness.certificates import Authority, Mistakes, bad_client_context, client_context
from harness.halves import Half, Pair, pair
from harness.meshes import intention
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, echo_server, raw, say
from policies.intentions import Action
from policies.watches import DefaultActionWatch, IntentionsWatch, RegistrationWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ALLOW, DENY = intention("*", "api", "allow"), intention("web", "api", "deny")


def deny_web(p: Pair) -> None:
    p.api.member.hear(IntentionsWatch("api"), [DENY, ALLOW])
    p.api.follow()


def revoked(p: Pair) -> dict[str, int]:
    return dict(p.api.metrics.for_listener("inbound").revoked)


def sessions(p: Pair) -> list[Downstream]:
    found = next(one for key, one in p.api.dataplane.listeners.items() if key.purpose == "inbound").connections
    return [one for one in found if isinstance(one, Downstream)]


async def echo_frames(side: Side, message: Message) -> None:
    """Agree to any upgrade, then send back what comes."""
    await side.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
    while data := await side.read():
        await side.send(data)


async def drip(side: Side, message: Message) -> None:
    """Answer without end."""
    await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await side.send(b"2\r\nhi\r\n")
        await asyncio.sleep(0.05)


# --- intentions ------------------------------------------------------------------------------------------------------


async def test_a_revoked_intention_ends_websockets_of_that_source_and_no_others(authority: Authority) -> None:
    async with App(echo_frames).running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        web = await Wire.open(p.port)
        other = await Wire.open(p.api.port("inbound"), client_context(authority, "other"))
        for wire in (web, other):
            await wire.send(UPGRADE)
            assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        deny_web(p)
        assert await web.rest() == b""
        await other.send(b"still here")
        assert await other.read() == b"still here"
        assert revoked(p) == {"tunnel": 1}
        await web.close()
        await other.close()


async def test_a_revoked_intention_closes_idle_sessions_of_that_source_and_no_others(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        port = p.api.port("inbound")
        web, other = [await Wire.open(port, client_context(authority, name)) for name in ("web", "other")]
        for wire in (web, other):
            assert (await wire.ask(GET)).status == 200
        unused = await Wire.open(port, client_context(authority, "web"))
        await eventually(lambda: len(sessions(p)) == 3)
        deny_web(p)
        assert await web.rest() == b""
        assert await unused.rest() == b""
        assert (await other.ask(GET)).status == 200
        assert revoked(p) == {"session": 2}
        for wire in (web, other, unused):
            await wire.close()


async def test_an_exchange_under_way_finishes_and_the_next_one_is_the_last_and_denied(authority: Authority) -> None:
    go_on = asyncio.Event()

    async def slowly(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
        await go_on.wait()
        return b"llo"

    async with App(slowly).running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            await wire.send(GET)
            await eventually(lambda: app.requests)
            deny_web(p)
            p.api.follow()  # a change of nothing
            go_on.set()
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.get("connection")) == (200, b"hello", None)
            denied = await wire.ask(GET)
            assert (denied.status, denied.get("connection")) == (403, "close")
            assert await wire.rest() == b""
    assert len(app.requests) == 1
    assert revoked(p) == {}


async def test_a_session_whose_last_exchange_was_allowed_to_finish_does_not_idle(authority: Authority) -> None:
    go_on = asyncio.Event()

    async def slowly(side: Side, message: Message) -> bytes:
        await go_on.wait()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    async with App(slowly).running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            await wire.send(GET)
            await eventually(lambda: app.requests)
            deny_web(p)
            go_on.set()
            assert (await wire.answer()).status == 200
            assert await wire.rest() == b""
        assert revoked(p) == {"session": 1}


async def test_a_request_that_had_begun_to_come_is_denied_and_the_last(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            assert (await wire.ask(GET)).status == 200
            await wire.send(GET[:10])
            await eventually(lambda: not sessions(p)[0].idle)
            deny_web(p)
            denied = await wire.ask(GET[10:])
            assert (denied.status, denied.get("connection")) == (403, "close")
    assert len(app.requests) == 1


async def test_a_caller_who_was_never_allowed_keeps_its_session(authority: Authority) -> None:
    """Else every refused request would cost a handshake."""
    async with App().running() as app, pair(authority, app.port, intentions=[DENY, ALLOW]) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            for _ in range(3):
                p.api.member.hear(DefaultActionWatch("api"), p.api.member.snapshot.default_action is Action.DENY)
                p.api.follow()
                denied = await wire.ask(GET)
                assert (denied.status, denied.get("connection")) == (403, None)


async def test_an_endless_answer_that_is_denied_now_is_cut_after_its_grace(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.revocation.GRACE_SECONDS", 1.0)
    async with App(drip).running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.port) as wire:
            await wire.send(GET)
            await wire.until(b"hi\r\n")
            deny_web(p)
            assert not (await wire.rest()).endswith(b"0\r\n\r\n"), "nobody may take it for whole"
        assert revoked(p) == {"answer": 1}


async def test_what_is_allowed_again_within_its_grace_goes_on(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.revocation.GRACE_SECONDS", 1.0)
    async with App(drip).running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.port) as wire:
            await wire.send(GET)
            await wire.until(b"hi\r\n")
            deny_web(p)
            p.api.member.hear(IntentionsWatch("api"), [ALLOW])
            p.api.follow()
            for _ in range(40):  # two seconds
                await wire.until(b"hi\r\n")
        assert revoked(p) == {}


async def test_a_permission_that_goes_cuts_what_it_allowed_and_nothing_else(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allow(*prefixes: str) -> list[dict[str, object]]:
        rules = [{"Action": "allow", "HTTP": {"PathPrefix": prefix}} for prefix in prefixes]
        return [intention("web", "api", permissions=[*rules, {"Action": "deny", "HTTP": {"PathPrefix": "/"}}])]

    monkeypatch.setattr("dataplane.revocation.GRACE_SECONDS", 1.0)
    async with App(drip).running() as app, pair(authority, app.port, intentions=allow("/a", "/b")) as p:
        async with await Wire.open(p.port) as first, await Wire.open(p.port) as second:
            for wire, path in ((first, b"/a"), (second, b"/b")):
                await wire.send(b"GET %b HTTP/1.1\r\nHost: api\r\n\r\n" % path)
                await wire.until(b"hi\r\n")
            p.api.member.hear(IntentionsWatch("api"), allow("/a"))
            p.api.follow()
            await second.rest()
            await first.until(b"hi\r\n")
            assert revoked(p) == {"answer": 1}


async def test_a_session_of_which_only_some_requests_are_denied_now_stays(authority: Authority) -> None:
    def deny(prefix: str) -> list[dict[str, object]]:
        rule = {"Action": "deny", "HTTP": {"PathPrefix": prefix}}
        return [intention("web", "api", permissions=[rule, {"Action": "allow", "HTTP": {"PathPrefix": "/"}}])]

    async with App().running() as app, pair(authority, app.port, intentions=[ALLOW]) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            assert (await wire.ask(GET)).status == 200
            p.api.member.hear(IntentionsWatch("api"), deny("/no"))
            p.api.follow()
            denied = await wire.ask(GET.replace(b"GET /", b"GET /no"))
            assert (denied.status, denied.get("connection")) == (403, None)
            assert (await wire.ask(GET)).status == 200
        assert revoked(p) == {}


async def test_a_thousand_flips_judge_every_request_by_one_of_the_two_sets_and_by_the_one_in_force(
    authority: Authority,
) -> None:
    """A request that neither set allows, and one that both do, would show a mixture; see conformance/test_flips.py."""
    odd = [
        {"Action": "deny", "HTTP": {"PathExact": "/x"}},
        {"Action": "allow", "HTTP": {"Header": [{"Name": "a", "Exact": "1"}]}},
    ]
    even = [
        {"Action": "deny", "HTTP": {"Header": [{"Name": "h", "Present": True}]}},
        {"Action": "allow", "HTTP": {"PathExact": "/z"}},
    ]
    sets = [[intention("web", "api", permissions=rules)] for rules in (even, odd)]
    expected = {  # by the number of the flip, even or odd
        b"GET /z HTTP/1.1\r\nHost: api\r\na: 1\r\n\r\n": (200, 200),
        b"GET /x HTTP/1.1\r\nHost: api\r\na: 1\r\nh: 1\r\n\r\n": (403, 403),
        b"GET /y HTTP/1.1\r\nHost: api\r\na: 1\r\n\r\n": (403, 200),
        b"GET /z HTTP/1.1\r\nHost: api\r\n\r\n": (200, 403),
    }
    flips = 0
    certain: Counter[tuple[bytes, int]] = Counter()

    async def keep_asking(port: int, request: bytes) -> None:
        async with await Wire.open(port) as wire:
            while flips < 1000:
                begun = flips
                status = (await wire.ask(request)).status
                assert status in expected[request]
                if begun == flips:
                    assert status == expected[request][begun % 2]
                    certain[request, begun % 2] += 1

    async with App().running() as app, pair(authority, app.port, intentions=sets[0]) as p:
        async with asyncio.TaskGroup() as group:
            for request in expected:
                group.create_task(keep_asking(p.port, request))
            while flips < 1000:
                await asyncio.sleep(0.001 if flips % 3 else 0.003)
                if flips >= 900:  # on a slow machine no answer may have come between two of them
                    wanted = [(request, flips % 2) for request in expected]
                    await eventually(lambda wanted=wanted: certain.keys() >= set(wanted))
                p.api.member.hear(IntentionsWatch("api"), sets[(flips + 1) % 2])
                p.api.follow()
                flips += 1
    assert len(certain) == 2 * len(expected), "every request was seen to be judged by each of the two"


async def test_a_caller_denied_during_its_handshake_does_not_come_in(authority: Authority) -> None:
    async with (
        echo_server() as echo,
        pair(authority, echo, protocol="tcp", intentions=[intention("web", "api", "allow")]) as p,
        half_open(p.api, client_context(authority, "web")) as finish,
    ):
        p.api.member.hear(IntentionsWatch("api"), [DENY])
        p.api.follow()
        assert await finish(b"hello") == b""
        assert p.api.metrics.for_listener("inbound").denied == 1
        assert p.api.metrics.for_listener("inbound").bytes_in == 0


@contextlib.asynccontextmanager
async def half_open(half: Half, context: ssl.SSLContext) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Begin a handshake and leave it there. Yields what ends it, sends bytes, and returns what comes back."""
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", half.port("inbound"))) as sock:
        sock.setblocking(False)

        async def shake() -> None:
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        await loop.sock_sendall(sock, outgoing.read())
                    incoming.write(await loop.sock_recv(sock, 65536))
                else:
                    return

        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        await loop.sock_sendall(sock, outgoing.read())
        first = await loop.sock_recv(sock, 65536)  # the server's half is here; ours waits

        async def finish(data: bytes) -> bytes:
            incoming.write(first)
            await shake()
            tls.write(data)
            await loop.sock_sendall(sock, outgoing.read())
            found = b""
            async with asyncio.timeout(5):
                while received := await loop.sock_recv(sock, 65536):
                    incoming.write(received)
                    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                        found += tls.read(65536)
            return found

        yield finish


async def test_a_tcp_connection_does_not_outlive_a_change_to_http_and_a_deny(authority: Authority) -> None:
    async with echo_server() as echo, pair(authority, echo, protocol="tcp", intentions=[ALLOW]) as p:
        async with await Wire.open(p.port) as wire:
            await wire.send(b"x")
            assert await wire.read() == b"x"
            member = p.api.member
            watch = RegistrationWatch(member.proxy_id)
            told = member.answers[watch]
            proxy = {**told["Proxy"], "Config": {**(told["Proxy"].get("Config") or {}), "protocol": "http"}}
            member.hear(watch, {**told, "Proxy": proxy})
            p.api.follow()
            deny_web(p)
            assert await wire.rest() == b""


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [drip, echo_frames])
async def test_what_is_under_way_ends_with_the_callers_certificate(authority: Authority, behaviour: object) -> None:
    context = bad_client_context(authority, "web", Mistakes(ends=timedelta(minutes=1)))
    async with App(behaviour).running() as app, pair(authority, app.port) as p:  # type: ignore[arg-type]
        async with await Wire.open(p.api.port("inbound"), context) as wire:
            await wire.send(UPGRADE if behaviour is echo_frames else GET)
            assert await wire.read()
            p.api.later(61)
            async with asyncio.timeout(4):
                await wire.rest()


async def test_the_rest_of_an_answered_body_is_not_awaited_without_end(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataplane.downstream.SKIP_SECONDS", 0.3)
    rows = [intention("*", "api", "deny")]
    async with App().running() as app, pair(authority, app.port, intentions=rows) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            await wire.send(b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 100\r\n\r\nhalf")
            assert (await wire.answer("POST")).status == 403
            async with asyncio.timeout(3):
                assert await wire.rest() == b""


# --- others ----------------------------------------------------------------------------------------------------------


async def test_a_caller_who_reads_nothing_spoils_no_connection_of_others(authority: Authority) -> None:
    async with App(say(b"x" * 70_000)).running() as app, pair(authority, app.port) as p:
        slow = await Wire.open(p.api.port("inbound"), client_context(authority, "web"))
        await slow.ask(GET)
        (connection,) = (one for listener in p.api.dataplane.listeners.values() for one in listener.connections)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(1, 400):
            await slow.send(GET)
            await eventually(lambda number=number: len(app.requests) > number)
            if connection.transport.get_write_buffer_size() > 64 * 1024:  # type: ignore[attr-defined]
                break
        else:
            pytest.fail("the slow caller's buffers took everything")
        async with await Wire.open(p.port) as wire:
            for _ in range(3):
                assert len((await wire.ask(GET)).body) == 70_000
        slow.writer.transport.abort()
        await slow.close()


async def test_informational_answers_without_end_are_a_502(authority: Authority) -> None:
    answers = b"HTTP/1.1 102 Processing\r\n\r\n" * 900 + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with App(raw(answers)).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(GET)).status == 502


async def test_an_endpoint_that_hangs_up_at_once_gives_its_place_back(authority: Authority) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with pair(authority, server.sockets[0].getsockname()[1]) as p, await Wire.open(p.port) as wire:
        for _ in range(5):
            assert (await wire.ask(GET)).status == 503
        await eventually(lambda: [row["connections"] for row in p.api.dataplane.pools.describe()] == [0])
        assert [row["busy"] for row in p.api.dataplane.pools.describe()] == [0]
    server.close()
