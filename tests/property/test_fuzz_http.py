"""Heads and bodies made of hostile pieces: what is taken reads the same to a strict reader written apart from ours."""

from __future__ import annotations

import os
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.bodies import ChunkedBody
from dataplane.heads import BadHead, RequestHead, looks_wrong, parse_request, parse_response

MANY = settings(max_examples=int(os.environ.get("N", "800")))
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]*) ([!-~]+) HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])( [\t -~\x80-\xff]*)?")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"expect"}

Fields = list[tuple[bytes, bytes]]

names = st.sampled_from(
    [
        *(
            b"Host",
            b"content-length",
            b"Transfer-Encoding",
            b"Connection",
            b"Upgrade",
            b"Expect",
            b"TE",
            b"X-A",
            b"x_b",
        ),
        *(b"X-Forwarded-Client-Cert", b"x_forwarded-client_cert", b"Keep-Alive", b"", b" X", b"X ", b"\n", b"X\x00"),
    ]
)
values = st.one_of(
    st.sampled_from(
        [
            *(
                b"a",
                b"api:80",
                b"u@a",
                b"5",
                b"05",
                b"+5",
                b"5, 5",
                b"-1",
                b"9" * 20,
                b"chunked",
                b"Chunked ",
                b"\x0bchunked",
            ),
            *(
                b"identity",
                b"close",
                b"host",
                b"x-a, close",
                b"upgrade",
                b"websocket",
                b"h2c",
                b"100-continue",
                b"trailers",
            ),
            *(b"", b"\r\n x", b"a\rb", b"a\nb", b"\x00", b"\xff", b"\t"),
        ]
    ),
    st.binary(max_size=4),
)
separators = st.sampled_from([b": ", b": ", b": ", b":", b":\t", b" : ", b"", b"\t:"])
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n "])
lines = st.lists(st.tuples(names, separators, values, ends).map(b"".join), max_size=5).map(b"".join)
firsts = st.tuples(
    st.sampled_from(
        [b"GET", b"GET", b"POST", b"HEAD", b"get", b"\nGET", b" GET", b"BREW", b"M-SEARCH", b"CONNECT", b""]
    ),
    st.sampled_from([b" ", b" ", b" ", b"\t", b"  "]),
    st.sampled_from(
        [b"/", b"/", b"/a?b", b"http://h/x", b"http://u@h/", b"*", b"/\xff", b"/ /", b"a", b"/#", b"http://h?q", b""]
    ),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0", b"", b" HTTP/1.1 ", b" HTTP/2.0"]),
).map(b"".join)
heads = st.tuples(
    firsts, st.just(b"\r\n"), st.sampled_from([b"Host: h\r\n", b"Host: h\r\n", b""]), lines, st.just(b"\r\n")
)


@st.composite
def hostile(draw: st.DrawFn, whole: st.SearchStrategy[tuple[bytes, ...]]) -> bytes:
    """Return a head up to its first empty line, now and then with a byte put in."""
    text = b"".join(draw(whole))
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.binary(min_size=1, max_size=2)) + text[place:]
    return text.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def read(head: bytes, first: re.Pattern[bytes]) -> tuple[re.Match[bytes], Fields]:
    """Return the first line and the fields as RFC 9112 has them; anything else is an assertion that fails."""
    assert head.endswith(b"\r\n\r\n")
    start, *rest = head[:-4].split(b"\r\n")
    found = first.fullmatch(start)
    assert found, start
    fields = []
    for line in rest:
        field = FIELD.fullmatch(line)
        assert field, line
        fields.append((field[1].lower(), field[2]))
    return found, fields


def of(fields: Fields, name: bytes) -> list[bytes]:
    return [value for key, value in fields if key == name]


def tokens(fields: Fields, name: bytes) -> set[bytes]:
    return {token.strip(b" \t").lower() for value in of(fields, name) for token in value.split(b",")}


def taken(head: bytes) -> RequestHead | None:
    try:
        return parse_request(head)
    except BadHead as error:
        assert 400 <= error.status < 600  # noqa: PT017 - the type is the claim, the status part of it
        return None


@MANY
@given(hostile(heads))
def test_a_request_that_is_taken_is_read_as_the_rfc_reads_it(head: bytes) -> None:
    request = taken(head)
    if request is None:
        return
    first, fields = read(head, REQUEST_LINE)
    lengths, codings = of(fields, b"content-length"), of(fields, b"transfer-encoding")
    assert request.method.encode() == first[1]
    assert len(lengths) + len(codings) <= 1
    assert request.content_length == (int(lengths[0]) if lengths else 0)
    assert request.chunked == bool(codings)
    assert request.close == (b"close" in tokens(fields, b"connection"))
    assert len(of(fields, b"host")) == 1


@MANY
@given(hostile(heads))
def test_a_request_goes_on_with_its_own_fields_and_no_others(head: bytes) -> None:
    request = taken(head)
    if request is None:
        return
    _, came = read(head, REQUEST_LINE)
    first, goes = read(request.render(), REQUEST_LINE)
    assert (first[1].decode(), first[2]) == (request.method, request.target)
    assert request.target.startswith(b"/")
    named = tokens(came, b"connection") | HOP_BY_HOP | {b"x_forwarded-client_cert", b"host"}
    kept = [field for field in came if field[0] not in named]
    assert [field for field in goes if field[0] not in named] == kept
    assert of(goes, b"host") == [request.host]
    assert of(goes, b"x_forwarded-client_cert") == []
    assert bool(of(goes, b"upgrade")) == request.upgrade
    again = parse_request(request.render())
    assert (again.method, again.target, again.host) == (request.method, request.target, request.host)
    assert (again.content_length, again.chunked) == (request.content_length, request.chunked)


@MANY
@given(hostile(heads), st.integers(0, 400))
def test_a_beginning_looks_wrong_only_when_the_whole_is_refused(head: bytes, length: int) -> None:
    if looks_wrong(head[:length]):
        assert taken(head) is None


statuses = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 204 X",
            b"HTTP/1.1 304 X",
            b"HTTP/1.1 103 X",
            b"HTTP/1.1 200",
        ),
        *(
            b"HTTP/1.0 200 OK",
            b"HTTP/1.1 099 X",
            b"HTTP/1.1 200 \x00",
            b"HTTP/2.0 200 X",
            b"\nHTTP/1.1 200 X",
            b"HTTP/1.1  200",
        ),
    ]
)
answers = st.tuples(statuses, st.just(b"\r\n"), lines, st.just(b"\r\n"))


@MANY
@given(hostile(answers))
def test_an_answer_that_is_taken_is_read_as_the_rfc_reads_it(head: bytes) -> None:
    try:
        response = parse_response(head)
    except BadHead as error:
        assert error.status == 502  # noqa: PT017 - the type is the claim, the status part of it
        return
    first, fields = read(head, STATUS_LINE)
    assert response.status == int(first[1])
    lengths, codings = of(fields, b"content-length"), of(fields, b"transfer-encoding")
    assert len(lengths) + len(codings) <= 1
    assert response.content_length == (int(lengths[0]) if lengths else None)
    assert response.chunked == bool(codings)
    _, goes = read(response.render(), STATUS_LINE)
    if response.status < 200 or response.status == 204:
        assert not of(goes, b"content-length") + of(goes, b"transfer-encoding")
    else:
        assert of(goes, b"content-length") == lengths


pieces = st.lists(
    st.sampled_from(
        [
            *(
                b"3",
                b"0",
                b"a",
                b"A",
                b"00",
                b"\r\n",
                b"\r\n",
                b"\r\n",
                b"\n",
                b"\r",
                b"abc",
                b";x",
                b';x="',
                b" ",
                b"+",
                b"0x",
            ),
            *(
                b"3\r\nabc\r\n",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
                b"0\r\n",
                b"X: 1\r\n",
                b"Host: a\r\n",
                b"\x00",
                b"f" * 16,
                b"-1",
            ),
        ]
    ),
    max_size=10,
).map(b"".join)
CANONICAL = re.compile(rb"(?:[1-9a-f][0-9a-f]*\r\n)|0\r\n")


def unchunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (body, trailers, rest) of a body in the one spelling that is passed on."""
    body = b""
    while True:
        line = CANONICAL.match(data)
        assert line, data
        size, data = int(line[0], 16), data[line.end() :]
        if not size:
            break
        assert data[size : size + 2] == b"\r\n"
        body, data = body + data[:size], data[size + 2 :]
    end = data.index(b"\r\n") if data.startswith(b"\r\n") else data.index(b"\r\n\r\n") + 2
    return body, data[:end], data[end + 2 :]


def reference(data: bytes) -> tuple[bytes, bytes] | None:
    """Return (body, rest) by the grammar of RFC 9112 section 7.1, or None for what is no whole body of it."""
    body = b""
    while line := re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n").match(data):
        size, data = int(line[1], 16), data[line.end() :]
        if not size:
            fields = re.compile(rb"(?:" + TOKEN + rb":[\t -~\x80-\xff]*\r\n)*\r\n").match(data)
            return (body, data[fields.end() :]) if fields else None
        if data[size : size + 2] != b"\r\n":
            return None
        body, data = body + data[:size], data[size + 2 :]
    return None


@MANY
@given(pieces, st.lists(st.integers(0, 60), max_size=4))
def test_a_chunked_body_that_ends_is_the_grammars(data: bytes, cuts: list[int]) -> None:
    reader = ChunkedBody(400)
    out = rest = b""
    position = 0
    try:
        for cut in [*sorted(cuts), len(data)]:
            piece, position = data[position:cut], max(position, cut)
            if reader.done:
                rest += piece
            else:
                passed, left = reader.feed(piece)
                out, rest = out + passed, rest + left
    except BadHead:
        return
    expected = reference(data)
    if reader.done:
        assert expected is not None
        assert (unchunk(out)[0], rest) == expected
        assert unchunk(out)[2] == b""
    else:
        assert expected is None
