"""Where the pieces of a body are cut never matters, and what is passed on reads as what came: h11 is the judge."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from dataplane.bodies import ChunkedBody, LengthBody
from dataplane.heads import BadHead

CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
TRAILERS = st.lists(
    st.tuples(st.sampled_from([b"X-A", b"X-B"]), st.sampled_from([b"", b"1", b"two words"])), max_size=2
)


def encoded(chunks: list[bytes], trailers: list[tuple[bytes, bytes]]) -> bytes:
    text = b"".join(b"%x;e=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return text + b"0\r\n" + b"".join(b"%b: %b\r\n" % trailer for trailer in trailers) + b"\r\n"


def fed(body: ChunkedBody | LengthBody, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    out, rest, position = b"", b"", 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        piece, position = data[position:cut], cut
        if body.done:
            rest += piece
            continue
        passed, left = body.feed(piece)
        out, rest = out + passed, rest + left
    return out, rest


def read_by_h11(body: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body)
    data = b""
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Data):
            data += event.data
        elif isinstance(event, h11.EndOfMessage):
            return data, list(event.headers)
        else:
            assert isinstance(event, h11.Request), event


@given(CHUNKS, TRAILERS, st.lists(st.integers(0, 400), max_size=8), st.binary(max_size=5))
def test_a_chunked_body_reads_the_same_wherever_it_is_cut(
    chunks: list[bytes], trailers: list[tuple[bytes, bytes]], cuts: list[int], after: bytes
) -> None:
    body = ChunkedBody(400)
    out, rest = fed(body, encoded(chunks, trailers) + after, cuts)
    assert body.done
    assert rest == after
    data, told = read_by_h11(out)
    assert data == b"".join(chunks)
    assert told == [(name.lower(), value) for name, value in trailers]


@given(st.binary(max_size=100), st.lists(st.integers(0, 120), max_size=5), st.binary(max_size=5))
def test_a_body_of_known_length_reads_the_same_wherever_it_is_cut(
    content: bytes, cuts: list[int], after: bytes
) -> None:
    body = LengthBody(len(content))
    assert fed(body, content + after, cuts) == (content, after)
    assert body.done


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_garbage_is_read_alike_wherever_it_is_cut(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        body = ChunkedBody(400)
        try:
            out, rest = fed(body, data, cuts)
        except BadHead:
            return "refused"
        return (read_by_h11(out)[0], rest) if body.done else "unfinished"

    whole, cut = outcome([]), outcome(cuts)
    # A line that is broken may be seen broken before its end has come; never the other way round.
    assert cut == whole or {whole, cut} <= {"refused", "unfinished"}
