"""How an endpoint is connected to: mutual TLS into the mesh, plain to the local app, plain or TLS to the outside.

A host name outside has been looked up before; its addresses are tried as RFC 8305 says, a quarter of a second apart,
and the first that connects is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohappyeyeballs

from dataplane.clock import NEVER, Clock
from dataplane.handshakes import connect_tls, originate_tls
from dataplane.live import Live
from dataplane.names import Lookup, Names
from dataplane.origination import Originations, check_name
from dataplane.tls_transport import TlsTransport
from policies.errors import ConnectFailed, ConnectTimedOut, IdentityError, LeafEnded, NameNotResolved

if TYPE_CHECKING:
    from dataplane.pool import Route

ATTEMPT_DELAY = 0.25  # seconds; RFC 8305 section 5

Made = Callable[[float, float], asyncio.Protocol]
"""Returns the protocol of a connection, given when the certificates of the peer and of this end end (epoch)."""


class Dialler:
    """Connects. `names` and `originations` are what the outside needs."""

    def __init__(self, live: Live, clock: Clock, lookup: Lookup) -> None:
        self._live = live
        self._clock = clock
        self.names = Names(lookup)
        self.originations = Originations()

    def close(self) -> None:
        """Look nothing up any more."""
        self.names.close()
        self.originations.close()

    async def connect(self, route: Route, timeout: float, made: Made) -> None:
        """Connect within `timeout` seconds. Raise ConnectFailed or ConnectTimedOut."""
        if route.spiffe_id is not None:
            await self._into_the_mesh(route, timeout, made)
            return
        try:
            async with asyncio.timeout(timeout):
                if route.origination is not None:
                    await self._originate(route, made)
                else:
                    await self._plain(route, made)
        except TimeoutError as error:
            message = f"{route}: no connection within {timeout:g} s"
            raise ConnectTimedOut(message) from error
        except (OSError, UnicodeError, IdentityError) as error:  # UnicodeError: an address that is no host name
            message = f"{route}: {getattr(error, 'strerror', None) or error}"
            raise ConnectFailed(message) from error

    async def _into_the_mesh(self, route: Route, timeout: float, made: Made) -> None:
        assert route.spiffe_id is not None  # noqa: S101 - asked by the caller
        generation = self._live.current
        if generation is None or generation.leaf_ends <= self._clock.wall:
            message = "our own leaf has ended and there is no new one"
            raise LeafEnded(message)
        ours = generation.leaf_ends

        def protocol(transport: TlsTransport) -> asyncio.Protocol:
            return made(transport.peer.not_after.timestamp(), ours)

        await connect_tls(
            (route.address, route.port),
            generation.contexts.client,
            generation.check_peer,
            (route.sni, route.spiffe_id),
            timeout,
            protocol,
        )

    async def _plain(self, route: Route, made: Made) -> None:
        loop = asyncio.get_running_loop()
        if route.host:
            await loop.create_connection(lambda: made(NEVER, NEVER), sock=await self._socket(route))
            return
        transport, _ = await loop.create_connection(lambda: made(NEVER, NEVER), route.address, route.port)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # closed already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def _originate(self, route: Route, made: Made) -> None:
        origination = route.origination
        assert origination is not None  # noqa: S101 - asked by the caller
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
