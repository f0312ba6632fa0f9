from __future__ import annotations

import pytest

from dataplane.bodies import ChunkedBody, LengthBody, UntilClose
from dataplane.heads import BadHead


def test_a_body_of_known_length_ends_there() -> None:
    body = LengthBody(5)
    assert body.feed(b"abc") == (b"abc", b"")
    assert body.end() is None
    assert body.feed(b"defg") == (b"de", b"fg")
    assert body.done
    assert body.end() == b""
    assert LengthBody(0).done


def test_a_body_until_close_is_told_in_chunks() -> None:
    body = UntilClose()
    assert body.feed(b"abc") == (b"3\r\nabc\r\n", b"")
    assert body.feed(b"") == (b"", b"")
    assert not body.done
    assert body.end() == b"0\r\n\r\n"
    assert body.done


def test_chunks_are_written_anew_and_trailers_passed_on() -> None:
    body = ChunkedBody(400)
    out, rest = body.feed(b"00A;ext=1\r\n0123456789\r\n0\r\nX-A: 1\r\n\r\nNEXT")
    assert out == b"a\r\n0123456789\r\n0\r\nX-A: 1\r\n\r\n"
    assert rest == b"NEXT"
    assert body.done
    assert body.end() == b""


def test_a_chunked_body_that_stops_is_cut_short() -> None:
    body = ChunkedBody(502)
    body.feed(b"5\r\nab")
    assert body.end() is None


@pytest.mark.parametrize(
    "data", [b"x\r\n", b"1\r\nab", b"1\r\na\n", b"1" * 20 + b"\r\n", b"\r\n", b"1\na", b"1" * 5000]
)
def test_broken_framing_is_refused_with_the_status_of_its_side(data: bytes) -> None:
    for status in (400, 502):
        body = ChunkedBody(status)
        with pytest.raises(BadHead) as caught:
            body.feed(data)
        assert (caught.value.status, caught.value.reason) == (status, "bad_chunk")


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "content-length", "Transfer-Encoding", "Authorization", "Cookie", "TE", "Trailer", "Connection"),
        *("X-Forwarded-Client-Cert", "x_forwarded_client_cert", "X-Forwarded-For", "Content-Type", "Upgrade", "Expect"),
    ],
)
def test_a_trailer_that_could_be_taken_for_a_field_of_the_head_is_refused(name: str) -> None:
    with pytest.raises(BadHead) as caught:
        ChunkedBody(400).feed(f"0\r\nX-A: 1\r\n{name}: x\r\n\r\n".encode())
    assert caught.value.reason == "bad_trailer"


@pytest.mark.parametrize(
    "line", [b"3 ", b"3\t", b" 3", b"3;\n", b"3;a\rb", b"3;\x00", b"+3", b"-3", b"0x3", b"3_0", b""]
)
def test_a_size_that_is_not_hexadecimal_digits_alone_is_refused(line: bytes) -> None:
    with pytest.raises(BadHead):
        ChunkedBody(400).feed(line + b"\r\nabc\r\n0\r\n\r\n")


@pytest.mark.parametrize("line", [b"3", b"0003", b"3;a", b"3;a=b", b'3; a="b;c"', b"3 ;a", b"3;"])
def test_extensions_and_leading_zeros_are_taken_and_not_passed_on(line: bytes) -> None:
    assert ChunkedBody(400).feed(line + b"\r\nabc\r\n0\r\n\r\n") == (b"3\r\nabc\r\n0\r\n\r\n", b"")
