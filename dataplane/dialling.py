"""How an endpoint is connected to: mutual TLS into the mesh, plain to the local app, plain or TLS to the outside."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataplane.clock import NEVER, Clock
from dataplane.handshakes import connect_tls
from dataplane.live import Live
from dataplane.tls_transport import TlsTransport
from policies.errors import ConnectFailed, ConnectTimedOut, IdentityError, LeafEnded

if TYPE_CHECKING:
    from dataplane.egress.dialling import OutsideDialler
    from dataplane.egress.names import Lookup
    from dataplane.pool import Route

Made = Callable[[float, float], asyncio.Protocol]
"""Returns the protocol of a connection, given when the certificates of the peer and of this end end (epoch)."""


class Dialler:
    """Connects. `renamed` is called with a host name outside that has other addresses than before."""

    def __init__(self, live: Live, clock: Clock, lookup: Lookup | None = None) -> None:
        self._live = live
        self._clock = clock
        self._lookup = lookup
        self.renamed: Callable[[str], None] = lambda _name: None
        self.met: OutsideDialler | None = None

    @property
    def outside(self) -> OutsideDialler:
        """Return what the outside needs; `met` is None as long as there is none."""
        if self.met is None:
            from dataplane.egress.dialling import OutsideDialler  # noqa: PLC0415 - few sidecars lead outside

            self.met = OutsideDialler(self._lookup, self.renamed)
        return self.met

    def close(self) -> None:
        """Look nothing up any more."""
        if self.met is not None:
            self.met.close()

    async def connect(self, route: Route, timeout: float, made: Made) -> None:
        """Connect within `timeout` seconds. Raise ConnectFailed or ConnectTimedOut."""
        if route.spiffe_id is not None:
            await self._into_the_mesh(route, timeout, made)
            return
        try:
            async with asyncio.timeout(timeout):
                if route.host or route.origination is not None:
                    await self.outside.connect(route, made)
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
        transport, _ = await loop.create_connection(lambda: made(NEVER, NEVER), route.address, route.port)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # closed already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
