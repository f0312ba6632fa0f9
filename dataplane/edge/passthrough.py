"""A listener that relays TLS which it does not end, to the service that the caller's SNI names."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from dataplane.clock import NEVER, Clock
from dataplane.edge.client_hello import peek_client_hello
from dataplane.tcp import Relay, dial_upstream
from policies.chain import HTTP_PROTOCOLS
from policies.errors import PreambleError

if TYPE_CHECKING:
    from dataplane.edge.guests import Reception
    from dataplane.listener import Keeper, Welcome
    from dataplane.live import Live
    from dataplane.metrics import ConnectionCounts
    from dataplane.pools import Pools
    from policies.table import Table

HELLO_SECONDS = 10.0


def passthrough_welcome(
    live: Live, pools: Pools, clock: Clock, counts: ConnectionCounts, reception: Reception, port: int
) -> Welcome:
    """Return what is done with a connection on this port.

    A connection is refused, and reset since its hello is left unread, with `unknown_sni` when no service takes the
    name, `not_tcp` when that service does not speak tcp in the mesh, and the reasons of `peek_client_hello`.
    """
    loop = asyncio.get_running_loop()

    async def welcome(sock: socket.socket, guest: Keeper) -> None:
        hello = await peek_client_hello(sock, HELLO_SECONDS)
        generation = live.current
        service = _service(generation.table, port, hello.sni) if generation is not None else ""
        relay = Relay(guest, counts, clock, None, NEVER)
        relay.preface = reception.preface(service, guest, hello.sni)
        await loop.connect_accepted_socket(lambda: relay.downstream, sock)
        relay.start()
        relay.dial(dial_upstream(relay, live, pools, service))

    return welcome


def _service(table: Table, port: int, sni: str) -> str:
    service = next((one.service_for(sni) for one in table.passthrough if one.port == port), None)
    if service is None:
        raise PreambleError("unknown_sni", f"no service takes {sni!r} on port {port}")
    outbound = table.outbounds.get(service)
    if outbound is not None and outbound.protocol in HTTP_PROTOCOLS:
        raise PreambleError("not_tcp", f"{service} speaks {outbound.protocol}: TLS can be passed on to tcp alone")
    return service
