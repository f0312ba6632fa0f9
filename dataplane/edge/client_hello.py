"""The ClientHello of an accepted socket, read ahead of the handshake so that a context can be chosen by it."""

from __future__ import annotations

import socket

from dataplane.peek import peek
from policies.edge.client_hello import MAX_HELLO, ClientHello, parse_client_hello


async def peek_client_hello(sock: socket.socket, timeout: float) -> ClientHello:
    """Return the hello that a non-blocking socket begins with, and leave it there for the handshake.

    `timeout` is in seconds. Raise PreambleError with reason `plaintext`, `bad_client_hello`,
    `client_hello_too_large`, `closed` or `preamble_timeout`; OSError when the connection broke.
    """
    return await peek(sock, parse_client_hello, MAX_HELLO, timeout)
