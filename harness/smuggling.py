"""Hostile HTTP/1.1, one row a trick: what is sent, what is answered, and what the backend may see of it.

From the public literature on request smuggling and desync (CL.TE, TE.CL, TE.TE, CL.0, chunk extensions, hop-by-hop
abuse, path confusion). Nearly every row tries to bring `GET /admin`, which is denied, past the judge. Where RFC 9112
lets a recipient choose, the choice is refusal; rows that are taken are those that the RFC tells everybody to take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One trick. `closes`: the connection ends after the answers; else the next request on it is served as itself."""

    id: str
    raw: bytes
    statuses: tuple[int, ...]
    seen: tuple[str, ...] = ()
    closes: bool = False
    hang_up: bool = False  # the sender stops in the middle and leaves


ADMIN = b"GET /admin HTTP/1.1\r\nHost: api\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: api\r\n"
POST = b"POST / HTTP/1.1\r\nHost: api\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def refused(status: int, id: str, raw: bytes) -> Row:
    """Return a row that is answered once, closed, and of which the backend sees nothing."""
    return Row(id, raw + ADMIN, (status,), closes=True)


def rows() -> Iterator[Row]:
    """Return all of them."""
    yield from framing()
    yield from codings()
    yield from lengths()
    yield from line_ends()
    yield from request_lines()
    yield from hosts()
    yield from targets()
    yield from chunks()
    yield from trailers()
    yield from connections()
    yield from expectations()
    yield from upgrades()
    yield from names_and_values()
    yield from sizes()
    yield from paths()
    yield from pipelines()


def framing() -> Iterator[Row]:
    """CL.TE, TE.CL and two of a kind."""
    hidden = b"0\r\n\r\n" + ADMIN
    both = {
        "cl-te": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(hidden),
        "te-cl": b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % len(hidden),
        "cl-te-short": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "te-cl-zero": b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "cl-zero-te": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "cl-te-apart": b"Content-Length: 5\r\nX-A: 1\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n",
        "cl-te-case": b"cOnTeNt-LeNgTh: 5\r\ntRANSFER-eNCODING: CHUNKED\r\n",
        "cl-te-unknown": b"Content-Length: 5\r\nTransfer-Encoding: x\r\n",
        "te-unknown-cl": b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "cl-te-empty": b"Content-Length: 5\r\nTransfer-Encoding:\r\n",
        "cl-cl-te": b"Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "te-cl-te": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "cl-twice": b"Content-Length: 5\r\nContent-Length: 5\r\n",
        "cl-twice-differing": b"Content-Length: 5\r\nContent-Length: 0\r\n",
        "cl-thrice": b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        "cl-twice-case": b"Content-Length: 5\r\nCONTENT-LENGTH: 6\r\n",
        "cl-twice-apart": b"Content-Length: 0\r\nX-A: 1\r\nContent-Length: 5\r\n",
    }
    for name, lines in both.items():
        yield refused(400, name, POST + lines + b"\r\n" + hidden)


def codings() -> Iterator[Row]:
    """TE.TE: spellings that one end may take for chunked and the other not."""
    hidden = b"\r\n0\r\n\r\n"
    unknown = (
        *(
            b"xchunked",
            b"chunkedx",
            b"identity",
            b"gzip",
            b"chunked, identity",
            b"identity, chunked",
            b"chunked, chunked",
        ),
        *(b"chunked,", b",chunked", b"gzip, chunked", b"chunked, gzip", b'"chunked"', b"'chunked'", b"chunked;q=1"),
        *(
            b"chunked ; a=b",
            b"chunk",
            b"chunke d",
            b"[chunked]",
            b"chunked\x80",
            b"\xa0chunked",
            b"c\xffhunked",
            b"cow",
        ),
        *(
            b"deflate",
            b"compress",
            b"trailers",
            b"chunked\t,",
            b"x chunked",
            b"chunked x",
            b"CHUNKED, CHUNKED",
            b"0",
            b"",
        ),
    )
    for number, value in enumerate(unknown):
        name = value.decode("ascii", "replace").replace(" ", "_")
        yield refused(501, f"te-{number}-{name!a}", POST + b"Transfer-Encoding: " + value + b"\r\n" + hidden)
    twice = {
        "te-chunked-twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "te-chunked-then-identity": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "te-identity-then-chunked": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "te-chunked-then-empty": b"Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
        "te-chunked-then-cow": b"Transfer-Encoding: chunked\r\nX-A: 1\r\nTransfer-encoding: cow\r\n",
    }
    for name, lines in twice.items():
        yield refused(501, name, POST + lines + hidden)
    broken = {
        "te-vertical-tab": b"Transfer-Encoding: \x0bchunked\r\n",
        "te-form-feed": b"Transfer-Encoding: \x0cchunked\r\n",
        "te-vertical-tab-after": b"Transfer-Encoding: chunked\x0b\r\n",
        "te-nul-after": b"Transfer-Encoding: chunked\x00\r\n",
        "te-nul-before": b"Transfer-Encoding: \x00chunked\r\n",
        "te-space-before-colon": b"Transfer-Encoding : chunked\r\n",
        "te-tab-before-colon": b"Transfer-Encoding\t: chunked\r\n",
        "te-leading-space": b" Transfer-Encoding: chunked\r\n",
        "te-leading-tab": b"\tTransfer-Encoding: chunked\r\n",
        "te-folded": b"Transfer-Encoding:\r\n chunked\r\n",
        "te-folded-after": b"Transfer-Encoding: chunked\r\n x\r\n",
        "te-hidden-by-lf": b"X-A: 1\nTransfer-Encoding: chunked\r\n",
        "te-hidden-by-cr": b"X-A: 1\rTransfer-Encoding: chunked\r\n",
        "te-bare-cr": b"Transfer-Encoding: chunked\r\r\n",
        "te-two-colons": b"Transfer-Encoding\r\n: chunked\r\n",
        "te-del": b"Transfer-Encoding: chunked\x7f\r\n",
        "te-backspace": b"Transfer-Encoding: x\x08chunked\r\n",
        "te-quoted-name": b'"Transfer-Encoding": chunked\r\n',
        "te-8-bit-name": b"Transfer\xadEncoding: chunked\r\n",
        "te-nul-in-name": b"Transfer-Encoding\x00: chunked\r\n",
    }
    for name, lines in broken.items():
        yield refused(400, name, POST + lines + hidden)
    taken = {"te-tab": b"Transfer-Encoding:\tchunked\r\n", "te-no-space": b"transfer-encoding:Chunked\r\n"}
    for name, lines in taken.items():
        yield Row(name, POST + lines + hidden + ADMIN, (200, 403), ("POST /",))
    # Another name: it frames nothing, and what looks like its body is the next request.
    yield Row("te-underscore", POST + b"Transfer_Encoding: chunked\r\n\r\n" + ADMIN, (200, 403), ("POST /",))
    yield Row("te-prefixed", POST + b"X-Transfer-Encoding: chunked\r\n\r\n" + ADMIN, (200, 403), ("POST /",))


def lengths() -> Iterator[Row]:
    """Numbers that parsers read differently."""
    wrong = (
        *(b"+5", b"-1", b"-0", b"0x5", b"5, 5", b"5,5", b"5,6", b"5;", b"5.0", b"5e0", b"5_0", b"1 0", b"five", b""),
        *(b"\x0b5", b"5\x00", b"\x005", b"'5'", b'"5"', b"0b1", b"0o5", b"5\x0c", b"\xb2", b"\xd9\xa5", b"NaN", b"5 5"),
        *(b"9223372036854775808", b"18446744073709551616", b"18446744073709551617", b"9" * 40, b"4294967296" * 3, b"("),
    )
    for number, value in enumerate(wrong):
        yield refused(400, f"cl-{number}-{value[:20]!r}", POST + b"Content-Length: " + value + b"\r\n\r\nhello")
    wrong_lines = {
        "cl-space-before-colon": b"Content-Length : 5\r\n",
        "cl-tab-before-colon": b"Content-Length\t: 5\r\n",
        "cl-leading-space": b" Content-Length: 5\r\n",
        "cl-folded": b"Content-Length:\r\n 5\r\n",
        "cl-folded-after": b"Content-Length: 5\r\n 0\r\n",
        "cl-hidden-by-lf": b"X-A: 1\nContent-Length: 5\r\n",
        "cl-hidden-by-cr": b"X-A: 1\rContent-Length: 5\r\n",
        "cl-nul-in-name": b"Content-Length\x00: 5\r\n",
    }
    for name, lines in wrong_lines.items():
        yield refused(400, name, POST + lines + b"\r\nhello")
    size = len(ADMIN)
    taken = {
        "cl-covers-admin": b"Content-Length: %d\r\n" % size,
        "cl-leading-zeros": b"Content-Length: 000%d\r\n" % size,
        "cl-blanks": b"Content-Length:\t %d \t\r\n" % size,
    }
    for name, lines in taken.items():  # /admin is a body here, and what follows is judged
        yield Row(name, POST + lines + b"\r\n" + ADMIN + ADMIN, (200, 403), ("POST /",))
    yield Row("cl-zero", POST + b"Content-Length: 0\r\n\r\n" + ADMIN, (200, 403), ("POST /",))
    yield Row("cl-none", POST + b"\r\n" + ADMIN, (200, 403), ("POST /",))
    yield Row("cl-underscore", POST + b"Content_Length: 100\r\n\r\n" + ADMIN, (200, 403), ("POST /",))
    for method in (b"GET", b"DELETE", b"OPTIONS", b"PUT", b"PATCH"):
        raw = method + b" / HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % size + ADMIN + ADMIN
        yield Row(f"cl-on-{method.decode()}", raw, (200, 403), (f"{method.decode()} /",))
        raw = (
            method + b" / HTTP/1.1\r\nHost: api\r\n" + CHUNKED + b"\r\n%x\r\n" % size + ADMIN + b"\r\n0\r\n\r\n" + ADMIN
        )
        yield Row(f"te-on-{method.decode()}", raw, (200, 403), (f"{method.decode()} /",))
    yield Row("cl-too-large", POST + b"Content-Length: 500\r\n\r\n" + ADMIN, (), hang_up=True)


def line_ends() -> Iterator[Row]:
    """Bare LF, bare CR, NUL, folds, blank lines."""
    for name, raw in {
        "lf-everywhere": b"GET / HTTP/1.1\nHost: api\n\n",
        "lf-after-request-line": b"GET / HTTP/1.1\nHost: api\r\n\r\n",
        "lf-after-host": b"GET / HTTP/1.1\r\nHost: api\nX-A: 1\r\n\r\n",
        "lf-empty-line": b"GET / HTTP/1.1\r\nHost: api\r\n\n",
        "lf-crlf-end": b"GET / HTTP/1.1\r\nHost: api\n\r\n",
        "lf-lf-in-value": GET + b"X-A: 1\n\nGET /admin HTTP/1.1\r\nHost: api\r\n\r\n",
        "cr-everywhere": b"GET / HTTP/1.1\rHost: api\r\r\n\r\n",
        "cr-in-value": GET + b"X-A: 1\r2\r\n\r\n",
        "cr-cr-lf": GET + b"X-A: 1\r\r\n\r\n",
        "cr-before-name": GET + b"\rX-A: 1\r\n\r\n",
        "cr-in-name": GET + b"X\rA: 1\r\n\r\n",
        "cr-in-target": b"GET /\rx HTTP/1.1\r\nHost: api\r\n\r\n",
        "nul-in-target": b"GET /\x00admin HTTP/1.1\r\nHost: api\r\n\r\n",
        "nul-in-method": b"G\x00ET / HTTP/1.1\r\nHost: api\r\n\r\n",
        "nul-in-version": b"GET / HTTP/1.1\x00\r\nHost: api\r\n\r\n",
        "nul-in-value": GET + b"X-A: \x00\r\n\r\n",
        "nul-in-name": GET + b"X\x00A: 1\r\n\r\n",
        "nul-first": b"\x00" + GET + b"\r\n",
        "fold": GET + b"X-A: 1\r\n 2\r\n\r\n",
        "fold-tab": GET + b"X-A: 1\r\n\t2\r\n\r\n",
        "fold-empty": GET + b"X-A: 1\r\n \r\n\r\n",
        "fold-first": b"GET / HTTP/1.1\r\n Host: api\r\n\r\n",
        "fold-of-a-request": GET + b"X-A: 1\r\n GET /admin HTTP/1.1\r\n\r\n",
        "two-blank-lines-first": b"\r\n\r\n" + GET + b"\r\n",
        "blank-lf-first": b"\n" + GET + b"\r\n",
        "blank-space-first": b" \r\n" + GET + b"\r\n",
        "u2028": b"GET / HTTP/1.1\r\nHost: api\xe2\x80\xa8X: 1\r\n\r\n",
    }.items():
        yield refused(400, name, raw)
    yield Row("blank-line-first", b"\r\n" + GET + b"\r\n\r\n" + ADMIN, (200, 403), ("GET /",))


def request_lines() -> Iterator[Row]:
    """What is no request line, or an old one."""
    rest = b"\r\nHost: api\r\n\r\n"
    for status, name, line in (
        (400, "space-first", b" GET / HTTP/1.1"),
        (400, "tab-first", b"\tGET / HTTP/1.1"),
        (400, "tabs", b"GET\t/\tHTTP/1.1"),
        (400, "tab-after-method", b"GET\t/ HTTP/1.1"),
        (400, "two-spaces", b"GET  / HTTP/1.1"),
        (400, "two-spaces-later", b"GET /  HTTP/1.1"),
        (400, "space-last", b"GET / HTTP/1.1 "),
        (400, "vertical-tab", b"GET\x0b/\x0bHTTP/1.1"),
        (400, "no-break-space", b"GET\xa0/ HTTP/1.1"),
        (400, "space-in-target", b"GET /x /admin HTTP/1.1"),
        (400, "two-versions", b"GET / HTTP/1.1 HTTP/1.1"),
        (400, "method-only", b"GET"),
        (400, "target-only", b"/admin"),
        (400, "no-target", b"GET  HTTP/1.1"),
        (426, "no-version", b"GET /admin"),
        (426, "http-0.9", b"GET /admin HTTP/0.9"),
        (426, "http-1.0", b"GET /admin HTTP/1.0"),
        (400, "http-1.2", b"GET / HTTP/1.2"),
        (400, "http-1.10", b"GET / HTTP/1.10"),
        (400, "http-01.1", b"GET / HTTP/01.1"),
        (400, "http-2.0", b"GET / HTTP/2.0"),
        (400, "http-3", b"GET / HTTP/3"),
        (400, "http-1", b"GET / HTTP/1"),
        (400, "http-1,1", b"GET / HTTP/1,1"),
        (400, "http-lower-case", b"GET / http/1.1"),
        (400, "http-no-slash", b"GET / HTTP1.1"),
        (400, "https-version", b"GET / HTTPS/1.1"),
        (400, "rtsp", b"GET / RTSP/1.0"),
        (400, "method-lower-case", b"get /admin HTTP/1.1"),
        (400, "method-mixed-case", b"Get /admin HTTP/1.1"),
        (400, "method-unknown", b"BREW / HTTP/1.1"),
        (400, "method-pri", b"PRI / HTTP/1.1"),
        (400, "method-8-bit", b"G\xc8T / HTTP/1.1"),
        (400, "method-colon", b"GET: / HTTP/1.1"),
        (404, "connect", b"CONNECT api:443 HTTP/1.1"),
        (404, "connect-path", b"CONNECT /admin HTTP/1.1"),
        (404, "asterisk", b"OPTIONS * HTTP/1.1"),
        (404, "asterisk-get", b"GET * HTTP/1.1"),
    ):
        yield refused(status, f"line-{name}", line + rest)
    yield refused(400, "h2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield refused(400, "tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")


def hosts() -> Iterator[Row]:
    """Host: none, two, or what is no host."""
    for name, lines in {
        "none": b"X-A: 1\r\n",
        "two": b"Host: api\r\nHost: api\r\n",
        "two-differing": b"Host: api\r\nHost: evil\r\n",
        "two-case": b"Host: api\r\nhOST: evil\r\n",
        "two-apart": b"Host: api\r\nX-A: 1\r\nHost: evil\r\n",
        "space-before-colon": b"Host : api\r\n",
        "folded": b"Host:\r\n api\r\n",
        "comma": b"Host: api, evil\r\n",
        "comma-tight": b"Host: api,evil\r\n",
        "space": b"Host: api evil\r\n",
        "tab": b"Host: api\tevil\r\n",
        "user": b"Host: evil@api\r\n",
        "path": b"Host: api/admin\r\n",
        "query": b"Host: api?x\r\n",
        "fragment": b"Host: api#x\r\n",
        "backslash": b"Host: api\\evil\r\n",
        "scheme": b"Host: http://api\r\n",
        "port-text": b"Host: api:x\r\n",
        "two-ports": b"Host: api:80:81\r\n",
        "8-bit": b"Host: \xe4pi\r\n",
        "nul": b"Host: api\x00\r\n",
        "bracket": b"Host: [::1\r\n",
        "quotes": b'Host: "api"\r\n',
        "angle": b"Host: <api>\r\n",
    }.items():
        yield refused(400, f"host-{name}", b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
    yield Row("host-trailing-space", b"GET / HTTP/1.1\r\nHost: api \r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    yield Row("host-prefixed", GET + b"X-Host: evil\r\n\r\n" + ADMIN, (200, 403), ("GET /",))


def targets() -> Iterator[Row]:
    """Forms of the target."""
    for name, target in {
        "user": b"http://evil@api/admin",
        "user-password": b"http://u:p@api/admin",
        "fragment": b"http://api/#/admin",
        "no-host": b"http:///admin",
        "ftp": b"ftp://api/admin",
        "ws": b"ws://api/admin",
        "file": b"file:///admin",
        "one-slash": b"http:/admin",
        "backslash-host": b"http://api\\admin",
        "comma-host": b"http://api,evil/admin",
        "port-text": b"http://api:x/admin",
        "authority": b"api:80",
        "relative": b"admin",
        "query-only": b"?x",
        "backslash": b"\\admin",
        "8-bit": b"/\xe4dmin",
        "overlong-dot": b"/\xc0\xae\xc0\xae/admin",
        "del": b"/\x7fadmin",
        "control": b"/\x01admin",
        "javascript": b"javascript:/admin",
    }.items():
        yield refused(400, f"target-{name}", b"GET " + target + b" HTTP/1.1\r\nHost: api\r\n\r\n")
    for name, target in {
        "absolute": b"http://api/admin",
        "absolute-other-host": b"http://evil/admin",
        "absolute-upper-case": b"HTTP://API/admin",
        "absolute-https": b"https://api/admin",
        "absolute-port": b"http://api:80/admin/x?y",
        "absolute-dots": b"http://api/x/../admin",
    }.items():
        yield Row(f"target-{name}", b"GET " + target + b" HTTP/1.1\r\nHost: api\r\n\r\n", (403,))
    for name, target, seen in (
        ("absolute-query", b"http://api?/admin", "GET /?/admin"),
        ("absolute-empty", b"http://api", "GET /"),
        ("inner-absolute", b"/http://api/x", "GET /http://api/x"),
    ):
        yield Row(f"target-{name}", b"GET " + target + b" HTTP/1.1\r\nHost: evil\r\n\r\n" + ADMIN, (200, 403), (seen,))


def chunks() -> Iterator[Row]:
    """Chunks that are spelt oddly. The head is good, so the backend may see a cut request, never a whole one."""
    start = POST + CHUNKED + b"\r\n"
    size = b"%x" % len(ADMIN)
    for name, body in {
        "size-empty": b"\r\nabc\r\n0\r\n\r\n",
        "size-text": b"xyz\r\nabc\r\n0\r\n\r\n",
        "size-signed": b"+3\r\nabc\r\n0\r\n\r\n",
        "size-negative": b"-3\r\nabc\r\n0\r\n\r\n",
        "size-negative-one": b"-1\r\n" + ADMIN,
        "size-0x": b"0x3\r\nabc\r\n0\r\n\r\n",
        "size-h": b"3h\r\nabc\r\n0\r\n\r\n",
        "size-underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
        "size-space-before": b" 3\r\nabc\r\n0\r\n\r\n",
        "size-tab-before": b"\t3\r\nabc\r\n0\r\n\r\n",
        "size-space-after": b"3 \r\nabc\r\n0\r\n\r\n",
        "size-vertical-tab": b"3\x0b\r\nabc\r\n0\r\n\r\n",
        "size-nul": b"3\x00\r\nabc\r\n0\r\n\r\n",
        "size-2^64": b"10000000000000000\r\nabc\r\n0\r\n\r\n",
        "size-2^64+3": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        "size-2^32-wrap-long": b"00000000000000000000003\r\nabc\r\n0\r\n\r\n",
        "size-f": b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "size-decimal": b"3.0\r\nabc\r\n0\r\n\r\n",
        "size-comma": b"3,3\r\nabc\r\n0\r\n\r\n",
        "size-8-bit": b"\xb3\r\nabc\r\n0\r\n\r\n",
        "size-lf": b"3\nabc\r\n0\r\n\r\n",
        "size-cr": b"3\rabc\r\n0\r\n\r\n",
        "size-cr-cr-lf": b"3\r\r\nabc\r\n0\r\n\r\n",
        "size-folded": b"3\r\n \r\nabc\r\n0\r\n\r\n",
        "extension-lf": b"3;a\nbc\r\n0\r\n\r\n",
        "extension-term": b"3;\n" + size + b"\r\nabc\r\n" + ADMIN + b"0\r\n\r\n",
        "extension-cr": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        "extension-nul": b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
        "extension-no-semicolon": b"3 a=b\r\nabc\r\n0\r\n\r\n",
        "extension-quoted-lf": b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
        "extension-endless": b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
        "data-too-short": b"5\r\nabc\r\n0\r\n\r\n" + ADMIN,
        "data-too-long": b"2\r\nabc\r\n0\r\n\r\n",
        "data-no-end": b"3\r\nabc0\r\n\r\n",
        "data-lf-end": b"3\r\nabc\n0\r\n\r\n",
        "data-cr-end": b"3\r\nabc\r0\r\n\r\n",
        "data-space-end": b"3\r\nabc \r\n0\r\n\r\n",
        "data-two-ends": b"3\r\nabc\r\n\r\n0\r\n\r\n",
        "last-lf": b"3\r\nabc\r\n0\n\n",
        "last-crlf-lf": b"3\r\nabc\r\n0\r\n\nX",
        "last-then-cr": b"3\r\nabc\r\n0\r\n\rX\r\n\r\n",
        "last-missing": b"3\r\nabc\r\n" + ADMIN,
    }.items():
        yield refused(400, f"chunk-{name}", start + body)
    for name, body in {
        "leading-zeros": b"0000000003\r\nabc\r\n0\r\n\r\n",
        "upper-case": b"A\r\n0123456789\r\n0\r\n\r\n",
        "extension": b"3;a\r\nabc\r\n0\r\n\r\n",
        "extension-value": b"3;a=b;c=d\r\nabc\r\n0\r\n\r\n",
        "extension-quoted": b'3;a="b;c"\r\nabc\r\n0\r\n\r\n',
        "extension-blanks": b"3 ; a = b\r\nabc\r\n0\r\n\r\n",
        "extension-last": b"3\r\nabc\r\n0;a=b\r\n\r\n",
        "several-zeros": b"3\r\nabc\r\n000\r\n\r\n",
        "admin-inside": size + b"\r\n" + ADMIN + b"\r\n0\r\n\r\n",
        "end-inside": b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "nothing": b"0\r\n\r\n",
    }.items():
        yield Row(f"chunk-{name}", start + body + ADMIN, (200, 403), ("POST /",))
    for name, body in {
        "nothing-yet": b"",
        "half-size": b"3",
        "half-data": b"50\r\nabc",
        "no-last": b"3\r\nabc\r\n",
    }.items():
        yield Row(f"chunk-stops-{name}", start + body, (), hang_up=True)


def trailers() -> Iterator[Row]:
    """Fields after the body."""
    start = POST + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n"
    for line in (
        *(
            b"Content-Length: 50",
            b"Transfer-Encoding: chunked",
            b"Host: evil",
            b"Authorization: x",
            b"Connection: close",
        ),
        *(b"X-Forwarded-Client-Cert: URI=spiffe://x", b"x_forwarded_client_cert: x", b"X-Forwarded-For: 1.2.3.4"),
        *(
            b"Cookie: a=b",
            b"TE: x",
            b"Trailer: x",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"Content-Type: a/b",
        ),
        *(
            b"no colon",
            b": no name",
            b" folded: 1",
            b"a : 1",
            b"a: \x00",
            b"a: 1\n",
            b"a: 1\rb: 2",
            b"a\x00: 1",
            b"GET /admin",
        ),
    ):
        yield refused(400, f"trailer-{line[:24]!r}", start + line + b"\r\n\r\n")
    yield Row("trailer-good", start + b"X-Sum: 1\r\n\r\n" + ADMIN, (200, 403), ("POST /",))
    yield refused(400, "trailer-endless", start + b"X-A: 123456789\r\n" * 2000 + b"\r\n")


def connections() -> Iterator[Row]:
    """Connection names fields away."""
    for name in (
        *(b"host", b"Content-Length", b"transfer-encoding", b"authorization", b"cookie", b"x-forwarded-client-cert"),
        *(
            b"X-Forwarded-For",
            b"x-forwarded-proto",
            b"x-forwarded-host",
            b"content-type",
            b"close, host",
            b"keep-alive,Host",
        ),
    ):
        yield refused(400, f"connection-{name.decode()}", GET + b"Connection: " + name + b"\r\n\r\n")
    yield Row("connection-own", GET + b"Connection: x-a\r\nX-A: 1\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    many = b",".join(b"x%d" % number for number in range(5000))
    yield Row("connection-many", GET + b"Connection: " + many + b"\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    yield Row("connection-close", GET + b"Connection: close\r\n\r\n" + ADMIN, (200,), ("GET /",), closes=True)
    yield Row("connection-keep-alive", GET + b"Connection: keep-alive\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    yield Row("proxy-connection", GET + b"Proxy-Connection: close\r\n\r\n" + ADMIN, (200, 403), ("GET /",))


def expectations() -> Iterator[Row]:
    """Expect, and what is sent without waiting."""
    size = len(ADMIN)
    for value in (b"100-continue, x", b"x", b"", b"100-continue;q=1", b"200-ok", b"y 100-continue"):
        raw = POST + b"Expect: " + value + b"\r\nContent-Length: %d\r\n\r\n" % size
        yield refused(417, f"expect-{value!r}", raw)
    for name, raw in {
        "length": POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size + ADMIN,
        "chunked": POST + b"Expect: 100-Continue\r\n" + CHUNKED + b"\r\n%x\r\n" % size + ADMIN + b"\r\n0\r\n\r\n",
        "twice": POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size + ADMIN,
    }.items():
        yield Row(f"expect-{name}", raw + ADMIN, (100, 200, 403), ("POST /",))
    yield Row("expect-no-body", GET + b"Expect: 100-continue\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    yield refused(400, "expect-folded", POST + b"Expect:\r\n 100-continue\r\nContent-Length: 5\r\n\r\n")


def upgrades() -> Iterator[Row]:
    """Upgrades that are none."""
    socket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: eA==\r\n"
    # The backend answers 200: no tunnel, and what follows is judged.
    yield Row("upgrade-wrong-version", GET + socket + b"\r\n" + ADMIN, (200, 403), ("GET /",))
    yield Row("upgrade-unnamed", GET + b"Upgrade: websocket\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    yield Row("upgrade-h2c", GET + h2c + ADMIN, (200, 403), ("GET /",))
    yield refused(400, "upgrade-post", POST + socket + b"\r\n")
    yield refused(400, "upgrade-length", GET + socket + b"Content-Length: 5\r\n\r\nhello")
    yield refused(400, "upgrade-chunked", GET + socket + CHUNKED + b"\r\n0\r\n\r\n")
    for value in (b"foo", b"websocket, h2c", b"HTTP/2.0", b"TLS/1.2", b"websocket/13", b""):
        yield refused(403, f"upgrade-{value!r}", GET + b"Connection: Upgrade\r\nUpgrade: " + value + b"\r\n\r\n")


def names_and_values() -> Iterator[Row]:
    """Names that are no tokens, values that hold controls."""
    for line in (
        *(
            b"X A: 1",
            b"X(A): 1",
            b"X@A: 1",
            b"X/A: 1",
            b"X[A]: 1",
            b'X"A: 1',
            b"X{A}: 1",
            b"X\\A: 1",
            b"X;A: 1",
            b"X,A: 1",
        ),
        *(
            b"X=A: 1",
            b"X?A: 1",
            b"X<A>: 1",
            b"X\xe4: 1",
            b"\xff: 1",
            b"X\x7f: 1",
            b"X\x01: 1",
            b": 1",
            b"nothing",
            b"X",
        ),
        *(b"X: \x01", b"X: \x0b", b"X: \x0c", b"X: \x1b[2J", b"X: \x7f", b"X\t: 1", b"X : 1", b"\tX: 1"),
    ):
        yield refused(400, f"field-{line!r}", GET + line + b"\r\n\r\n")
    for line in (b"X_A: 1", b"X-A: \xe4\xff", b"X-A:", b"X-A: a: b", b"!#$%&'*+-.^_`|~09: 1", b"X-A: %0d%0aGET /admin"):
        yield Row(f"field-{line!r}", GET + line + b"\r\n\r\n" + ADMIN, (200, 403), ("GET /",))


def sizes() -> Iterator[Row]:
    """Both sides of the limits."""
    fields = b"X-A: 1\r\n"  # the called sidecar counts those of the caller's proxy, too: at most three
    # A gateway adds five of its own, and the sidecar behind it counts them too.
    yield Row("fields-95", GET + fields * 94 + b"\r\n" + ADMIN, (200, 403), ("GET /",))
    yield refused(431, "fields-101", GET + fields * 100 + b"\r\n")
    room = 60 * 1024 - len(GET + b"X: \r\n\r\n") - 1024  # the next hop counts what was added on the way, too
    yield Row("head-59k", GET + b"X: " + b"a" * room + b"\r\n\r\n" + ADMIN, (200, 403), ("GET /",))
    yield refused(431, "head-61k", GET + b"X: " + b"a" * (room + 3000) + b"\r\n\r\n")
    yield refused(431, "target-61k", b"GET /" + b"a" * 62000 + b" HTTP/1.1\r\nHost: api\r\n\r\n")
    yield refused(431, "head-endless", GET + b"X: " + b"a" * 70000)
    yield Row("head-stops", GET + b"X: a", (), hang_up=True)
    yield Row("head-stops-before-the-end", GET + b"X: a\r\n", (), hang_up=True)


def paths() -> Iterator[Row]:
    """Other spellings of /admin."""
    denied = (
        *(b"/admin", b"/admin/", b"/admin/x", b"/admin?x", b"/admin;x", b"/x/../admin", b"/./admin", b"/x/./../admin"),
        *(b"/%61dmin", b"/%61%64%6d%69%6e", b"/x/%2e%2e/admin", b"/x/%2E./admin", b"/x/.%2e/admin", b"/%2e/admin"),
        *(
            b"/\\..\\admin",
            b"/x\\..\\admin",
            b"\\admin"[:0] + b"/../admin",
            b"/../../admin",
            b"/x/y/../../admin",
            b"/adminx",
        ),
        *(
            b"/admin%2Fx",
            b"/admin%00"[:6],
            b"/admin\\x",
            b"/admin%5c",
            b"/x;/../admin",
            b"/admin?/../x",
            b"/admin/../admin",
        ),
    )
    for number, path in enumerate(denied):
        yield Row(f"path-{number}-{path.decode()}", b"GET " + path + b" HTTP/1.1\r\nHost: api\r\n\r\n", (403,))
    for path in (b"/%00", b"/admin%00", b"/%00/admin", b"/x#/admin", b"/#", b"/admin#x", b"/x?#y"):
        yield Row(f"path-{path.decode()}", b"GET " + path + b" HTTP/1.1\r\nHost: api\r\n\r\n" + ADMIN, (400, 403))
    # Other paths than /admin by the rules of Envoy and Consul (no slashes merged, no %2F decoded): told by the linter,
    # and passed on in the very form that was judged.
    for path, seen in (
        (b"//admin", b"//admin"),
        (b"/x//../admin", b"/x/admin"),
        (b"/ADMIN", b"/ADMIN"),
        (b"/..%2fadmin", b"/..%2fadmin"),
        (b"/x/..%2fadmin", b"/x/..%2fadmin"),
        (b"/..;/admin", b"/..;/admin"),
        (b"/;/admin", b"/;/admin"),
        (b"/%2fadmin", b"/%2fadmin"),
        (b"/%c0%ae%c0%ae/admin", b"/%c0%ae%c0%ae/admin"),
        (b"/%252e%252e/admin", b"/%252e%252e/admin"),
        (b"/%u002e/admin", b"/%u002e/admin"),
        (b"/.../admin", b"/.../admin"),
        (b"/admi%6", b"/admi%6"),
        (b"/admin/..", b"/"),
        (b"/admin/../x", b"/x"),
        (b"/x?/../admin", b"/x?/../admin"),
        (b"/x\\y|{}", b"/x/y%7C%7B%7D"),
    ):
        raw = b"GET " + path + b" HTTP/1.1\r\nHost: api\r\n\r\n" + ADMIN
        yield Row(f"path-other-{path.decode()}", raw, (200, 403), (f"GET {seen.decode()}",))


def pipelines() -> Iterator[Row]:
    """Requests sent ahead, each judged by itself."""
    one = GET + b"\r\n"
    yield Row("ahead-five", one * 2 + ADMIN + one + ADMIN, (200, 200, 403, 200, 403), ("GET /",) * 3)
    yield Row("ahead-broken", one + b"GET /x HTTP/1.1\r\n\r\n" + ADMIN, (200, 400), ("GET /",), closes=True)
    denied = b"POST /admin HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n\r\n" % len(ADMIN)
    yield Row("denied-with-body", denied + ADMIN + one, (403, 200), ("GET /",))
    denied = b"POST /admin HTTP/1.1\r\nHost: api\r\n" + CHUNKED + b"\r\n3\r\nabc\r\n"
    yield Row("denied-in-the-middle", denied, (403,), closes=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hostile app answers, and what its caller gets. `status` 0: no whole answer, and the connection ends."""

    id: str
    raw: bytes
    status: int
    body: bytes = b""
    hang_up: bool = False


def answers() -> Iterator[Answer]:
    """Return what an app may answer to make its proxy lose count."""
    ok = b"HTTP/1.1 200 OK\r\n"
    ghost = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nghost"
    for name, raw in {
        "cl-te": ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "te-cl": ok + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "two-lengths": ok + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "two-equal-lengths": ok + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "length-list": ok + b"Content-Length: 1, 1\r\n\r\na",
        "length-signed": ok + b"Content-Length: +1\r\n\r\na",
        "length-negative": ok + b"Content-Length: -1\r\n\r\n",
        "length-empty": ok + b"Content-Length:\r\n\r\n",
        "length-huge": ok + b"Content-Length: 9223372036854775808\r\n\r\n",
        "te-unknown": ok + b"Transfer-Encoding: gzip\r\n\r\n",
        "te-list": ok + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "te-twice": ok + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "space-before-colon": ok + b"Content-Length : 1\r\n\r\na",
        "folded": ok + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
        "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "bare-cr": ok + b"X-A: 1\rContent-Length: 5\r\nContent-Length: 0\r\n\r\n",
        "nul": ok + b"X-A: \x00\r\nContent-Length: 0\r\n\r\n",
        "nul-in-reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        "status-099": b"HTTP/1.1 099 X\r\n\r\n" + ghost,
        "status-000": b"HTTP/1.1 000 X\r\n\r\n" + ghost,
        "status-1000": b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n",
        "status-text": b"HTTP/1.1 abc X\r\nContent-Length: 0\r\n\r\n",
        "http-2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "nonsense": b"nonsense\r\n\r\n",
        "101-unasked": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + ghost,
        "101-length": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nghost",
        "103-length": b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\nghost" + ghost,
        "103-chunked": b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ghost,
        "1xx-flood": b"HTTP/1.1 103 Hints\r\n\r\n" * 40 + ghost,
        "204-length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nghost",
        "204-chunked": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nghost\r\n0\r\n\r\n",
        "head-endless": ok + b"X: " + b"a" * 70000,
    }.items():
        yield Answer(name, raw, 502)
    for name, raw, body in (
        ("extra-bytes", ok + b"Content-Length: 2\r\n\r\nok" + ghost, b"ok"),
        ("extra-after-chunks", ok + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + ghost, b"ok"),
        ("extra-after-nothing", ok + b"Content-Length: 0\r\n\r\n" + ghost, b""),
        ("hints-first", b"HTTP/1.1 103 Hints\r\n\r\n" + ok + b"Content-Length: 2\r\n\r\nok", b"ok"),
        ("continue-unasked", b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + ok + b"Content-Length: 2\r\n\r\nok", b"ok"),
        ("connection-names-length", ok + b"Connection: content-length\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        ("chunk-extension", ok + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", b"ok"),
        ("old-keep-alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        ("upgrade-offer", ok + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ):
        yield Answer(name, raw, 200, body)
    yield Answer("until-close", ok + b"\r\nok", 200, b"ok", hang_up=True)
    yield Answer("old-until-close", b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok", hang_up=True)
    yield Answer("204-extra", b"HTTP/1.1 204 No Content\r\n\r\n" + ghost, 204)
    yield Answer("304-length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304)
    for name, raw, hang_up in (
        ("length-cut", ok + b"Content-Length: 50\r\n\r\nok", True),
        ("chunks-cut", ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok", True),
        ("chunks-unended", ok + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", True),
    ):
        yield Answer(name, raw, 0, hang_up=hang_up)
    for name, body in {
        "chunk-size": b"zz\r\nok\r\n0\r\n\r\n",
        "chunk-signed": b"+2\r\nok\r\n0\r\n\r\n",
        "chunk-64-bits": b"10000000000000002\r\nok\r\n0\r\n\r\n",
        "chunk-lf": b"2\nok\r\n0\r\n\r\n",
        "chunk-too-long": b"1\r\nok\r\n0\r\n\r\n",
        "chunk-trailer": b"2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
    }.items():
        yield Answer(name, ok + b"Transfer-Encoding: chunked\r\n\r\n" + body, 502)
    yield Answer("closed-at-once", b"", 503, hang_up=True)
    yield Answer("closed-in-head", b"HTTP/1.1 200 OK\r\nContent-", 503, hang_up=True)
