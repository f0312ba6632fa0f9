"""tcp: bytes both ways between a caller and an endpoint, decided once a connection; see also `revocation`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

import structlog

from dataplane.circuits import Overflow
from dataplane.clock import NEVER, Clock
from dataplane.pool import Pool
from dataplane.pools import Pools
from policies.errors import ConnectFailed, ConnectTimedOut, LeafEnded, NameNotResolved
from policies.splits import pick

if TYPE_CHECKING:
    from dataplane.clusters import ClusterPools, Failover
    from dataplane.listener import Keeper
    from dataplane.live import Live
    from dataplane.metrics import ConnectionCounts
    from policies.identity import Peer
    from policies.table import Guarded, Inbound, Outbound

log = structlog.get_logger(__name__)

ATTEMPTS = 3


def _nothing() -> None:
    """Nobody has to be told."""


class Pipe(asyncio.Protocol):
    """One end of a relay. What it reads is written to `other`; while there is no other end it does not read."""

    __slots__ = ("_count", "_early", "_ended", "_on_lost", "other", "transport")

    def __init__(self, on_lost: Callable[[], None], count: Callable[[int], None]) -> None:
        self._on_lost = on_lost
        self._count = count
        self._early = b""  # uvloop reads once although paused in connection_made
        self._ended = False
        self.other: Pipe | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the other end."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if self.other is None:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._count(len(data))
        if self.other is not None:
            self.other.transport.write(data)
        else:
            self._early += data
            self.transport.pause_reading()

    def join(self, other: Pipe) -> None:
        """Begin to pass on to the other end."""
        self.other = other
        if self._early:
            other.transport.write(self._early)
            self._early = b""
        if self._ended and other.transport.can_write_eof():
            other.transport.write_eof()

    def eof_received(self) -> bool:
        """Pass on the end of this direction; the other one goes on."""
        self._ended = True
        other = self.other
        if other is None:
            return True  # the other end is told when it joins
        if other.transport.is_closing() or other._ended or not other.transport.can_write_eof():  # noqa: SLF001
            return False
        other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other end too, after what is still to be written."""
        del exc
        if self.other is not None:
            self.other.transport.close()
        self._on_lost()

    def pause_writing(self) -> None:
        """This end reads slowly: let the other wait."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()


class Relay:
    """A caller's connection and the one made for it."""

    receiving = False  # a caller may be silent for as long as it likes

    __slots__ = (
        "_clock",
        "_counts",
        "_dialling",
        "_listener",
        "caller",
        "deadline",
        "downstream",
        "preface",
        "upstream",
    )

    def __init__(
        self, listener: Keeper, counts: ConnectionCounts, clock: Clock, caller: Peer | None, expires: float
    ) -> None:
        self._listener = listener
        self._counts = counts
        self._clock = clock
        self._dialling: asyncio.Task[None] | None = None
        self.caller = caller
        self.deadline = expires
        self.downstream = Pipe(self._lost, self._received)
        self.upstream: Pipe | None = None
        self.preface = b""  # what the other end hears first

    @property
    def transport(self) -> asyncio.Transport:
        """Return the caller's end."""
        return self.downstream.transport

    def start(self) -> None:
        """Count the caller, who waits until `dial` has joined the other end."""
        self._counts.accepted += 1
        self._clock.add(self)
        self._listener.joined(self)

    def dial(self, dialling: Coroutine[Any, Any, None]) -> None:
        """Make the other end's connection; given up when the caller leaves."""
        self._dialling = asyncio.get_running_loop().create_task(dialling)

    def join(self, upstream: Pipe) -> None:
        """Connect both ends."""
        self.upstream = upstream
        if self.downstream.transport.is_closing():
            upstream.transport.abort()
            return
        if self.preface:
            upstream.transport.write(self.preface)
        self.downstream.join(upstream)
        upstream.join(self.downstream)
        upstream.transport.resume_reading()
        self.downstream.transport.resume_reading()

    def last(self) -> None:
        """Nothing to announce on tcp."""

    def drain(self) -> None:
        """Nothing to announce on tcp: it goes on until it ends or is aborted."""

    def abort(self) -> None:
        """Close both ends at once."""
        self.downstream.transport.abort()
        if self.upstream is not None:
            self.upstream.transport.abort()

    def too_slow(self, reason: str) -> None:
        """The caller does not read: let go of both ends."""
        self._counts.cut[reason] += 1
        self.abort()

    def expire(self) -> None:
        """A certificate of this connection has ended."""
        self.deadline = NEVER
        caller = str(self.caller.spiffe_id) if self.caller else ""
        self.tell(log.info, "tcp_connection_expired", caller, caller=caller)
        self.abort()

    def bound(self, ends: float) -> None:
        """End no later than this (seconds since the epoch)."""
        self.deadline = min(self.deadline, self._clock.now + ends - self._clock.wall)

    def make_upstream(self, on_lost: Callable[[], None] = _nothing) -> Pipe:
        """Return the other end, to be joined once connected."""
        return Pipe(on_lost, self._sent)

    def tell(self, write: Callable[..., None], event: str, about: str, **facts: object) -> None:
        """Write a line of the log, unless there was one of the same event about the same a moment ago."""
        untold = self._counts.untold.due((event, about), self._clock.now)
        if untold is not None:
            write(event, **facts, untold=untold)

    def refuse(self) -> None:
        """Close the caller's end without a byte."""
        self.downstream.transport.close()

    def _received(self, size: int) -> None:
        self._counts.bytes_in += size

    def _sent(self, size: int) -> None:
        self._counts.bytes_out += size

    def _lost(self) -> None:
        self._counts.closed += 1
        self._clock.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        self._listener.left(self)


# --- inbound -------------------------------------------------------------------------------------------------------


def judge(relay: Relay, guard: Guarded, counts: ConnectionCounts) -> bool:
    """Return whether the caller may connect; count and tell when not."""
    assert relay.caller is not None  # noqa: S101 - inbound callers are verified
    source = relay.caller.spiffe_id.service
    decision = guard.intentions.for_source(source, guard.default).connection
    if not decision.allowed:
        counts.denied += 1
        relay.tell(log.info, "tcp_denied", source, source=source, because=decision.because)
    return decision.allowed


async def dial_app(relay: Relay, inbound: Inbound) -> None:
    """Connect a judged relay to the local app."""
    loop = asyncio.get_running_loop()
    pipe = relay.make_upstream()
    try:
        async with asyncio.timeout(inbound.local_connect_timeout):
            await loop.create_connection(lambda: pipe, inbound.local_address, inbound.local_port)
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: an address that is no host name
        app = f"{inbound.local_address}:{inbound.local_port}"
        relay.tell(log.warning, "app_unreachable", app, app=app, error=str(error))
        relay.refuse()
        return
    relay.join(pipe)


# --- outbound ------------------------------------------------------------------------------------------------------


async def dial_upstream(relay: Relay, live: Live, pools: Pools, key: str) -> None:
    """Connect a relay to an endpoint of the upstream."""
    generation = live.current
    outbound = generation.table.outbounds.get(key) if generation is not None else None
    if generation is None or outbound is None:
        relay.refuse()
        return
    await dial_clusters(relay, _choose(outbound, pools), key)


def _choose(outbound: Outbound, pools: Pools) -> ClusterPools | Failover | None:
    route = next((route for route in reversed(outbound.routes) if route.match is None), None)
    leg = pick(route.legs, random.random()) if route is not None else None
    return pools.of_leg(leg) if leg is not None else None


async def dial_clusters(relay: Relay, clusters: ClusterPools | Failover | None, name: str) -> None:
    """Connect a relay to an endpoint; other endpoints are tried when one does not answer. `name` is for logs."""
    loop = asyncio.get_running_loop()
    tried: set[Pool] = set()
    pool = clusters.choose() if clusters is not None else None
    # Of all attempts together: whoever comes after the first has what is left.
    ends = loop.time() + clusters.connect_timeout(pool) if clusters is not None and pool is not None else 0.0
    while clusters is not None and pool is not None and len(tried) < ATTEMPTS and (left := ends - loop.time()) > 0:
        try:
            pipe = await connect(relay, pool, left)
        except (ConnectFailed, ConnectTimedOut) as error:
            log.debug("connect_failed", upstream=name, error=str(error))
            if isinstance(error, ConnectTimedOut):
                ends = loop.time()  # it has had all that was left, whatever the clocks say
        except Overflow:
            relay.tell(log.info, "tcp_overflow", name, upstream=name)
            relay.refuse()
            return
        else:
            relay.join(pipe)
            return
        tried.add(pool)
        pool = clusters.another(tried)
    relay.tell(log.info, "tcp_no_healthy_upstream", name, upstream=name, tried=len(tried))
    relay.refuse()


async def connect(relay: Relay, pool: Pool, timeout: float) -> Pipe:
    """Return a connection to an endpoint. Raise ConnectFailed, ConnectTimedOut or Overflow."""
    place = pool.reserve()
    pipe = relay.make_upstream(place.leave)

    def made(peer_ends: float, ours_end: float) -> Pipe:
        del ours_end
        relay.bound(peer_ends)  # the relay ends with the endpoint's certificate, if that ends first
        return pipe

    try:
        await pool.connect(timeout, made)
    except BaseException as error:
        place.leave()
        if isinstance(error, ConnectFailed | ConnectTimedOut) and not isinstance(error, LeafEnded | NameNotResolved):
            pool.connect_failed()
        raise
    finally:
        place.settle()
    pool.connected()
    return pipe
