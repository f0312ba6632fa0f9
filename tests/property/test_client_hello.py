"""ClientHellos of any shape, in records of any size, cut anywhere; and bytes that are none."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.hellos import OF_CURL, OF_OPENSSL, extension, message, of_python, protocols, records, server_name
from policies.edge.client_hello import MAX_HELLO, ClientHello, parse_client_hello
from policies.errors import PreambleError

MANY = settings(max_examples=int(os.environ.get("N", "100")))

names = st.from_regex(r"[A-Za-z0-9-]{1,20}(\.[A-Za-z0-9-]{1,20}){0,5}", fullmatch=True)
offers = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4)
others = st.lists(
    st.tuples(st.integers(17, 0xFFFF), st.binary(max_size=300)), max_size=6, unique_by=lambda other: other[0]
)


@MANY
@given(st.none() | names, st.none() | offers, others, st.integers(1, 700), st.data())
def test_what_was_said_is_read_and_never_from_less(
    sni: str | None, alpn: list[bytes] | None, more: list[tuple[int, bytes]], size: int, data: st.DataObject
) -> None:
    said = [server_name(sni.encode())] if sni is not None else []
    said += [protocols(alpn)] if alpn is not None else []
    said += [extension(kind, content) for kind, content in more]
    stream = records(message(*data.draw(st.permutations(said))), size)
    hello = ClientHello((sni or "").lower(), tuple(name.decode("latin-1") for name in alpn or ()))
    assert parse_client_hello(stream) == hello
    cut = data.draw(st.integers(0, len(stream) - 1))
    needed = parse_client_hello(stream[:cut])
    assert isinstance(needed, int)
    assert cut < needed <= len(stream)


@MANY
@given(names.filter(lambda name: len(name) < 64), st.lists(st.sampled_from(["h2", "http/1.1"]), unique=True))
def test_what_python_says_is_read(sni: str, alpn: list[str]) -> None:
    try:
        stream = of_python(sni, alpn)
    except ValueError:  # Python takes no name that begins with a dash or a dot
        return
    assert parse_client_hello(stream) == ClientHello(sni.lower(), tuple(alpn))


@MANY
@given(
    st.sampled_from([OF_CURL, OF_OPENSSL]), st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=3)), max_size=4)
)
def test_whatever_comes_the_only_error_is_our_own(good: bytes, edits: list[tuple[int, bytes]]) -> None:
    stream = bytearray(good)
    for at, content in edits:
        stream[at : at + len(content)] = content
    try:
        found = parse_client_hello(bytes(stream))
    except PreambleError:
        return
    assert isinstance(found, ClientHello) or len(stream) < found <= MAX_HELLO
