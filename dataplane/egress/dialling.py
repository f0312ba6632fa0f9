"""How an endpoint outside the mesh is connected to that has a host name, or is spoken to by TLS.

A host name has been looked up before; its addresses are tried as RFC 8305 says, a quarter of a second apart, and the
first that connects is taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohappyeyeballs

from dataplane.clock import NEVER
from dataplane.egress.names import Lookup, Names, Resolver
from dataplane.egress.origination import Originations, check_name
from dataplane.handshakes import originate_tls
from policies.errors import NameNotResolved, Problem

if TYPE_CHECKING:
    from dataplane.dialling import Made
    from dataplane.pool import Route
    from policies.egress.links import Origination

ATTEMPT_DELAY = 0.25  # seconds; RFC 8305 section 5


class OutsideDialler:
    """Connects by the names and the files that a table speaks of. `changed`: as that of `Names`."""

    def __init__(self, lookup: Lookup | None, changed: Callable[[str], None]) -> None:
        self.names = Names(lookup or Resolver())
        self.names.changed = changed
        self.originations = Originations()

    @property
    def settled(self) -> bool:
        """Return whether every host name has been looked up once, and every file read."""
        return self.names.settled and self.originations.settled

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with host names and files just now."""
        return (*self.names.problems, *self.originations.problems)

    def close(self) -> None:
        """Look nothing up any more."""
        self.names.close()
        self.originations.close()

    async def connect(self, route: Route, made: Made) -> None:
        """Connect. Raise OSError, UnicodeError, IdentityError, ConnectFailed."""
        if route.origination is not None:
            await self._originate(route, route.origination, made)
            return
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: made(NEVER, NEVER), sock=await self._socket(route))

    async def _originate(self, route: Route, origination: Origination, made: Made) -> None:
        context = await self.originations.context(origination)
        sock = await self._socket(route)
        await originate_tls(
            sock,
            context,
            origination.sni or route.host,
            lambda certificate: check_name(certificate, origination.sni) if origination.sni else None,
            lambda _transport: made(NEVER, NEVER),
        )

    async def _socket(self, route: Route) -> socket.socket:
        """Return a connected socket: of the addresses of a name the first that answers."""
        addresses = self.names.addresses(route.host) if route.address == route.host else (route.address,)
        if not addresses:
            raise NameNotResolved(route.host, "no address is known")
        sock = await aiohappyeyeballs.start_connection(
            [_address(one, route.port) for one in addresses], happy_eyeballs_delay=ATTEMPT_DELAY, interleave=1
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def _address(text: str, port: int) -> aiohappyeyeballs.AddrInfoType:
    if ":" in text:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (text, port))
