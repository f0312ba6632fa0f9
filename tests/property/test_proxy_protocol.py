"""PROXY headers: what is written is read again, from any cut on, and no bytes raise anything but our own error."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.edge.proxy_protocol import MAX_HEADER, ProxyHeader, parse_proxy_header, render_proxy_header
from policies.errors import PreambleError

MANY = settings(max_examples=int(os.environ.get("N", "300")))
ports = st.integers(0, 65535)
four = st.tuples(st.ip_addresses(v=4).map(str), ports)
six = st.tuples(st.ip_addresses(v=6).map(str), ports)


@MANY
@given(st.sampled_from([1, 2]), st.one_of(st.tuples(four, four), st.tuples(six, six)), st.text("abc.-", max_size=60))
def test_what_is_written_is_read_again(
    version: int, ends: tuple[tuple[str, int], tuple[str, int]], authority: str
) -> None:
    header = render_proxy_header(version, *ends, authority)
    assert parse_proxy_header(header + b"rest") == ProxyHeader(len(header), *ends)
    for cut in range(len(header)):
        needed = parse_proxy_header(header[:cut])
        assert isinstance(needed, int)
        assert cut < needed <= len(header)


starts = st.sampled_from(
    [
        render_proxy_header(1, ("192.0.2.1", 1), ("192.0.2.2", 2)),
        render_proxy_header(2, ("192.0.2.1", 1), ("192.0.2.2", 2), "db"),
        render_proxy_header(2, ("::1", 1), ("::2", 2)),
        b"PROXY UNKNOWN\r\n",
    ]
)


@MANY
@given(starts, st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=3)), max_size=4), st.binary(max_size=40))
def test_whatever_comes_the_only_error_is_our_own(good: bytes, edits: list[tuple[int, bytes]], rest: bytes) -> None:
    data = bytearray(good + rest)
    for at, content in edits:
        data[at : at + len(content)] = content
    try:
        found = parse_proxy_header(bytes(data))
    except PreambleError:
        return
    size = found.size if isinstance(found, ProxyHeader) else 0
    assert size <= len(data) if isinstance(found, ProxyHeader) else len(data) < found <= MAX_HEADER
