"""Opening the listeners of a proxy: which socket leads to which decision.

`Dataplane` holds what all listeners share and opens and closes them by the table: `follow` is called after every swap.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Container, Coroutine, Iterator
from dataclasses import dataclass
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
from policies.table import Cluster, Inbound, IngressListener, Table

if TYPE_CHECKING:
    from dataplane.edge_listeners import EdgeListeners
    from dataplane.egress import Doors
    from dataplane.names import Lookup
    from dataplane.tls_transport import TlsTransport

log = structlog.get_logger(__name__)

_FROM_THE_MESH = frozenset({"inbound", "egress"})  # purposes
OPENED_AT_ONCE = 4  # listeners, until others have their turn


@dataclass(frozen=True, slots=True)
class ListenerKey:
    """What makes a listener the same listener: its purpose and its address. `name` is the upstream's key."""

    purpose: str  # inbound, egress, upstream, proxy, ingress, passthrough
    name: str
    address: str
    port: int

    def __str__(self) -> str:
        """Return the name used in metrics and logs."""
        return f"{self.purpose}:{self.name}" if self.name else self.purpose


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new table changes about the listeners."""

    open: tuple[ListenerKey, ...]
    close: tuple[ListenerKey, ...]


def wanted_listeners(table: Table, with_tls: Container[int] = ()) -> tuple[ListenerKey, ...]:
    """Return the listeners that a table calls for. `with_tls` are the ports whose certificates are there."""
    keys = []
    if table.inbound is not None:
        keys.append(ListenerKey("inbound", "", table.inbound.bind_address, table.inbound.bind_port))
    if table.egress is not None:
        keys.append(ListenerKey("egress", "", table.egress.bind_address, table.egress.bind_port))
    keys += [
        ListenerKey("proxy" if item.forward_proxy else "upstream", item.upstream, item.address, item.port)
        for item in table.listeners
    ]
    keys += [_ingress_key(item) for item in table.ingress if item.tls is None or item.port in with_tls]
    keys += [ListenerKey("passthrough", str(item.port), item.address, item.port) for item in table.passthrough]
    return tuple(keys)


def _ingress_key(listener: IngressListener) -> ListenerKey:
    return ListenerKey("ingress", str(listener.port), listener.address, listener.port)


def plan(have: frozenset[ListenerKey], table: Table, with_tls: Container[int] = ()) -> Plan:
    """Return what to open and what to close so that exactly the table's listeners are there."""
    want = wanted_listeners(table, with_tls)
    return Plan(tuple(key for key in want if key not in have), tuple(sorted(have - set(want), key=str)))


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
        for _ in self.pools.steps(_clusters(generation.table)):
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
        changes = plan(frozenset(self.listeners), table, with_tls)
        for key in changes.close:
            log.info("listener_closed", listener=str(key), port=key.port)
            closing = self._loop.create_task(self._drained(self.listeners.pop(key), drain_seconds))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for number, key in enumerate(changes.open, 1):
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
        speaks = {_ingress_key(listener): listener.tls is not None for listener in table.ingress}
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
            case "inbound":
                welcome = self._inbound(key)
            case "ingress" | "passthrough":
                return self._open_edge(key)
            case "egress":
                from dataplane.egress import Doors  # noqa: PLC0415 - of no use to a sidecar

                doors = Doors(self._live, self.pools, self.clock, self._metrics)
                welcome, introductions = doors.welcome, doors.introductions
            case "proxy":
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
        if key.purpose == "inbound":
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
        if key.purpose == "passthrough":
            welcome = self.edge.passthrough(key.port, counts)
        else:
            welcome = self._plain(key, self.edge.decider(key.port), edge=self.edge)
        return self.edge.listen((key.address, key.port), welcome, counts, lambda: self._speaks_first(key))

    def _speaks_first(self, key: ListenerKey) -> bool:
        """Return whether callers speak before they hear anything."""
        generation = self._live.current
        if key.purpose == "passthrough" or self._speaks.get(key) or generation is None:
            return True
        return _behind(generation.table, key)[1] == HTTP

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
                upstream, spoken = _behind(generation.table, key) if generation is not None else ("", "")
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


def _clusters(table: Table) -> Iterator[Cluster]:
    for outbound in table.outbounds.values():
        yield from outbound.clusters
    for chain in table.egress.chains.values() if table.egress is not None else ():
        yield chain.cluster
        for host in chain.hosts:
            yield from (host.clear, host.raw)


def _behind(table: Table, key: ListenerKey) -> tuple[str, str]:
    """Return (upstream, protocol) of what stands behind a listener for callers without an identity."""
    if key.purpose in {"upstream", "proxy"}:
        outbound = table.outbounds.get(key.name)
        return key.name, outbound.protocol if outbound is not None else ""
    for listener in table.ingress:
        if listener.port == key.port:
            first = listener.virtual_hosts[0].outbound if listener.virtual_hosts else ""
            return first, listener.protocol
    return "", ""
