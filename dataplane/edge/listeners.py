"""What the listeners of a gateway have beyond those of a sidecar; no sidecar loads this, nor what it stands on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataplane.edge.challenges import Challenges, Looked
from dataplane.edge.client_certificates import caller_ends, caller_lines
from dataplane.edge.client_hello import peek_client_hello
from dataplane.edge.guests import Reception
from dataplane.edge.passthrough import passthrough_welcome
from dataplane.edge.requests import each_request, edge_decider
from dataplane.handshakes import HANDSHAKE_TIMEOUT, accept_outside_tls
from dataplane.listener import Listener, bind
from dataplane.outbound import ingress_decider
from policies.edge.called_certificates import proved_by_tls
from policies.edge.settings import NO_EDGE
from policies.errors import IdentityError

if TYPE_CHECKING:
    from dataplane.clock import Clock
    from dataplane.exchange import Decide
    from dataplane.listener import Keeper, Welcome
    from dataplane.live import Live
    from dataplane.metrics import ConnectionCounts
    from dataplane.pools import Pools
    from dataplane.tls_transport import TlsTransport
    from policies.table import Table

UNSENT = 128 * 1024  # bytes that the kernel keeps for a caller of a gateway beyond those on their way
MANY = 65536  # connections that may be on their way to be known where nobody has set a limit


class EdgeListeners:
    """What all of them share."""

    def __init__(self, live: Live, pools: Pools, clock: Clock) -> None:
        self._live = live
        self._pools = pools
        self._clock = clock
        loop = asyncio.get_running_loop()
        self.challenges = Challenges(lambda: loop.call_soon_threadsafe(live.plans.forget))
        self._reception: Reception | None = None

    @property
    def reception(self) -> Reception:
        """Return the one of all listeners; its settings are those of the first table."""
        if self._reception is None:
            generation = self._live.current
            edge = generation.table.edge if generation is not None else None
            self._reception = Reception(edge or NO_EDGE, self._clock)
            self._reception.each = each_request(self._reception)
        return self._reception

    def decider(self, port: int) -> Decide:
        """Return how a request is decided that comes in at a port."""
        decide = ingress_decider(self._live, self._pools, port)
        return self.challenges.before(edge_decider(decide, self.reception))

    def passthrough(self, port: int, counts: ConnectionCounts) -> Welcome:
        """Return the welcome of a port on which TLS is passed on."""
        return passthrough_welcome(self._live, self._pools, self._clock, counts, self.reception, port)

    def listen(
        self, place: tuple[str, int], welcome: Welcome, counts: ConnectionCounts, speaks_first: Callable[[], bool]
    ) -> Listener:
        """Open a listener behind the reception. Raise ConfigError when its address cannot be had."""
        sock = bind(*place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # connections inherit it
        return Listener(
            sock,
            self.reception.guarded(welcome, place[1], speaks_first),
            introductions=self.reception.settings.protection.max_connections or MANY,
            refused=lambda reason: counts.refused.update((reason,)),
        )

    def ports_with_tls(self, table: Table) -> frozenset[int]:
        """Return the ports that speak TLS before there is a certificate, for the CA that is to sign it."""
        return proved_by_tls(table)

    def caller_lines(self, transport: TlsTransport) -> bytes:
        """Return the fields about the certificate of a caller."""
        return caller_lines(transport)

    def expires(self, transport: TlsTransport) -> float:
        """Return when a connection ends with the certificate of its caller, on the clock's scale."""
        return self._clock.now + caller_ends(transport) - self._clock.wall

    def preface(self, service: str, guest: Keeper) -> bytes:
        """Return what a service hears before the caller's own bytes."""
        return self.reception.preface(service, guest)

    async def shake_hands(
        self, sock: socket.socket, port: int, protocol: Callable[[TlsTransport], asyncio.Protocol]
    ) -> None:
        """Shake hands with the context in force for the name that a caller asks for."""
        hello = await peek_client_hello(sock, HANDSHAKE_TIMEOUT)
        pending = self.challenges.context(hello)
        if pending is not None:
            await accept_outside_tls(sock, pending, lambda _: Looked())
            return
        generation = self._live.current
        contexts = generation.outside.get(port) if generation is not None else None
        if contexts is None:
            raise IdentityError("closed", "there is no certificate for this listener")
        await accept_outside_tls(sock, contexts.choose(hello.sni, self._clock.wall), protocol)
