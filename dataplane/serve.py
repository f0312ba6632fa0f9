"""The listeners of a proxy, from their opening to their end.

`Dataplane` holds what all listeners share and opens and closes them by the table; its `steps` follow every swap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dataplane.clock import Clock
from dataplane.listener import HANDSHAKES_AT_ONCE, Listener, Welcome, bind
from dataplane.live import Generation, Live
from dataplane.metrics import Metrics
from dataplane.pools import Pools
from dataplane.revocation import Revocation
from dataplane.welcomes import Welcomes
from policies.errors import ConfigError, Problem
from policies.listeners import ListenerKey, Purpose, changes, ingress_key
from policies.table import Table

if TYPE_CHECKING:
    from dataplane.edge.listeners import EdgeListeners
    from dataplane.egress.doors import Doors
    from dataplane.egress.names import Lookup

log = structlog.get_logger(__name__)

_FROM_THE_MESH = frozenset({Purpose.INBOUND, Purpose.EGRESS})
_FROM_OUTSIDE = frozenset({Purpose.INGRESS, Purpose.PASSTHROUGH})
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
        self._welcomes = Welcomes(live, self.pools, self.clock, metrics)
        self.listeners: dict[ListenerKey, Listener] = {}
        self._revocations: dict[Listener, Revocation] = {}  # of every inbound listener, also while it is drained
        self._doors: dict[Listener, Doors] = {}  # of every egress listener, likewise
        self._closing: set[asyncio.Task[bool]] = set()
        self.draining = False
        self._planned: tuple[object, ...] | None = None  # what the listeners are open for

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
        for key in speaks.keys() & self._welcomes.speaks_tls.keys() & self.listeners.keys():
            if speaks[key] != self._welcomes.speaks_tls[key]:
                for connection in tuple(self.listeners[key].connections):
                    connection.drain()
        self._welcomes.speaks_tls = speaks

    @property
    def serves_outside(self) -> bool:
        """Return whether a port for callers from outside is open."""
        return any(key.purpose in _FROM_OUTSIDE for key in self.listeners)

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
        welcomes = self._welcomes
        match key.purpose:
            case Purpose.INBOUND:
                listener = self._bound(key, welcomes.inbound(key))
                counts = self._metrics.for_listener(str(key))
                self._revocations[listener] = Revocation(listener, counts, self.clock)
            case Purpose.EGRESS:
                from dataplane.egress.doors import Doors  # noqa: PLC0415 - of no use to a sidecar

                doors = Doors(self._live, self.pools, self.clock, self._metrics)
                listener = self._bound(key, doors.welcome, doors.introductions)
                self._doors[listener] = doors
            case Purpose.UPSTREAM:
                listener = self._bound(key, welcomes.upstream(key))
            case Purpose.PROXY:
                listener = self._bound(key, welcomes.proxy(key))
            case Purpose.INGRESS | Purpose.PASSTHROUGH:
                counts = self._metrics.for_listener(str(key))
                speaks_first = partial(welcomes.speaks_first, key)
                listener = self.edge.listen((key.address, key.port), welcomes.outside(key), counts, speaks_first)
        return listener

    def _bound(self, key: ListenerKey, welcome: Welcome, introductions: int = HANDSHAKES_AT_ONCE) -> Listener:
        refused = self._metrics.for_listener(str(key)).refused
        return Listener(
            bind(key.address, key.port),
            welcome,
            introductions=introductions,
            refused=lambda reason: refused.update((reason,)),
        )

    @property
    def edge(self) -> EdgeListeners:
        """What a gateway's listeners share; asked for on the first loop."""
        return self._welcomes.edge
