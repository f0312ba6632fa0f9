from __future__ import annotations

import pytest

from harness.hellos import (
    GREASE,
    OF_CURL,
    OF_OPENSSL,
    OF_OPENSSL_WITHOUT_NAME,
    extension,
    message,
    of_python,
    protocols,
    records,
    server_name,
    vector,
)
from policies.edge.client_hello import MAX_HELLO, ClientHello, parse_client_hello
from policies.errors import PreambleError

NAMED = ClientHello("db.example.com", ("h2", "http/1.1"))


@pytest.mark.parametrize(
    ("data", "hello"),
    [
        (OF_OPENSSL, NAMED),
        (OF_OPENSSL_WITHOUT_NAME, ClientHello()),
        (OF_CURL, NAMED),
        (of_python("DB.Example.com", ["h2", "http/1.1"]), NAMED),
        (of_python(None, []), ClientHello()),
        (of_python(None, ["acme-tls/1"]), ClientHello("", ("acme-tls/1",))),
        (records(message()), ClientHello()),
    ],
)
def test_the_hellos_of_clients_are_read(data: bytes, hello: ClientHello) -> None:
    assert parse_client_hello(data) == hello
    assert parse_client_hello(data + b"what follows") == hello


def test_grease_and_large_key_shares_are_passed_over() -> None:
    """As Chrome does it: unknown ciphers, extensions and protocols, and a post-quantum share."""
    grease = GREASE.to_bytes(2, "big")
    hello = message(
        extension(GREASE, b""),
        server_name(b"db.example.com"),
        protocols([grease, b"h2"]),
        extension(51, vector(bytes(1250), 2)),
        extension(0x1A1A, b"\x00"),
        session=bytes(32),
        ciphers=grease + b"\x13\x01",
    )
    assert parse_client_hello(records(hello)) == ClientHello("db.example.com", ("\n\n", "h2"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 4096])
def test_a_hello_over_several_records_is_read(size: int) -> None:
    data = records(OF_CURL[5:], size)
    assert parse_client_hello(data) == NAMED
    needed = parse_client_hello(data[:-1])
    assert needed == len(data)


def test_what_is_asked_for_of_many_small_records_comes_in_few_steps() -> None:
    data, steps, there = records(OF_CURL[5:], 1), 0, 0
    while isinstance(found := parse_client_hello(data[:there]), int):
        there, steps = found, steps + 1
    assert found == NAMED
    assert steps < 80  # of 512 records


BODY = message(server_name(b"db"))[4:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "plaintext"),
        (b"\x80\x2e\x01\x03\x01", "plaintext"),  # SSL 2
        (b"\x15\x03\x01\x00\x02\x01\x00", "plaintext"),  # an alert
        (b"\x16\x02\x00\x00\x05", "bad_client_hello"),
        (b"\x16\x03\x01\x00\x00", "bad_client_hello"),  # an empty record
        (b"\x16\x03\x01\x40\x01", "bad_client_hello"),  # more than a record holds
        (records(b"\x02" + vector(bytes(40), 3)), "bad_client_hello"),  # a ServerHello
        (records(message(server_name(b"db")), 20)[:25] + b"\x17\x03\x01\x00\x01", "bad_client_hello"),
        (records(b"\x01\x00\x00\x00"), "bad_client_hello"),
        (records(b"\x01" + vector(BODY[:34], 3)), "bad_client_hello"),
        (records(b"\x01" + vector(BODY[:-1], 3)), "bad_client_hello"),
        (records(b"\x01" + vector(BODY + b"x", 3)), "bad_client_hello"),
        (records(message(server_name(b"a"), server_name(b"b"))), "bad_client_hello"),
        (records(message(protocols([b"h2"]), protocols([b"h2"]))), "bad_client_hello"),
        (records(message(extension(GREASE, b""), extension(GREASE, b""))), "bad_client_hello"),
        (records(message(server_name(b""))), "bad_client_hello"),
        (records(message(server_name(b"a\x00b"))), "bad_client_hello"),
        (records(message(server_name(b"a b"))), "bad_client_hello"),
        (records(message(server_name("ü.example".encode()))), "bad_client_hello"),
        (records(message(server_name(b"a" * 256))), "bad_client_hello"),
        (records(message(extension(0, b""))), "bad_client_hello"),  # a server's answer
        (records(message(extension(0, vector(b"", 2)))), "bad_client_hello"),
        (records(message(extension(0, vector(b"\x01" + vector(b"a", 2), 2)))), "bad_client_hello"),
        (
            records(message(extension(0, vector(b"\x00" + vector(b"a", 2) + b"\x00" + vector(b"b", 2), 2)))),
            "bad_client_hello",
        ),
        (records(message(protocols([]))), "bad_client_hello"),
        (records(message(protocols([b""]))), "bad_client_hello"),
        (records(message(protocols([b"h2"]) + b"\x00")), "bad_client_hello"),
        (records(message(extension(21, bytes(MAX_HELLO)))), "client_hello_too_large"),
        (records(message(extension(21, bytes(12_000))), 2), "client_hello_too_large"),
    ],
)
def test_what_is_no_hello_is_refused_with_a_word(data: bytes, reason: str) -> None:
    with pytest.raises(PreambleError) as refused:
        parse_client_hello(data)
    assert refused.value.reason == reason


def test_a_hello_that_says_that_it_is_too_long_is_not_waited_for() -> None:
    with pytest.raises(PreambleError, match="more than 16384"):
        parse_client_hello(records(b"\x01\xff\xff\xff"))
