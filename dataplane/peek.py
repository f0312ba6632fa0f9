"""Looking at what an accepted socket begins with, before it is decided who reads it.

Nothing is taken off the socket. The kernel wakes us when as many bytes are there as the next step needs
(SO_RCVLOWAT), so that a preamble which comes in many small segments does not keep the loop busy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from policies.errors import PreambleError

_Found = TypeVar("_Found")


async def peek(sock: socket.socket, parse: Callable[[bytes], _Found | int], limit: int, timeout: float) -> _Found:
    """Return what `parse` finds at the beginning of a non-blocking socket's stream.

    `parse` is given at most `limit` bytes and returns an int while it needs that many. Raise PreambleError: what
    `parse` raises, `closed` (the peer left first) or `preamble_timeout` after `timeout` seconds; and OSError.
    """
    loop = asyncio.get_running_loop()
    seen = 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                await ready(loop.add_reader, loop.remove_reader, sock.fileno())
                data = sock.recv(limit, socket.MSG_PEEK)
                found = parse(data) if data else 0
                if not isinstance(found, int):
                    return found
                if len(data) <= seen:  # woken without anything new: there will be no more
                    raise PreambleError("closed", "the peer left before it had said what it wants")
                seen = len(data)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, found)
    except TimeoutError as error:
        raise PreambleError("preamble_timeout", "the peer took too long to say what it wants") from error
    finally:
        if seen:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def ready(add: Callable[..., None], remove: Callable[[int], Any], descriptor: int) -> None:
    """Wait until a descriptor can be read or written."""
    event = asyncio.Event()
    add(descriptor, event.set)
    try:
        await event.wait()
    finally:
        remove(descriptor)
