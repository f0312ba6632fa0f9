"""Opening the listeners of a proxy: which socket leads to which decision.

`Dataplane` holds what all listeners share and opens and closes them by the table; its `steps` follow every swap.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import structlog

from dataplane.clock import NEVER, Clock
from dataplane.downstream import Downstream
from dataplane.entrance import HTTP, Entrance, let_in
from dataplane.exchange import Decide, Parse
from dataplane.heads import parse_request
from dataplane.inbound import inbound_decider, to_app
from dataplane.listener import HANDSHAKES_AT_ONCE, Keeper, Listener, Welcome, bind
from dataplane.live import Generation, Live
from dataplane.metrics import Metrics
from dataplane.outbound import upstream_decider
from dataplane.pools import Pools
from dataplane.revocation import Revocation
from dataplane.tcp import Relay, dial_app, dial_upstream
from policies.errors import ConfigError, IdentityError, Problem
from policies.listeners import ListenerKey, Purpose, behind, changes, ingress_key
from policies.table import Inbound, Table

if TYPE_CHECKING:
    from dataplane.edge_listeners import EdgeListeners
    from dataplane.egress import Doors
    from dataplane.names import Lookup
    from dataplane.tls_transport import TlsTransport

log = structlog.get_logger(__name__)

_FROM_THE_MESH = frozenset({Purpose.INBOUND, Purpose.EGRESS})
OPENED_AT_ONCE = 4  # listeners, until others have their turn


class Dataplane:
    """All listeners and pools of one process."""

    def __init__(self, live: Live, metrics: Metrics, lookup: Lookup | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._live = live
        self._metrics = metrics
        self.clock = Clock(self._loop)
        self.clock.start()
        self.pools = Pools(live, self.clock, metrics, lookup)
        self.listeners: dict[ListenerKey, Listener] = {}
        self._revocations: dict[Listener, Revocation] = {}  # of every inbound listener, also while it is drained
        self._doors: dict[Listener, Doors] = {}  # of every egress listener, likewise
        self._closing: set[asyncio.Task[bool]] = set()
        self.draining = False
        self._planned: tuple[object, ...] | None = None  # what the listeners are open for
        self._speaks: dict[ListenerKey, bool] = {}  # TLS, of listeners for callers from outside

    def steps(self, generation: Generation, drain_seconds: float) -> Iterator[list[ConfigError]]:
        """Open and close listeners for a generation that has just been put in force. Yield what could not be bound.

        The steps are short, so that others have their turn in between.
        """
        self._revoke(generation.table)
        for _ in self.pools.steps(generation.table.clusters()):
            yield []
        yield []
        yield from self._listen(generation, drain_seconds)
        self._revoke(generation.table)  # a listener that was opened now begins with these rules

    def _revoke(self, table: Table) -> None:
        for doors in self._doors.values():
            doors.follow(table.egress)
        inbound = table.inbound
        if inbound is None:
            return
        for listener, revocation in self._revocations.items():
            listener.max_connections = inbound.max_connections
            revocation.follow(inbound)

    def _listen(self, generation: Generation, drain_seconds: float) -> Iterator[list[ConfigError]]:
        table, with_tls = generation.table, frozenset(generation.outside)
        if table.ingress:
            with_tls |= self.edge.ports_with_tls(table)
        sides = (side for side in (table.inbound, table.egress) if side is not None)
        places = tuple((side.bind_address, side.bind_port) for side in sides)
        planned = (places, table.listeners, table.ingress, table.passthrough, with_tls)
        if planned == self._planned:
            return
        self._planned = None
        failures: list[ConfigError] = []
        self._finish_as_they_began(table)
        change = changes(frozenset(self.listeners), table, with_tls)
        for key in change.close:
            log.info("listener_closed", listener=str(key), port=key.port)
            closing = self._loop.create_task(self._drained(self.listeners.pop(key), drain_seconds))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for number, key in enumerate(change.open, 1):
            if self.draining:
                return
            try:
                self.listeners[key] = self._open(key)
            except ConfigError as error:
                failures.append(error)
            else:
                log.info("listener_opened", listener=str(key), address=key.address, port=key.port)
            if number % OPENED_AT_ONCE == 0:
                yield []
        self._planned = None if failures else planned  # what could not be bound is tried again
        yield failures

    def _finish_as_they_began(self, table: Table) -> None:
        """Where a listener begins or ends to speak TLS, let what it has open be the last of its kind."""
        speaks = {ingress_key(listener): listener.tls is not None for listener in table.ingress}
        for key in speaks.keys() & self._speaks.keys() & self.listeners.keys():
            if speaks[key] != self._speaks[key]:
                for connection in tuple(self.listeners[key].connections):
                    connection.drain()
        self._speaks = speaks

    @property
    def serves_outside(self) -> bool:
        """Return whether a port for callers from outside is open."""
        return any(key.purpose in {"ingress", "passthrough"} for key in self.listeners)

    @property
    def settled(self) -> bool:
        """Return whether what is outside has been looked up once."""
        return self.pools.settled

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong just now with what is outside."""
        return self.pools.problems

    def retire(self, *, inbound_only: bool = False) -> None:
        """Let every connection bring one more request at most. What listens goes on; nothing is opened any more."""
        self.draining = True
        for key, listener in self.listeners.items():
            if key.purpose in _FROM_THE_MESH or not inbound_only:
                listener.retire()

    async def drain(self, seconds: float, patience: float = 0.0) -> bool:
        """Stop accepting and let everything finish within `seconds`. Return whether nothing had to be cut.

        `patience`: as `Listener.drain`.
        """
        self.draining = True
        ended = await asyncio.gather(
            *(self._drained(listener, seconds, patience) for listener in self.listeners.values()),
            *tuple(self._closing),
        )
        self.listeners.clear()
        self.pools.close()
        self.clock.stop()
        return all(ended)

    def cut(self) -> None:
        """End every connection as it stands."""
        for listener in self.listeners.values():
            for connection in tuple(listener.connections):
                connection.abort()

    async def drain_inbound(self, seconds: float, patience: float = 0.0) -> bool:
        """Stop accepting from the mesh and let that finish; what this end calls goes on. As `drain`."""
        self.draining = True
        inbound = [key for key in self.listeners if key.purpose in _FROM_THE_MESH]
        ended = await asyncio.gather(*(self._drained(self.listeners.pop(key), seconds, patience) for key in inbound))
        return all(ended)

    async def _drained(self, listener: Listener, seconds: float, patience: float = 0.0) -> bool:
        """Drain a listener; what it still holds meanwhile is revoked like that of any other."""
        whole = await listener.drain(seconds, patience)
        revocation = self._revocations.pop(listener, None)
        if revocation is not None:
            revocation.close()
        doors = self._doors.pop(listener, None)
        if doors is not None:
            doors.close()
        return whole

    # --- opening ---

    def _open(self, key: ListenerKey) -> Listener:
        doors: Doors | None = None
        introductions = HANDSHAKES_AT_ONCE
        match key.purpose:
            case Purpose.INBOUND:
                welcome = self._inbound(key)
            case Purpose.INGRESS | Purpose.PASSTHROUGH:
                return self._open_edge(key)
            case Purpose.EGRESS:
                from dataplane.egress import Doors  # noqa: PLC0415 - of no use to a sidecar

                doors = Doors(self._live, self.pools, self.clock, self._metrics)
                welcome, introductions = doors.welcome, doors.introductions
            case Purpose.PROXY:
                from dataplane.forward_proxy import passing_on  # noqa: PLC0415 - of use to few sidecars
                from dataplane.proxied_heads import parse_proxied  # noqa: PLC0415 - likewise

                decide = passing_on(upstream_decider(self._live, self.pools, key.name))
                welcome = self._plain(key, decide, parse=parse_proxied)
            case _:
                welcome = self._plain(key, upstream_decider(self._live, self.pools, key.name))
        counts = self._metrics.for_listener(str(key))
        listener = Listener(
            bind(key.address, key.port),
            welcome,
            introductions=introductions,
            refused=lambda reason: counts.refused.update((reason,)),
        )
        if key.purpose == Purpose.INBOUND:
            self._revocations[listener] = Revocation(listener, counts, self.clock)
        if doors is not None:
            self._doors[listener] = doors
        return listener

    @cached_property
    def edge(self) -> EdgeListeners:
        """What a gateway's listeners share; asked for on the first loop."""
        from dataplane.edge_listeners import EdgeListeners  # noqa: PLC0415 - half a megabyte that no sidecar needs

        return EdgeListeners(self._live, self.pools, self.clock)

    def _open_edge(self, key: ListenerKey) -> Listener:
        counts = self._metrics.for_listener(str(key))
        if key.purpose == Purpose.PASSTHROUGH:
            welcome = self.edge.passthrough(key.port, counts)
        else:
            welcome = self._plain(key, self.edge.decider(key.port), edge=self.edge)
        return self.edge.listen((key.address, key.port), welcome, counts, lambda: self._speaks_first(key))

    def _speaks_first(self, key: ListenerKey) -> bool:
        """Return whether callers speak before they hear anything."""
        generation = self._live.current
        if key.purpose == Purpose.PASSTHROUGH or self._speaks.get(key) or generation is None:
            return True
        return behind(generation.table, key)[1] == HTTP

    def _inbound(self, key: ListenerKey) -> Welcome:
        decide = inbound_decider(self._live, to_app(self.pools))
        http, connections = self._metrics.for_http(str(key)), self._metrics.for_listener(str(key))

        def dial(relay: Relay) -> Coroutine[Any, Any, None]:
            return dial_app(relay, self._inbound_now())

        entrance = Entrance(self._inbound_now, decide, dial, http, connections, self._live.plans)

        async def welcome(sock: socket.socket, listener: Keeper) -> None:
            generation = self._live.current
            if generation is None or generation.table.inbound is None or generation.leaf_ends <= self.clock.wall:
                raise IdentityError("own_leaf_expired", "there is no valid leaf to answer with")
            answer = (generation.contexts.server, generation.leaf_ends)
            await let_in(sock, listener, entrance, answer, generation.check_peer, self.clock)

        return welcome

    def _inbound_now(self) -> Inbound:
        generation = self._live.current
        if generation is None or generation.table.inbound is None:
            raise IdentityError("closed", "there is nothing to come in to any more")
        return generation.table.inbound

    def _plain(
        self, key: ListenerKey, decide: Decide, parse: Parse = parse_request, edge: EdgeListeners | None = None
    ) -> Welcome:
        http, connections = self._metrics.for_http(str(key)), self._metrics.for_listener(str(key))

        async def welcome(sock: socket.socket, listener: Keeper) -> None:
            relays: list[tuple[Relay, str]] = []

            def protocol(transport: TlsTransport | None = None) -> asyncio.Protocol:
                generation = self._live.current
                upstream, spoken = behind(generation.table, key) if generation is not None else ("", "")
                expires = edge.expires(transport) if edge is not None and transport is not None else NEVER
                if spoken == HTTP:
                    counts = (http, connections)
                    downstream = Downstream(listener, decide, self.clock, counts, expires, self._live.plans)
                    downstream.parse = parse
                    if edge is not None and transport is not None:
                        downstream.caller_lines = edge.caller_lines(transport)
                    return downstream
                relay = Relay(listener, connections, self.clock, None, expires)
                if edge is not None:
                    relay.preface = edge.preface(upstream, listener)
                relays.append((relay, upstream))
                return relay.downstream

            if edge is not None and self._speaks.get(key):
                await edge.shake_hands(sock, key.port, protocol)
            else:
                await self._loop.connect_accepted_socket(protocol, sock)
            for relay, upstream in relays:
                relay.start()
                relay.dial(dial_upstream(relay, self._live, self.pools, upstream))

        return welcome
