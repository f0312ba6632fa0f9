from __future__ import annotations

import errno
import socket

import pytest

from dataplane.listener import _advice, bind
from policies.errors import ConfigError


def test_a_port_may_be_shared_by_a_successor() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            assert second.getsockname()[1] == port


def test_the_younger_of_two_sockets_gets_every_new_connection_and_the_one_that_is_left_gets_them_too() -> None:
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    for _ in range(3):
        second = bind("127.0.0.1", port)
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for _ in callers:
            second.accept()[0].close()
        with pytest.raises(BlockingIOError):
            first.accept()
        first.close()
        with socket.create_connection(("127.0.0.1", port)):
            second.accept()[0].close()
        for caller in callers:
            caller.close()
        first = second
    first.close()


def test_a_port_of_somebody_else_is_an_error_that_says_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="another process has the port") as caught:
            bind("127.0.0.1", other.getsockname()[1])
    assert caught.value.problems[0].where.startswith("listener 127.0.0.1:")


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(ConfigError, match="this machine has no such address"):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("\u00e9" * 80 + ".x", 80)])
def test_a_port_or_a_name_that_no_socket_takes_is_an_error(address: str, port: int) -> None:
    with pytest.raises(ConfigError, match="^listener "):
        bind(address, port)


def test_ipv6_is_bound_too() -> None:
    with bind("::1", 0) as sock:
        assert sock.family is socket.AF_INET6


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "privilege"), (errno.EIO, "")])
def test_other_errors_have_their_advice(number: int, words: str) -> None:
    assert words in _advice(OSError(number, "x"))
