"""Loopback ports that stay free until the program that they are for has taken them.

A port that the kernel gave for port 0 can be given again, or be taken by an outgoing connection, between the asking and
the listening. So these come from below the range that Linux uses for either (it begins at 32768,
``net.ipv4.ip_local_port_range``) and above what a Consul agent gives to sidecars (21000 to 21755), and every process
takes them from blocks of its own.
"""

import contextlib
import itertools
import random
import socket
import sys
from collections.abc import Collection, Iterator

FIRST, BLOCK, BLOCKS = 22_000, 50, 200


def _unclaimed_blocks() -> Iterator[int]:
    """Yield the first port of blocks that no other process on this network claims; a claim ends with its process.

    The claim is a name in Linux's abstract namespace of sockets (unix(7)), which belongs to the network namespace as
    ports do. Other systems have none: there only chance keeps two processes apart.
    """
    start = random.randrange(BLOCKS)  # not for secrets: only to keep away from others
    for block in itertools.islice(itertools.cycle(range(BLOCKS)), start, start + BLOCKS):
        first = FIRST + BLOCK * block
        if sys.platform == "linux":
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0lictor-ports-{first}")
            except OSError:
                claim.close()
                continue
            claim.detach()  # open until this process ends
        yield first


def _candidates() -> Iterator[int]:
    for first in _unclaimed_blocks():
        yield from range(first, first + BLOCK)
    raise OSError(f"every port from {FIRST} to {FIRST + BLOCK * BLOCKS - 1} is taken or claimed")


_ports = _candidates()


def _bindable(port: int) -> bool:
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


def free_ports(count: int, wanted: Collection[int] = ()) -> list[int]:
    """Return that many loopback ports, free now, given to nobody else by Lictor, and none of those wanted.

    Raises:
        OSError: This process was given all that there were.
    """
    usable = (port for port in _ports if port not in wanted and _bindable(port))
    return list(itertools.islice(usable, count))
