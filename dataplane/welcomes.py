"""What becomes of an accepted socket: which handshake, and which decision, by what its listener is for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dataplane.clock import NEVER, Clock
from dataplane.downstream import Downstream
from dataplane.entrance import HTTP, Entrance, let_in
from dataplane.exchange import Decide, Parse
from dataplane.heads import parse_request
from dataplane.inbound import inbound_decider, to_app
from dataplane.listener import Keeper, Welcome
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.outbound import upstream_decider
from dataplane.pools import Pools
from dataplane.tcp import Relay, dial_app, dial_upstream
from policies.errors import IdentityError
from policies.listeners import ListenerKey, Purpose, behind
from policies.table import Inbound

if TYPE_CHECKING:
    from dataplane.edge.listeners import EdgeListeners
    from dataplane.tls_transport import TlsTransport


class Welcomes:
    """The welcomes of one process. `speaks_tls` tells it of listeners for callers from outside."""

    def __init__(self, live: Live, pools: Pools, clock: Clock, metrics: Metrics) -> None:
        self.speaks_tls: dict[ListenerKey, bool] = {}
        self._live = live
        self._pools = pools
        self._clock = clock
        self._metrics = metrics

    @cached_property
    def edge(self) -> EdgeListeners:
        """What a gateway's listeners share."""
        from dataplane.edge.listeners import EdgeListeners  # noqa: PLC0415 - half a megabyte that no sidecar needs

        return EdgeListeners(self._live, self._pools, self._clock)

    def upstream(self, key: ListenerKey) -> Welcome:
        """Return the welcome of our app, for one upstream."""
        return self._plain(key, upstream_decider(self._live, self._pools, key.name))

    def proxy(self, key: ListenerKey) -> Welcome:
        """Return the welcome of our app, for hosts outside."""
        from dataplane.egress.forward_proxy import passing_on  # noqa: PLC0415 - of use to few sidecars
        from dataplane.egress.proxied_heads import parse_proxied  # noqa: PLC0415 - likewise

        decide = passing_on(upstream_decider(self._live, self._pools, key.name))
        return self._plain(key, decide, parse=parse_proxied)

    def outside(self, key: ListenerKey) -> Welcome:
        """Return the welcome of callers from outside."""
        if key.purpose is Purpose.PASSTHROUGH:
            return self.edge.passthrough(key.port, self._metrics.for_listener(str(key)))
        return self._plain(key, self.edge.decider(key.port), edge=self.edge)

    def speaks_first(self, key: ListenerKey) -> bool:
        """Return whether callers from outside speak before they hear anything."""
        generation = self._live.current
        if key.purpose is Purpose.PASSTHROUGH or self.speaks_tls.get(key) or generation is None:
            return True
        return behind(generation.table, key)[1] == HTTP

    def inbound(self, key: ListenerKey) -> Welcome:
        """Return the welcome of the mesh, for our app."""
        decide = inbound_decider(self._live, to_app(self._pools))
        http, connections = self._metrics.for_http(str(key)), self._metrics.for_listener(str(key))

        def dial(relay: Relay) -> Coroutine[Any, Any, None]:
            return dial_app(relay, self._inbound_now())

        entrance = Entrance(self._inbound_now, decide, dial, http, connections, self._live.plans)

        async def welcome(sock: socket.socket, listener: Keeper) -> None:
            generation = self._live.current
            if generation is None or generation.table.inbound is None or generation.leaf_ends <= self._clock.wall:
                raise IdentityError("own_leaf_expired", "there is no valid leaf to answer with")
            answer = (generation.contexts.server, generation.leaf_ends)
            await let_in(sock, listener, entrance, answer, generation.check_peer, self._clock)

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
                    downstream = Downstream(listener, decide, self._clock, counts, expires, self._live.plans)
                    downstream.parse = parse
                    if edge is not None and transport is not None:
                        downstream.caller_lines = edge.caller_lines(transport)
                    return downstream
                relay = Relay(listener, connections, self._clock, None, expires)
                if edge is not None:
                    relay.preface = edge.preface(upstream, listener)
                relays.append((relay, upstream))
                return relay.downstream

            if edge is not None and self.speaks_tls.get(key):
                await edge.shake_hands(sock, key.port, protocol)
            else:
                await asyncio.get_running_loop().connect_accepted_socket(protocol, sock)
            for relay, upstream in relays:
                relay.start()
                relay.dial(dial_upstream(relay, self._live, self._pools, upstream))

        return welcome
