"""The listener of a terminating gateway: which filter chain a caller comes to, and what becomes of the open ones.

    ClientHello ─▶ SNI ─▶ filter chain ─▶ the linked service's leaf ─▶ its intentions ─▶ outside

A caller that names no service, or one that is not linked, is reset without a word. So is one whose service has no leaf
to answer with. A chain is a door of its own in the one listener: revocation looks at each door by its intentions.
The gateway's own name is the door to its forward proxy, if it is one. Before them stands the reception, as at the edge.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from dataplane.edge.client_hello import peek_client_hello
from dataplane.edge.guests import Reception
from dataplane.edge.requests import each_request
from dataplane.egress.forward_proxy import forwarding_decider
from dataplane.egress.outside import dial_outside, to_outside
from dataplane.egress.proxied_heads import parse_proxied
from dataplane.entrance import Entrance, let_in
from dataplane.handshakes import HANDSHAKE_TIMEOUT
from dataplane.heads import parse_request
from dataplane.inbound import inbound_decider
from dataplane.listener import HANDSHAKES_AT_ONCE
from dataplane.revocation import Revocation
from policies.edge.forwarding import NOTHING_TOLD
from policies.edge.settings import EdgeSettings
from policies.egress.forward_proxy import ForwardGuard
from policies.errors import IdentityError
from policies.intentions import Action, Intentions
from policies.protection import INSIDE
from policies.table import FilterChain

if TYPE_CHECKING:
    from dataplane.clock import Clock
    from dataplane.edge.guests import Guest
    from dataplane.listener import Connection, Keeper
    from dataplane.live import Generation, Live
    from dataplane.metrics import Metrics
    from dataplane.pools import Pools
    from dataplane.tcp import Relay
    from policies.table import Egress

_Guard = FilterChain | ForwardGuard
_NOBODY = Intentions()
_NO_PORT = 0  # none of the mesh sends PROXY headers


class Door:
    """The connections of one filter chain, or of the forward proxy, among those of the listener."""

    client = None
    each = None
    protection = INSIDE

    __slots__ = ("_listener", "connections", "entrance", "guard", "revocation")

    def __init__(self, listener: Keeper) -> None:
        self._listener = listener
        self.connections: set[Connection] = set()
        self.guard: _Guard
        self.entrance: Entrance
        self.revocation: Revocation

    @property
    def retiring(self) -> bool:
        """Return whether the listener is."""
        return self._listener.retiring

    def follow(self, guard: _Guard) -> None:
        """Judge what is open by what has just been put in force."""
        self.guard = guard
        self.revocation.follow(guard)

    def joined(self, connection: Connection) -> None:
        """Keep a connection."""
        self.connections.add(connection)
        self._listener.joined(connection)

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._listener.left(connection)


class Doors:
    """All doors of one listener, by SNI; a door is made when its first caller comes."""

    def __init__(self, live: Live, pools: Pools, clock: Clock, metrics: Metrics) -> None:
        self._live = live
        self._pools = pools
        self._clock = clock
        self._metrics = metrics
        self._doors: dict[str, Door] = {}
        edge = live.current.table.edge if live.current is not None else None
        protection = edge.protection if edge is not None else INSIDE
        self._reception = Reception(EdgeSettings(forwarding=NOTHING_TOLD, protection=protection), clock)
        self._reception.each = each_request(self._reception)
        self.welcome = self._reception.guarded(self._let_in, _NO_PORT, lambda: True)
        self._forward: tuple[Egress, ForwardGuard] | None = None  # as long as the table says the same, the same

    def follow(self, egress: Egress | None) -> None:
        """Go by this table: what a chain denies now is closed, and all of a chain that is gone."""
        for sni, door in self._doors.items():
            # To what is linked no more nobody may come: as if its intentions had been revoked.
            guard = self._of(egress, sni) or replace(door.guard, intentions=_NOBODY, default=Action.DENY)
            door.follow(guard)

    def close(self) -> None:
        """The listener and its connections are gone."""
        for door in self._doors.values():
            door.revocation.close()
        self._doors.clear()

    @property
    def introductions(self) -> int:
        """Return how many callers may be on their way to be known: all that may be there, if there is a limit."""
        return self._reception.settings.protection.max_connections or HANDSHAKES_AT_ONCE

    async def _let_in(self, sock: socket.socket, keeper: Keeper) -> None:
        """Let a caller in by the door that it names.

        Raise PreambleError for what is no ClientHello and IdentityError otherwise: `no_sni`, `unknown_sni`, `no_leaf`,
        and the reasons of `accept_tls`.
        """
        sni = (await peek_client_hello(sock, HANDSHAKE_TIMEOUT)).sni.lower()
        if not sni:
            raise IdentityError("no_sni", "the caller names no service")
        guard = self._guard(sni)
        generation = self._live.current
        answer = _answer(generation, guard) if generation is not None else None
        if generation is None or answer is None or answer[1] <= self._clock.wall:
            raise IdentityError("no_leaf", f"there is no valid leaf of {guard.service} to answer with")
        guest = cast("Guest", keeper)
        door = self._doors.get(sni) or self._open(sni, guard, guest.listener)
        guest.listener = door
        await let_in(sock, guest, door.entrance, answer, generation.check_peer, self._clock)

    def _open(self, sni: str, guard: _Guard, listener: Keeper) -> Door:
        proxy = isinstance(guard, ForwardGuard)
        name = "egress" if proxy else f"egress:{guard.service}"  # subsets count together
        door = self._doors[sni] = Door(listener)
        counts = self._metrics.for_listener(name)
        door.revocation = Revocation(door, counts, self._clock)
        door.entrance = Entrance(
            guard=partial(self._guard, sni),
            decide=forwarding_decider(self._live, self._pools, self._clock)
            if proxy
            else inbound_decider(self._live, to_outside(self._pools, sni)),
            dial=partial(self._dial, sni),
            http=self._metrics.for_http(name),
            connections=counts,
            plans=self._live.plans,
            parse=parse_proxied if proxy else parse_request,
        )
        door.follow(guard)
        return door

    async def _dial(self, sni: str, relay: Relay) -> None:
        generation = self._live.current
        guard = self._of(generation.table.egress, sni) if generation is not None else None
        if isinstance(guard, FilterChain):
            await dial_outside(relay, self._pools, guard)
        else:
            relay.refuse()  # it was a service a moment ago

    def _guard(self, sni: str) -> _Guard:
        """Return what is in force. Raise IdentityError when there is nothing."""
        generation = self._live.current
        guard = self._of(generation.table.egress, sni) if generation is not None else None
        if guard is None:
            raise IdentityError("unknown_sni", f"no service is linked that {sni} names")
        return guard

    def _of(self, egress: Egress | None, sni: str) -> _Guard | None:
        if egress is None:
            return None
        if sni in egress.chains or sni != egress.proxy_sni:
            return egress.chains.get(sni)
        if self._forward is None or self._forward[0] is not egress:
            self._forward = (egress, ForwardGuard.of(egress))
        return self._forward[1]


def _answer(generation: Generation, guard: _Guard) -> tuple[ssl.SSLContext, float] | None:
    """Return the context that answers a caller, and when its leaf ends: that of the service that was asked for."""
    if isinstance(guard, ForwardGuard):
        return generation.contexts.server, generation.leaf_ends
    credential = generation.linked.get(guard.service)
    return (credential.contexts.server, credential.ends) if credential is not None else None
