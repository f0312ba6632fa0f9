"""Where callers of the mesh come in: the handshake, and then tcp judged once or http request by request.

A sidecar has one entrance, to its app; a terminating gateway one for each filter chain.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataplane.downstream import Downstream
from dataplane.exchange import Parse
from dataplane.handshakes import accept_tls
from dataplane.heads import parse_request
from dataplane.tcp import Relay, judge

if TYPE_CHECKING:
    import asyncio

    from dataplane.clock import Clock
    from dataplane.exchange import Decide
    from dataplane.listener import Keeper
    from dataplane.metrics import ConnectionCounts, HttpCounts
    from dataplane.plans import Plans
    from dataplane.tls import PeerCheck
    from dataplane.tls_transport import TlsTransport
    from policies.table import Guarded

HTTP = "http"  # the one protocol that is understood request by request; others are relayed as tcp


@dataclass(frozen=True, slots=True)
class Entrance:
    """One entrance. `guard` tells what is in force now, or raises IdentityError when it is closed.

    A caller may take seconds for its handshake, and be denied meanwhile: it is asked again after it. `decide` judges
    requests, `dial` connects a tcp caller that may come in.
    """

    guard: Callable[[], Guarded]
    decide: Decide
    dial: Callable[[Relay], Coroutine[Any, Any, None]]
    http: HttpCounts
    connections: ConnectionCounts
    plans: Plans
    parse: Parse = parse_request


async def let_in(
    sock: socket.socket,
    keeper: Keeper,
    entrance: Entrance,
    answer: tuple[ssl.SSLContext, float],
    check: PeerCheck,
    clock: Clock,
) -> None:
    """Shake hands with a caller and let it in. `answer` is the context of the leaf and when that ends (epoch).

    `keeper` keeps the connection. Raise IdentityError, as `accept_tls` does.
    """
    context, leaf_ends = answer
    relays: list[Relay] = []

    def protocol(transport: TlsTransport) -> asyncio.Protocol:
        ends = min(transport.peer.not_after.timestamp(), leaf_ends)
        expires = clock.now + ends - clock.wall
        if entrance.guard().protocol == HTTP:
            counts = (entrance.http, entrance.connections)
            session = Downstream(keeper, entrance.decide, clock, counts, expires, entrance.plans)
            session.parse = entrance.parse
            return session
        relays.append(Relay(keeper, entrance.connections, clock, transport.peer, expires))
        return relays[0].downstream

    await accept_tls(sock, context, check, protocol)
    guard = entrance.guard()
    for relay in relays:
        relay.start()
        if judge(relay, guard, entrance.connections):
            relay.dial(entrance.dial(relay))
        else:
            relay.refuse()
