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
