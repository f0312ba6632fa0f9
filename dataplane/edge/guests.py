"""Who may come in at a gateway's listeners, and what is known of a caller for as long as its connection lives.

    accepted ──▶ counted ──▶ PROXY header, where one is due ──▶ counted by its address ──▶ the listener's own welcome

A `Guest` stands between a connection and its listener. What a listener does not ask for costs nothing here.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import structlog

from dataplane.clock import Clock
from dataplane.edge.slow_clients import SlowClients, Watched
from dataplane.listener import Connection, Keeper, Welcome
from dataplane.peek import peek
from policies.edge.forwarding import is_within
from policies.edge.proxy_protocol import (
    MAX_HEADER,
    Address,
    forbid_proxy_header,
    parse_proxy_header,
    render_proxy_header,
)
from policies.edge.rate_limit import address_key
from policies.edge.settings import EdgeSettings
from policies.errors import PreambleError
from policies.untold import Untold

if TYPE_CHECKING:
    from dataplane.plans import Each

log = structlog.get_logger(__name__)

PROXY_SECONDS = 5.0  # for a PROXY header to come
FIRST_BYTE_SECONDS = 60.0  # for anything to come that is no PROXY header


class Guest:
    """A caller of one connection. `client` is its address, by a PROXY header where one is due.

    `listener` keeps the connection; where it has several doors, the one that the caller came to. `trusted`: what it
    says about others is believed. `requests` is theirs to count who limits them.
    """

    __slots__ = (
        "_gone",
        "_joined",
        "_key",
        "_reception",
        "client",
        "each",
        "listener",
        "local",
        "protection",
        "requests",
        "trusted",
    )

    def __init__(self, reception: Reception, listener: Keeper, client: Address) -> None:
        self._reception = reception
        self.listener = listener
        self._key = ""
        self._joined = False
        self._gone = False
        self.each = reception.each
        self.protection = reception.settings.protection
        self.client = client
        self.local: Address = ("", 0)  # where it connected to, if some service wants to hear that
        self.trusted = False
        self.requests = 0

    def joined(self, connection: Connection) -> None:
        """Stay until the connection ends."""
        self._joined = True
        self.listener.joined(connection)
        self._reception.slow.add(cast("Watched", connection))  # every connection of a gateway can be

    def left(self, connection: Connection) -> None:
        """Make room for others."""
        self._reception.slow.discard(cast("Watched", connection))
        self.listener.left(connection)
        self.leave()

    @property
    def retiring(self) -> bool:
        """Return whether its listener lets every connection bring one more request at most."""
        return self.listener.retiring

    def leave(self) -> None:
        """Make room, if that has not been done."""
        if not self._gone:
            self._gone = True
            self._reception.forget(self._key)

    def known_as(self, key: str) -> None:
        """Be counted by this key."""
        self._key = key

    @property
    def stays(self) -> bool:
        """Return whether a connection has taken it over."""
        return self._joined


class Reception:
    """The one that all listeners of a gateway share."""

    def __init__(self, settings: EdgeSettings, clock: Clock) -> None:
        self.settings = settings
        self.each: Each | None = None  # what is asked for every request, once that is known
        self._clock = clock
        self._inside = 0
        self._by_address: Counter[str] = Counter()
        self.slow = SlowClients(clock, settings.protection)
        self._untold = Untold()

    def guarded(self, welcome: Welcome, port: int, speaks_first: Callable[[], bool]) -> Welcome:
        """Return the welcome with the reception before it. `speaks_first` says whether callers do, by TLS or HTTP.

        A connection may be refused with `max_connections`, `max_connections_per_address`, `proxy_untrusted`, and the
        reasons of `parse_proxy_header` and `peek`.
        """
        proxied = port in self.settings.proxy_protocol.ports

        async def guarded(sock: socket.socket, listener: Keeper) -> None:
            guest = self._enter(sock, listener)
            try:
                if proxied:
                    await self._hear_of(sock, guest, speaks_first=speaks_first())
                else:
                    self._count(guest)
                await welcome(sock, guest)
            except PreambleError as error:
                if error.reason != "closed":  # so do checks of health, all day long
                    self.tell(error.reason, guest)
                raise
            finally:
                if not guest.stays:
                    guest.leave()

        return guarded

    def preface(self, service: str, guest: Keeper, sni: str = "") -> bytes:
        """Return what a service hears of a caller before the caller's own bytes: a PROXY header if it wants one."""
        wanted = self.settings.proxy_protocol
        if service not in wanted.send_to or not isinstance(guest, Guest):
            return b""
        return render_proxy_header(wanted.version, guest.client, guest.local, sni)

    @property
    def now(self) -> float:
        """Return the time, on the clock's scale."""
        return self._clock.now

    def forget(self, key: str) -> None:
        """A guest has left; `key` is "" if it was not counted by its address."""
        self._inside -= 1
        if key:
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]

    def tell(self, reason: str, guest: Keeper) -> None:
        """Write a line about a refusal, at most one in ten seconds for each reason: counters have them all."""
        untold = self._untold.due(reason, self._clock.now)
        if untold is not None:
            log.warning("refused", reason=reason, client=guest.client[0] if guest.client else "", untold=untold)

    # --- one after the other ---

    def _enter(self, sock: socket.socket, listener: Keeper) -> Guest:
        limit = self.settings.protection.max_connections
        host, port = sock.getpeername()[:2]
        guest = Guest(self, listener, (host, port))
        if self.settings.proxy_protocol.send_to:
            guest.local = sock.getsockname()[:2]
        self._inside += 1
        if limit and self._inside > limit:
            self.tell("max_connections", guest)
            guest.leave()
            raise PreambleError("max_connections", f"{limit} connections are open")
        return guest

    async def _hear_of(self, sock: socket.socket, guest: Guest, *, speaks_first: bool) -> None:
        """Take a PROXY header off the socket, if the peer is one that must send it; no other may."""
        if is_within(guest.client[0], self.settings.proxy_protocol.accept_from):
            header = await peek(sock, parse_proxy_header, MAX_HEADER, PROXY_SECONDS)
            sock.recv(header.size)
            guest.client = header.source or guest.client
            self._count(guest)
            return
        if not speaks_first:  # waiting for its first byte might mean to wait for each other
            raise PreambleError("proxy_untrusted", "only addresses that send a PROXY header may connect here")
        self._count(guest)
        await peek(sock, forbid_proxy_header, MAX_HEADER, FIRST_BYTE_SECONDS)

    def _count(self, guest: Guest) -> None:
        settings = self.settings
        guest.trusted = is_within(guest.client[0], settings.forwarding.trusted_proxies)
        limit = settings.protection.max_connections_per_address
        if not limit or guest.trusted:
            return
        key = address_key(guest.client[0])
        if self._by_address[key] >= limit:
            raise PreambleError("max_connections_per_address", f"{limit} connections of {key} are open")
        self._by_address[key] += 1
        guest.known_as(key)
