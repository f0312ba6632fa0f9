"""The listener of a terminating gateway: which filter chain a caller comes to, and what becomes of the open ones.

    ClientHello ─▶ SNI ─▶ filter chain ─▶ the linked service's leaf ─▶ its intentions ─▶ outside

A caller that names no service, or one that is not linked, is reset without a word. So is one whose service has no leaf
to answer with. A chain is a door of its own in the one listener: revocation looks at each door by its intentions.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dataplane.client_hello import peek_client_hello
from dataplane.entrance import Entrance, let_in
from dataplane.handshakes import HANDSHAKE_TIMEOUT
from dataplane.inbound import inbound_decider
from dataplane.outside import dial_outside, to_outside
from dataplane.revocation import Revocation
from policies.errors import IdentityError
from policies.intentions import Action, Intentions
from policies.protection import INSIDE
from policies.table import FilterChain

if TYPE_CHECKING:
    from dataplane.clock import Clock
    from dataplane.listener import Connection, Keeper
    from dataplane.live import Live
    from dataplane.metrics import Metrics
    from dataplane.pools import Pools
    from policies.table import Egress

_NOBODY = Intentions()


class Door:
    """The connections of one filter chain, among those of the listener."""

    client = None
    each = None
    protection = INSIDE

    __slots__ = ("_listener", "chain", "connections", "entrance", "revocation")

    def __init__(self, listener: Keeper) -> None:
        self._listener = listener
        self.connections: set[Connection] = set()
        self.chain: FilterChain
        self.entrance: Entrance
        self.revocation: Revocation

    @property
    def retiring(self) -> bool:
        """Return whether the listener is."""
        return self._listener.retiring

    def follow(self, chain: FilterChain) -> None:
        """Judge what is open by what has just been put in force."""
        self.chain = chain
        self.revocation.follow(chain)

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

    def follow(self, egress: Egress | None) -> None:
        """Go by this table: what a chain denies now is closed, and all of a chain that is gone."""
        chains = egress.chains if egress is not None else {}
        for sni, door in self._doors.items():
            # To what is linked no more nobody may come: as if its intentions had been revoked.
            door.follow(chains.get(sni) or replace(door.chain, intentions=_NOBODY, default=Action.DENY))

    def close(self) -> None:
        """The listener and its connections are gone."""
        for door in self._doors.values():
            door.revocation.close()
        self._doors.clear()

    async def welcome(self, sock: socket.socket, listener: Keeper) -> None:
        """Let a caller in by the door that it names.

        Raise PreambleError for what is no ClientHello and IdentityError otherwise: `no_sni`, `unknown_sni`, `no_leaf`,
        and the reasons of `accept_tls`.
        """
        sni = (await peek_client_hello(sock, HANDSHAKE_TIMEOUT)).sni.lower()
        if not sni:
            raise IdentityError("no_sni", "the caller names no service")
        chain = self._chain(sni)
        generation = self._live.current
        credential = generation.linked.get(chain.service) if generation is not None else None
        if generation is None or credential is None or credential.ends <= self._clock.wall:
            raise IdentityError("no_leaf", f"there is no valid leaf of {chain.service} to answer with")
        door = self._doors.get(sni) or self._open(chain, listener)
        answer = (credential.contexts.server, credential.ends)
        await let_in(sock, door.entrance, answer, generation.check_peer, self._clock)

    def _open(self, chain: FilterChain, listener: Keeper) -> Door:
        sni, name = chain.sni, f"egress:{chain.service}"  # subsets count together
        door = self._doors[sni] = Door(listener)
        counts = self._metrics.for_listener(name)
        door.revocation = Revocation(door, counts, self._clock)
        door.entrance = Entrance(
            keeper=door,
            guard=partial(self._chain, sni),
            decide=inbound_decider(self._live, to_outside(self._pools, sni)),
            dial=lambda relay: dial_outside(relay, self._pools, self._chain(sni)),
            http=self._metrics.for_http(name),
            connections=counts,
            plans=self._live.plans,
        )
        door.follow(chain)
        return door

    def _chain(self, sni: str) -> FilterChain:
        """Return the chain in force. Raise IdentityError when there is none."""
        generation = self._live.current
        egress = generation.table.egress if generation is not None else None
        chain = egress.chains.get(sni) if egress is not None else None
        if chain is None:
            raise IdentityError("unknown_sni", f"no service is linked that {sni} names")
        return chain
