"""Conversations in HTTP/1.1 through a pair of sidecars: client, caller's sidecar, mTLS, called sidecar, app."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from harness.certificates import TRUST_DOMAIN, Authority, client_context
from harness.halves import pair
from harness.meshes import intention
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire, raw, raw_and_close, say
from lictor.up.ports import free_ports
from policies.watches import IntentionsWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"


async def test_a_request_reaches_the_app_and_its_answer_comes_back(authority: Authority) -> None:
    async with (
        App(say(b"hello", lines=b"X-App: 1\r\nServer: mine\r\n")).running() as app,
        pair(authority, app.port) as p,
        await Wire.open(p.port) as wire,
    ):
        answer = await wire.ask(b"GET /path?q=1 HTTP/1.1\r\nHost: api\r\nX-Mine: yes\r\nAccept: a, b\r\n\r\n")
    assert (answer.status, answer.body, answer.get("x-app"), answer.get("server")) == (200, b"hello", "1", "mine")
    (request,) = app.requests
    assert request.first == ("GET", "/path?q=1")
    assert (request.get("host"), request.get("x-mine"), request.get("accept")) == ("api", "yes", "a, b")
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-for") is None


async def test_the_app_learns_who_called_and_nobody_can_forge_it(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\nX-Forwarded-Client-Cert: By=me;URI=spiffe://evil\r\n\r\n")
    (told,) = app.requests[0].all("x-forwarded-client-cert")
    fields = dict(part.split("=", 1) for part in told.split(";"))
    assert fields["URI"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    assert fields["By"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/api"
    assert len(fields["Hash"]) == 64


async def test_a_body_of_known_length_is_passed_on(authority: Authority) -> None:
    async def echo(side: Side, message: Message) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(message.body), message.body)

    body = bytes(range(256)) * 4096
    async with App(echo).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        head = b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await wire.ask(head + body, "POST")).body == body


async def test_chunks_and_trailers_go_both_ways(authority: Authority) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
    async with App(raw(answer)).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        request = (
            b"POST / HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX-End: yes\r\n\r\n"
        )
        got = await wire.ask(request, "POST")
    assert (got.body, got.trailers) == (b"abcde", [("x-sum", "5")])
    assert (app.requests[0].body, app.requests[0].trailers) == (b"abcd", [("x-end", "yes")])


async def test_a_connection_is_kept_on_every_leg(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        for _ in range(5):
            assert (await wire.ask(GET)).status == 200
        assert app.connections == 1
        assert p.api.metrics.for_listener("inbound").accepted == 1


async def test_requests_sent_ahead_are_answered_in_order(authority: Authority) -> None:
    async def slow_first(side: Side, message: Message) -> bytes:
        if message.target == "/0":
            await asyncio.sleep(0.05)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n%b" % message.target.encode()

    ahead = b"".join(b"GET /%d HTTP/1.1\r\nHost: api\r\n\r\n" % number for number in range(8))
    async with App(slow_first).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(ahead)
        assert [(await wire.answer()).body for _ in range(8)] == [b"/%d" % number for number in range(8)]


async def test_head_204_and_304_have_no_body_and_keep_the_connection(authority: Authority) -> None:
    async with App(say(b"hello")).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        head = await wire.ask(b"HEAD / HTTP/1.1\r\nHost: api\r\n\r\n", "HEAD")
        assert (head.status, head.get("content-length"), head.body) == (200, "5", b"")
        app.behaviour = raw(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await wire.ask(GET)).status == 204
        app.behaviour = raw(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n")
        assert (await wire.ask(GET)).status == 304
        app.behaviour = say(b"again")
        assert (await wire.ask(GET)).body == b"again"
        assert app.connections == 1


async def test_expect_is_answered_by_the_first_proxy_and_not_passed_on(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(b"PUT / HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.ask(b"ab", "PUT")).status == 200
        assert app.requests[0].get("expect") is None
        assert app.requests[0].body == b"ab"


async def test_informational_answers_are_passed_on_but_not_a_second_100(authority: Authority) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    answer += b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with App(raw(answer)).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(GET)
        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_that_ends_with_its_connection_becomes_chunked(authority: Authority) -> None:
    async with App(raw_and_close(b"HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nall of it")).running() as app:
        async with pair(authority, app.port) as p, await Wire.open(p.port) as wire:
            answer = await wire.ask(GET)
            assert (answer.body, answer.get("transfer-encoding"), answer.get("x-old")) == (b"all of it", "chunked", "1")
            assert (await wire.ask(GET)).body == b"all of it"
            assert app.connections == 2


async def test_hop_by_hop_fields_stay_on_their_hop(authority: Authority) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: api\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: x\r\nTE: trailers\r\nX-Kept: 2\r\n\r\n"
    )
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: X-Inner\r\nX-Inner: 1\r\n"
    answer += b"Keep-Alive: 5\r\nX-Kept: 3\r\n\r\n"
    async with App(raw(answer)).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        got = await wire.ask(request)
    names = [name for name, _ in app.requests[0].headers]
    assert {"connection", "x-secret", "keep-alive", "proxy-connection"}.isdisjoint(names)
    assert (app.requests[0].get("te"), app.requests[0].get("x-kept")) == ("trailers", "2")
    assert {"connection", "x-inner", "keep-alive"}.isdisjoint(name for name, _ in got.headers)
    assert got.get("x-kept") == "3"


async def test_an_absolute_target_is_brought_to_origin_form(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.ask(b"GET http://api.example/x?y HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (app.requests[0].target, app.requests[0].get("host")) == ("/x?y", "api.example")


async def test_a_denied_request_never_reaches_the_app(authority: Authority) -> None:
    permission = {"Action": "allow", "HTTP": {"PathPrefix": "/open", "Methods": ["GET"]}}
    rows = [intention("web", "api", permissions=[permission])]
    async with App().running() as app, pair(authority, app.port, intentions=rows) as p, await Wire.open(p.port) as wire:
        denied = await wire.ask(b"GET /closed HTTP/1.1\r\nHost: api\r\n\r\n")
        assert (denied.status, denied.body, denied.get("x-lictor-reason")) == (
            403,
            b"RBAC: access denied",
            "denied_by_intention",
        )
        assert (await wire.ask(b"GET /open HTTP/1.1\r\nHost: api\r\n\r\n")).status == 200
        assert (
            await wire.ask(b"POST /open HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\nab", "POST")
        ).status == 403
        assert (await wire.ask(b"GET /open/../closed HTTP/1.1\r\nHost: api\r\n\r\n")).status == 403
        assert (await wire.ask(b"GET /x/../open HTTP/1.1\r\nHost: api\r\n\r\n")).status == 200
    assert [request.target for request in app.requests] == ["/open", "/open"]


async def test_why_a_request_was_denied_is_in_the_log_once_for_a_source(authority: Authority) -> None:
    rows = [intention("web", "api", permissions=[{"Action": "deny", "HTTP": {"PathPrefix": "/adm"}}])]
    with capture_logs() as logs:
        async with App().running() as app, pair(authority, app.port, intentions=rows) as p:
            async with await Wire.open(p.port) as wire:
                for path in (b"/x/../adm?token=secret", b"/adm/2"):
                    assert (await wire.ask(b"GET %b HTTP/1.1\r\nHost: api\r\n\r\n" % path)).status == 403
    (line,) = [entry for entry in logs if entry["event"] == "request_denied"]
    assert (line["source"], line["method"], line["untold"]) == ("web", "GET", 0)
    assert line["because"] == "intention web => api (precedence 9), permission 1: deny prefix /adm"
    assert "secret" not in str(line)


async def test_a_denied_request_that_expects_still_gets_its_100_from_the_callers_sidecar(authority: Authority) -> None:
    rows = [intention("*", "api", "deny")]
    async with App().running() as app, pair(authority, app.port, intentions=rows) as p, await Wire.open(p.port) as wire:
        await wire.send(b"PUT / HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await wire.answer("PUT")).status == 403
    assert app.requests == []


async def test_a_denied_grpc_call_is_told_in_grpcs_words(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port, intentions=[intention("*", "api", "deny")]) as p:
        async with await Wire.open(p.port) as wire:
            denied = await wire.ask(
                b"POST /s/m HTTP/1.1\r\nHost: api\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
                "POST",
            )
    assert (denied.status, denied.get("grpc-status"), denied.get("grpc-message")) == (200, "7", "RBAC: access denied")


async def test_a_change_of_intentions_holds_for_the_next_request_of_an_old_connection(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(GET)).status == 200
        p.api.member.hear(IntentionsWatch("api"), [intention("web", "api", "deny")])
        p.api.follow()
        assert (await wire.ask(GET)).status == 403
        p.api.member.hear(IntentionsWatch("api"), [intention("web", "api", "allow")])
        p.api.follow()
        assert (await wire.ask(GET)).status == 200


# --- what goes wrong ------------------------------------------------------------------------------------------------


async def test_an_app_that_is_not_there_is_a_503_that_says_so(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with pair(authority, port) as p, await Wire.open(p.port) as wire:
        answer = await wire.ask(GET)
    assert answer.status == 503
    assert answer.body == (
        b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    )
    assert answer.get("x-lictor-reason") == "remote_connection_failure"


async def test_a_sidecar_that_is_not_there_is_a_503_of_the_caller(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await p.api.dataplane.drain(0.05)
        assert (await wire.ask(GET)).status == 503
    assert p.web.reasons() == {"remote_connection_failure": 1}


async def test_an_app_that_hangs_up_before_answering_is_a_503(authority: Authority) -> None:
    async with App(raw_and_close(b"")).running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.port) as wire:
            answer = await wire.ask(b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 1\r\n\r\nx", "POST")
    assert answer.status == 503
    assert answer.body.endswith(b"reset reason: connection termination")


async def test_a_half_answer_is_never_taken_for_a_whole_one(authority: Authority) -> None:
    async with App(raw_and_close(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")).running() as app:
        async with pair(authority, app.port) as p, await Wire.open(p.port) as wire:
            with pytest.raises(Exception, match=r"peer|incomplete|Connection|closed"):
                await wire.ask(GET)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\nx: y\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_502(authority: Authority, answer: bytes) -> None:
    async with App(raw(answer)).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        got = await wire.ask(GET)
    assert got.status == 502
    assert b"protocol error" in got.body


async def test_a_stale_warm_connection_is_replaced_without_a_failure(authority: Authority) -> None:
    answered = 0

    async def once(side: Side, message: Message) -> bytes | None:
        nonlocal answered
        answered += 1
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        if answered == 1:
            side.writer.transport.abort()  # the app's keep-alive ends without a word
            return None
        return b""

    async with App(once).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(GET)).body == b"ok"
        assert (await wire.ask(GET)).body == b"ok"
        assert app.connections == 2


async def test_no_answer_in_time_is_a_504(authority: Authority) -> None:
    async def never(side: Side, message: Message) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with App(never).running() as app:
        config = {"local_request_timeout_ms": 300}
        async with pair(authority, app.port, config=config) as p, await Wire.open(p.port) as wire:
            answer = await wire.ask(GET)
    assert (answer.status, answer.body) == (504, b"upstream request timeout")


async def test_a_client_that_leaves_ends_the_request_everywhere(authority: Authority) -> None:
    gone = asyncio.Event()

    async def wait(side: Side, message: Message) -> None:
        await side.read()
        gone.set()

    async with App(wait).running() as app, pair(authority, app.port) as p:
        wire = await Wire.open(p.port)
        await wire.send(GET)
        await eventually(lambda: app.requests)
        wire.writer.transport.abort()
        await wire.close()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_an_early_answer_to_a_long_body_ends_the_connection_after_it(authority: Authority) -> None:
    rows = [intention("*", "api", "deny")]
    async with App().running() as app, pair(authority, app.port, intentions=rows) as p, await Wire.open(p.port) as wire:
        head = b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 10000000\r\n\r\n"
        answer = await wire.ask(head + b"x" * 100000, "POST")
        assert answer.status == 403
        assert answer.get("connection") == "close"
        assert await wire.rest() == b""
    assert app.requests == []


async def test_a_short_body_of_a_denied_request_is_thrown_away_and_the_connection_kept(authority: Authority) -> None:
    rows = [intention("web", "api", permissions=[{"Action": "allow", "HTTP": {"Methods": ["GET"]}}])]
    async with App().running() as app, pair(authority, app.port, intentions=rows) as p:
        async with await Wire.open(p.api.port("inbound"), client_context(authority, "web")) as wire:
            await wire.send(b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 6\r\n\r\nabc")
            await eventually(p.api.reasons)
            await wire.send(b"def")
            assert (await wire.answer("POST")).status == 403
            assert (await wire.ask(GET)).status == 200


# --- flow control ---------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_makes_the_app_wait(authority: Authority) -> None:
    size = 64 << 20
    sent = 0

    async def pour(side: Side, message: Message) -> bytes:
        nonlocal sent
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            await side.send(b"x" * 65536)
            sent += 65536
        return b""

    async with App(pour).running() as app, pair(authority, app.port) as p:
        wire = await Wire.open(p.port)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport too
        await wire.send(GET)
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.3)
        assert sent < size // 2
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        total = len(await wire.until(b"\r\n\r\n")) * 0
        while total < size:
            data = await wire.read(1 << 20)
            assert data
            total += len(data)
        await wire.close()


async def test_an_app_that_does_not_read_makes_the_client_wait(authority: Authority) -> None:
    go_on = asyncio.Event()
    size = 64 << 20

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        left = size
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with pair(authority, server.sockets[0].getsockname()[1]) as p, await Wire.open(p.port) as wire:
        sent = 0

        async def pour() -> None:
            nonlocal sent
            await wire.send(b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size >> 16):
                await wire.send(b"x" * 65536)
                sent += 65536

        pouring = asyncio.create_task(pour())
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.3)
        assert sent < size // 2
        go_on.set()
        await pouring
        assert (await wire.answer("POST")).status == 200
    server.close()


async def test_a_client_may_not_send_ahead_without_end(authority: Authority) -> None:
    release = asyncio.Event()

    async def hold(side: Side, message: Message) -> bytes:
        await release.wait()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    async with App(hold).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(GET)
        await eventually(lambda: app.requests)
        ahead = GET * 1000000
        sending = asyncio.create_task(wire.send(ahead))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        release.set()
        assert (await wire.answer()).status == 200


# --- tunnels --------------------------------------------------------------------------------------------------------


async def test_a_websocket_goes_through(authority: Authority) -> None:
    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with pair(authority, port) as p, connect(f"ws://127.0.0.1:{p.port}/chat") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            big = b"x" * 300000
            await socket.send(big)
            assert await socket.recv() == big


async def test_a_denied_websocket_is_a_403(authority: Authority) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    async with App().running() as app, pair(authority, app.port, intentions=[intention("*", "api", "deny")]) as p:
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n" + upgrade + b"\r\n")).status == 403
    assert app.requests == []


async def test_an_upgrade_that_the_app_declines_is_an_ordinary_answer(authority: Authority) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    async with App(say(b"no", b"400 Bad Request")).running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n" + upgrade + b"\r\n")).status == 400
            assert (await wire.ask(GET)).status == 400
    assert app.requests[0].get("upgrade") == "websocket"


# --- draining -------------------------------------------------------------------------------------------------------


async def test_a_drain_lets_the_request_under_way_finish(authority: Authority) -> None:
    release = asyncio.Event()

    async def hold(side: Side, message: Message) -> bytes:
        await release.wait()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async with App(hold).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(GET)
        await eventually(lambda: app.requests)
        draining = asyncio.create_task(p.web.dataplane.drain(5))
        await asyncio.sleep(0)
        release.set()
        answer = await wire.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", "close")
        assert await draining is True


async def test_a_drain_cuts_what_does_not_end_in_time(authority: Authority) -> None:
    async def never(side: Side, message: Message) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with App(never).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(GET)
        await eventually(lambda: app.requests)
        assert await p.web.dataplane.drain(0.1) is False
        assert await wire.read() == b""


async def test_a_patient_drain_lets_an_idle_connection_bring_its_next_request(authority: Authority) -> None:
    async with App(say(b"ok")).running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.port) as wire, await Wire.open(p.port) as idle:
            assert (await wire.ask(GET)).get("connection") is None
            assert (await idle.ask(GET)).get("connection") is None
            p.web.dataplane.retire()
            answer = await wire.ask(GET)
            assert (answer.status, answer.get("connection")) == (200, "close")
            async with await Wire.open(p.port) as late:  # it still listens
                draining = asyncio.create_task(p.web.dataplane.drain(5, patience=4))
                await asyncio.sleep(0)
                answer = await late.ask(GET)
                assert (answer.status, answer.get("connection")) == (200, "close")
            assert not draining.done()
            answer = await idle.ask(GET)
            assert (answer.status, answer.get("connection")) == (200, "close")
            assert await draining is True


async def test_an_answer_that_has_begun_when_the_end_is_near_does_not_surprise_its_reader(authority: Authority) -> None:
    release = asyncio.Event()

    async def in_pieces(side: Side, message: Message) -> bytes:
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await release.wait()
        return b"k"

    async with App(in_pieces).running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(GET)
        head = await wire.until(b"\r\n\r\no")
        assert b"connection" not in head.lower()
        p.web.dataplane.retire()
        release.set()
        assert await wire.until(b"k") == b"k"
        answer = await wire.ask(GET)
        assert (answer.body, answer.get("connection")) == (b"ok", "close")
