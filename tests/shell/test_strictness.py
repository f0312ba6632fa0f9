"""What could be read in two ways is refused: one table of raw requests, at both sidecars."""

from __future__ import annotations

import pytest

from harness.certificates import Authority, client_context
from harness.halves import pair
from harness.wire import App, Wire

OK = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: api\r\n"

REFUSED = {
    "two-lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400),
    "two-equal-lengths": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    "length-list": (POST + b"Content-Length: 1, 1\r\n\r\nx", 400),
    "length-and-chunked": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked-and-length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "signed-length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative-length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "hex-length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "empty-length": (POST + b"Content-Length: \r\n\r\n", 400),
    "huge-length": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "space-before-colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "folded": (b"GET / HTTP/1.1\r\nHost: api\r\nX-A: 1\r\n 2\r\n\r\n", 400),
    "folded-first": (b"GET / HTTP/1.1\r\n Host: api\r\n\r\n", 400),
    "bare-lf-in-head": (b"GET / HTTP/1.1\nHost: api\n\n", 400),
    "bare-lf-line": (b"GET / HTTP/1.1\r\nHost: api\nX-A: 1\r\n\r\n", 400),
    "bare-cr": (b"GET / HTTP/1.1\r\nHost: api\r\nX-A: 1\rX-B: 2\r\n\r\n", 400),
    "nul-in-value": (b"GET / HTTP/1.1\r\nHost: api\r\nX-A: 1\x002\r\n\r\n", 400),
    "nul-in-name": (b"GET / HTTP/1.1\r\nHost: api\r\nX\x00A: 1\r\n\r\n", 400),
    "no-name": (b"GET / HTTP/1.1\r\nHost: api\r\n: 1\r\n\r\n", 400),
    "no-colon": (b"GET / HTTP/1.1\r\nHost: api\r\nnonsense\r\n\r\n", 400),
    "two-hosts": (b"GET / HTTP/1.1\r\nHost: api\r\nHost: other\r\n\r\n", 400),
    "no-host": (b"GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", 400),
    "gzip-coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "chunked-twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked-not-last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 501),
    "tab-chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    "http-1.0": (b"GET / HTTP/1.0\r\nHost: api\r\n\r\n", 426),
    "http-0.9": (b"GET /\r\n\r\n", 426),
    "http-2.0": (b"GET / HTTP/2.0\r\nHost: api\r\n\r\n", 400),
    "http-1.2": (b"GET / HTTP/1.2\r\nHost: api\r\n\r\n", 400),
    "h2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "lower-case-method": (b"get / HTTP/1.1\r\nHost: api\r\n\r\n", 400),
    "unknown-method": (b"BREW / HTTP/1.1\r\nHost: api\r\n\r\n", 400),
    "two-blanks": (b"GET  / HTTP/1.1\r\nHost: api\r\n\r\n", 400),
    "blank-in-target": (b"GET /a b HTTP/1.1\r\nHost: api\r\n\r\n", 400),
    "no-slash": (b"GET a HTTP/1.1\r\nHost: api\r\n\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: api\r\n\r\n", 404),
    "connect": (b"CONNECT api:443 HTTP/1.1\r\nHost: api:443\r\n\r\n", 404),
    "upgrade-other": (b"GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n", 403),
    "expect-other": (POST + b"Expect: magic\r\nContent-Length: 1\r\n\r\nx", 417),
    "connection-names-host": (b"GET / HTTP/1.1\r\nHost: api\r\nConnection: host\r\n\r\n", 400),
    "connection-names-length": (POST + b"Connection: content-length\r\nContent-Length: 1\r\n\r\nx", 400),
    "large-head": (b"GET / HTTP/1.1\r\nHost: api\r\nX-A: " + b"x" * 70000 + b"\r\n\r\n", 431),
    "many-fields": (b"GET / HTTP/1.1\r\nHost: api\r\n" + b"X-A: 1\r\n" * 120 + b"\r\n", 431),
    "tls-on-plaintext": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}

BROKEN_BODIES = {
    "bad-size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "signed-size": POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "prefixed-size": POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "blank-size": POST + b"Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
    "huge-size": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "bare-lf-size": POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "bare-lf-after-data": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
    "data-too-long": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "endless-extension": POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "bare-lf-in-extension": POST + b"Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "bad-trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
    "framing-trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    "host-trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\r\n\r\n",
    "endless-trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-A: 123456789\r\n" * 2000 + b"\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_ambiguous_request_is_refused_and_nothing_after_it_is_read(authority: Authority, name: str) -> None:
    request, status = REFUSED[name]
    async with App().running() as app, pair(authority, app.port) as p:
        for port, context in (
            (p.port, None),
            (p.api.port("inbound"), client_context(authority, "web")),
        ):
            async with await Wire.open(port, context) as wire:
                answer = await wire.ask(request + OK)
                assert answer.status == status
                assert answer.get("connection") == "close"
                assert await wire.rest() == b""
    assert app.requests == []


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_broken_body_ends_the_request_and_its_connection(authority: Authority, name: str) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        await wire.send(BROKEN_BODIES[name])
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
    assert app.requests == []


@pytest.mark.parametrize("step", [1, 2, 7])
async def test_a_request_may_arrive_in_any_pieces(authority: Authority, step: int) -> None:
    request = (
        b"POST /x HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n" + OK
    )
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        for position in range(0, len(request), step):
            await wire.send(request[position : position + step])
        assert (await wire.answer("POST")).status == 200
        assert (await wire.answer()).status == 200
    assert [message.body for message in app.requests] == [b"hello", b""]


async def test_blank_lines_before_a_request_are_forgiven(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(b"\r\n" + OK)).status == 200


async def test_an_offer_of_h2c_is_not_taken_up(authority: Authority) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    async with App().running() as app, pair(authority, app.port) as p, await Wire.open(p.port) as wire:
        assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n" + offer)).status == 200
    assert {"upgrade", "http2-settings", "connection"}.isdisjoint(name for name, _ in app.requests[0].headers)
