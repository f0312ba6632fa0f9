"""Upstream connections: a pool of one endpoint.

A pool keeps idle connections, the one used last on top, so that the rest cool down and close. Connections outlive a
swap of the table; they are closed when their endpoint is gone, when idle too long, or shortly before a certificate of
theirs ends. What an endpoint did counts for its target: the circuit breaker, and whether it is left out for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataplane.circuits import Circuit
from dataplane.clock import Clock
from dataplane.dialling import Dialler, Made
from dataplane.outliers import Outliers
from dataplane.upstream import EXPIRY_MARGIN, Upstream
from policies.errors import ConnectFailed, ConnectTimedOut, LeafEnded, NameNotResolved
from policies.identity import SpiffeId
from policies.outliers import Failure

if TYPE_CHECKING:
    from policies.egress.links import Origination

IDLE_SECONDS = 60.0
MAX_IDLE = 256
_ERROR = 500


@dataclass(frozen=True, slots=True)
class Route:
    """How an endpoint is dialled: with a `spiffe_id` as one of the mesh, with an `origination` by TLS, else plainly.

    `host` is the name of an endpoint outside that has one; where it is the address too, its addresses are looked up.
    `raw` is for tunnels: nobody knows what is spoken, or who speaks first.
    """

    address: str
    port: int
    sni: str = ""
    spiffe_id: SpiffeId | None = None
    origination: Origination | None = None
    host: str = ""
    raw: bool = False

    def __str__(self) -> str:
        """Return the address for people."""
        return f"{self.address}:{self.port}"


class Pool:
    """The connections to one endpoint. `troubled`: there is something that a good answer makes up for."""

    __slots__ = (
        "_addresses",
        "_closed",
        "_dialler",
        "_outliers",
        "_waiting",
        "active",
        "circuit",
        "clock",
        "connections",
        "counts",
        "idle",
        "route",
        "troubled",
    )

    def __init__(self, route: Route, dialler: Dialler, clock: Clock, circuit: Circuit, outliers: Outliers) -> None:
        self.route = route
        self.clock = clock
        self.circuit = circuit
        self.counts = circuit.counts
        self._addresses: frozenset[str] | None = None  # of a host name: others are not gone on with
        self._dialler = dialler
        self._outliers = outliers
        self._waiting: deque[asyncio.Future[Upstream | None]] = deque()
        self.idle: list[Upstream] = []
        self.connections = 0  # open, busy or idle
        self.active = 0  # busy, or asked for
        self.troubled = False
        self._closed = False

    # --- requests ---

    def take(self) -> Upstream | None:
        """Return a warm connection, or None when one must be dialled."""
        now = self.clock.now
        circuit = self.circuit
        while self.idle and circuit.active < circuit.max_active:
            connection = self.idle.pop()
            if connection.usable(now):
                self.active += 1
                circuit.active += 1
                connection.lent = True
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def dial(self, timeout: float) -> Upstream:
        """Return a busy connection, new or waited for. Raise ConnectFailed, ConnectTimedOut or Overflow.

        As in Envoy, who waits for a connection is pending, also while it is made, and what is made here takes whatever
        comes first at the limit of connections: a place for a new one, or one that another request gives back.
        """
        circuit = self.circuit
        if circuit.pending >= circuit.max_pending:
            raise circuit.overflow("pending_requests")
        # It would be refused as soon as it has its connection; and of an idle one nobody would tell it.
        if circuit.active >= circuit.max_active and (self._room or self.idle):
            raise circuit.overflow("concurrent_requests")
        circuit.pending += 1
        self.active += 1
        try:
            connection = await self._obtain(timeout)
        except BaseException:
            self.active -= 1
            raise
        finally:
            circuit.pending -= 1
        if circuit.active >= circuit.max_active:
            self.active -= 1
            self.put_back(connection)
            raise circuit.overflow("concurrent_requests")
        circuit.active += 1
        connection.lent = True
        return connection

    @property
    def _room(self) -> bool:
        """Return whether a connection may be made: an endpoint without any always may, or its requests would starve."""
        return self.circuit.connections < self.circuit.max_connections or not self.connections

    async def _obtain(self, timeout: float) -> Upstream:
        while not self._room:
            connection = self.idle.pop() if self.idle else await self._wait()
            if connection is not None and connection.usable(self.clock.now):
                connection.reused = True
                return connection
            if connection is not None:
                connection.abort()
        return await self._open(timeout)

    async def _wait(self) -> Upstream | None:
        """Return a connection that was given back, or None when a place has become free."""
        waiter: asyncio.Future[Upstream | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.circuit.starving[self] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                given = waiter.result()  # in the moment in which the request was given up
                if given is not None:
                    self.put_back(given)
                else:
                    self._place_free()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if not self._waiting:
                self.circuit.starving.pop(self, None)

    async def _open(self, timeout: float) -> Upstream:
        self.circuit.connections += 1
        self.connections += 1
        try:
            connection = await self._connect(timeout)
            if connection.closed:
                message = f"{self.route}: closed as soon as it was there"
                raise ConnectFailed(message)  # noqa: TRY301 - to be counted like one that never was
        except BaseException as error:
            self.circuit.connections -= 1
            self.connections -= 1
            if isinstance(error, ConnectFailed | ConnectTimedOut):
                if not isinstance(error, LeafEnded | NameNotResolved):
                    self.connect_failed()
                self._fail_waiting(error)
            else:
                self._place_free()
            raise
        connection.counted = True
        self.connected()
        return connection

    def _fail_waiting(self, error: ConnectFailed | ConnectTimedOut) -> None:
        """Let nobody wait in line for an endpoint that cannot be reached; they may try another one."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
        self.circuit.starving.pop(self, None)
        self._place_free()

    def _place_free(self) -> None:
        """Let one who waits make a connection: here, or else at another endpoint of the target."""
        for pool in (self, *self.circuit.starving) if self.circuit.starving else ():
            if pool.wake(None):
                return

    def wake(self, connection: Upstream | None) -> bool:
        """Give a connection, or a place for one, to the request that waits longest. Return whether one did."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def _connect(self, timeout: float) -> Upstream:
        made: list[Upstream] = []

        def protocol(peer_ends: float, ours_ends: float) -> asyncio.Protocol:
            connection = Upstream(self)
            connection.expires = self.clock.now + min(peer_ends, ours_ends) - self.clock.wall
            made.append(connection)
            return connection

        await self.connect(timeout, protocol)
        return made[0]

    async def connect(self, timeout: float, made: Made) -> None:
        """Make a connection that is not kept here. Raise ConnectFailed or ConnectTimedOut."""
        await self._dialler.connect(self.route, timeout, made)

    def release(self, connection: Upstream) -> None:
        """Take back a connection that is ready for another request."""
        connection.lent = False
        self.active -= 1
        self.circuit.active -= 1
        self.put_back(connection)

    def spent(self, connection: Upstream) -> None:
        """Take note that a request has ended on a connection that cannot serve another."""
        self.end(connection)
        connection.abort()

    def end(self, connection: Upstream) -> None:
        """Take note that a request has ended on a connection; it is given back later, or closed."""
        connection.lent = False
        self.active -= 1
        self.circuit.active -= 1

    def put_back(self, connection: Upstream) -> None:
        """Keep a connection that no request has. Whether it is still `usable` is seen when one wants it."""
        if self._closed or len(self.idle) >= MAX_IDLE:
            connection.abort()
            return
        if self.route.raw or (self._addresses is not None and connection.address not in self._addresses):
            connection.abort()
            return
        idle_until, last = self.clock.now + IDLE_SECONDS, connection.expires - EXPIRY_MARGIN
        connection.deadline = idle_until if idle_until < last else last  # noqa: FURB136 - a call more, at every request
        if not self._waiting or not self.wake(connection):
            self.idle.append(connection)

    def stay_with(self, addresses: Iterable[str]) -> None:
        """Go on with connections to these addresses alone: the others have left DNS."""
        self._addresses = frozenset(addresses)
        for connection in tuple(self.idle):
            if connection.address not in self._addresses:
                connection.abort()

    def lost(self, connection: Upstream) -> None:
        """Forget a connection that is closed."""
        if not connection.counted:  # `dial` has not had it, or gave up: the place is given back there
            return
        self.connections -= 1
        self.circuit.connections -= 1
        if connection.lent:
            self.end(connection)
        elif connection in self.idle:
            self.idle.remove(connection)
        self._place_free()

    # --- tcp: connections that are not kept ---

    def reserve(self) -> Place:
        """Take a place for a connection that is not kept. Raise Overflow."""
        circuit = self.circuit
        if circuit.connections >= circuit.max_connections:
            raise circuit.overflow("connections")
        if circuit.pending >= circuit.max_pending:
            raise circuit.overflow("pending_requests")
        return Place(self)

    # --- passive health ---

    @property
    def ejected(self) -> bool:
        """Return whether the endpoint is left out just now."""
        return self in self._outliers.out

    def answered(self, status: int, *, app_is_gone: bool = False) -> None:
        """An answer's head has come."""
        if status >= _ERROR:
            self._blame(Failure.CONNECT if app_is_gone else Failure.ERROR)
        elif self.troubled:
            self._outliers.answered(self)

    def failed(self) -> None:
        """A request was not answered: the connection ended, or time was up."""
        self._blame(Failure.SILENCE)

    def connected(self) -> None:
        """A connection was made."""
        self.counts.connections += 1
        if self.troubled:
            self._outliers.connected(self)

    def connect_failed(self) -> None:
        """A connection could not be made."""
        self.counts.connect_failures += 1
        self._blame(Failure.CONNECT)

    def _blame(self, failure: Failure) -> None:
        if not self._closed:  # else nobody would ever ask it again, and it would stay among the ejected
            self._outliers.failed(self, failure)

    def close(self) -> None:
        """Close what is idle; what is busy is closed when it comes back."""
        self._closed = True
        for connection in tuple(self.idle):
            connection.abort()
        self.idle.clear()
        self._outliers.forget(self)


class Place:
    """The place of a tcp connection among those of its endpoint and target: pending, then open, then given back."""

    __slots__ = ("_left", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._left = False
        pool.circuit.pending += 1
        pool.circuit.connections += 1
        pool.connections += 1
        pool.active += 1

    def settle(self) -> None:
        """It waits no longer: the connection was made, or given up."""
        self._pool.circuit.pending -= 1

    def leave(self) -> None:
        """Give it back; a second time does nothing."""
        if not self._left:
            self._left = True
            self._pool.circuit.connections -= 1
            self._pool.connections -= 1
            self._pool.active -= 1
