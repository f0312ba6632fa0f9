from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from dataplane import peek as peeking
from dataplane.edge.client_hello import peek_client_hello
from harness.hellos import OF_CURL, records
from policies.edge.client_hello import ClientHello
from policies.errors import PreambleError

SECONDS = 5.0
NAMED = ClientHello("db.example.com", ("h2", "http/1.1"))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a connection over TCP: the client's, and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted, _ = server.accept()
        with accepted:
            accepted.setblocking(False)
            yield client, accepted


async def test_the_hello_is_read_and_left_there(ends: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = ends
    client.sendall(OF_CURL)
    assert await peek_client_hello(accepted, SECONDS) == NAMED
    assert accepted.recv(65536) == OF_CURL


async def test_a_hello_in_many_segments_wakes_nobody_for_each(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, accepted = ends
    looks: list[int] = []
    ready = peeking.ready

    async def counted(*arguments: object) -> None:
        await ready(*arguments)  # type: ignore[arg-type]
        looks.append(1)

    monkeypatch.setattr(peeking, "ready", counted)
    waiting = asyncio.create_task(peek_client_hello(accepted, SECONDS))
    data = records(OF_CURL[5:], 200)
    for at in range(len(data)):
        client.sendall(data[at : at + 1])
        await asyncio.sleep(0)
    assert await waiting == NAMED
    assert len(looks) < 12  # of 527 segments
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "closed"), (OF_CURL[:3], "closed"), (OF_CURL[:-1], "closed"), (b"GET / HTTP/1.1\r\n\r\n", "plaintext")],
)
async def test_who_leaves_or_speaks_something_else_is_refused(
    ends: tuple[socket.socket, socket.socket], sent: bytes, reason: str
) -> None:
    client, accepted = ends
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(PreambleError) as refused:
        await peek_client_hello(accepted, SECONDS)
    assert refused.value.reason == reason


@pytest.mark.parametrize("sent", [b"", OF_CURL[:100]])
async def test_who_does_not_finish_in_time_is_refused(ends: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    client, accepted = ends
    client.sendall(sent)
    with pytest.raises(PreambleError) as refused:
        await peek_client_hello(accepted, 0.05)
    assert refused.value.reason == "preamble_timeout"


async def test_a_connection_that_is_reset_is_an_error_of_its_own(ends: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = ends
    client.sendall(OF_CURL[:100])
    waiting = asyncio.create_task(peek_client_hello(accepted, SECONDS))
    await asyncio.sleep(0.01)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
    with pytest.raises((PreambleError, ConnectionResetError)):
        await waiting
