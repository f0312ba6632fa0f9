"""Host names as addresses of endpoints: looked up in the background, never by a request.

A name is looked up when a table names it and again when the answer's TTL is over (RFC 8305 section 8: what is dialled
next is what DNS says now). While DNS does not answer the last good addresses stay, as they do with Consul. c-ares
asks for A and AAAA at once, tells TTLs, and reads /etc/hosts; it is loaded when the first name is met, with a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from policies.errors import NameNotResolved, Problem

if TYPE_CHECKING:
    import pycares

log = structlog.get_logger(__name__)

MIN_SECONDS = 1.0  # between look-ups of a name, whatever its TTL
MAX_SECONDS = 3600.0
FILE_SECONDS = 5.0  # for what has no TTL: names of /etc/hosts
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # after failures in a row
ANSWER_SECONDS = 5.0  # for the whole of a look-up: c-ares repeats within it


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for: addresses in the order in which they are to be tried, and for how many seconds."""

    addresses: tuple[str, ...]
    ttl: float


Lookup = Callable[[str], Awaitable[Resolved]]


class Resolver:
    """Looks names up in DNS and /etc/hosts. `nameservers` None are those of the machine; else `host:port`."""

    def __init__(self, nameservers: tuple[str, ...] | None = None) -> None:
        self._nameservers = nameservers
        self._channel: pycares.Channel | None = None

    async def __call__(self, name: str) -> Resolved:
        """Return the addresses of a name. Raise NameNotResolved."""
        import pycares  # noqa: PLC0415 - only gateways to names pay for it

        if self._channel is None:
            self._channel = pycares.Channel(servers=self._nameservers, timeout=1.0, tries=2)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle(found: object, error: int | None) -> None:
            if not answer.done():
                answer.set_result((found, error))

        def told(found: object, error: int | None) -> None:
            """Take the answer over from the thread of c-ares."""
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, found, error)

        try:
            self._channel.getaddrinfo(name, None, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM, callback=told)
            async with asyncio.timeout(ANSWER_SECONDS):
                found, error = await answer
        except (ValueError, RuntimeError, pycares.AresError) as failure:  # what can be no name
            raise NameNotResolved(name, str(failure)) from failure
        except TimeoutError as failure:
            raise NameNotResolved(name, f"no answer within {ANSWER_SECONDS:g} s") from failure
        if error:
            raise NameNotResolved(name, _text(pycares.errno.strerror(error)))
        addresses = tuple(dict.fromkeys(_text(node.addr[0]) for node in found.nodes))
        if not addresses:
            raise NameNotResolved(name, "it has no address")
        return Resolved(addresses, float(min(node.ttl for node in found.nodes)))

    def close(self) -> None:
        """Let go of the sockets."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address


@dataclass(slots=True)
class _Name:
    """A name that is kept up to date. `failures` in a row."""

    task: asyncio.Task[None]
    addresses: tuple[str, ...] = ()
    failures: int = 0
    problem: str = ""
    asked: bool = False


class Names:
    """The names that the table in force speaks of. `changed` is called with a name whose set of addresses is new."""

    def __init__(self, lookup: Lookup, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._lookup = lookup
        self._sleep = sleep
        self._names: dict[str, _Name] = {}
        self.changed: Callable[[str], None] = lambda _name: None

    def follow(self, wanted: AbstractSet[str]) -> None:
        """Keep these names up to date and forget the others."""
        for name in self._names.keys() - wanted:
            self._names.pop(name).task.cancel()
        for name in sorted(wanted - self._names.keys()):
            task = asyncio.get_running_loop().create_task(self._keep(name))
            self._names[name] = _Name(task)

    def addresses(self, name: str) -> tuple[str, ...]:
        """Return what is known of a name, in the order in which it is to be tried; empty: nothing yet."""
        known = self._names.get(name)
        return known.addresses if known is not None else ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return the names that could not be looked up lately."""
        return tuple(
            Problem(f"host name {name}", one.problem, "the last good addresses stay" if one.addresses else "closed")
            for name, one in sorted(self._names.copy().items())
            if one.problem
        )

    @property
    def settled(self) -> bool:
        """Return whether every name has been looked up, well or not. May be asked by any thread, as `problems` may."""
        return all(one.asked for one in self._names.copy().values())

    def close(self) -> None:
        """Ask no more."""
        self.follow(frozenset())

    async def _keep(self, name: str) -> None:
        while True:
            seconds = await self._ask(name, self._names[name])
            await self._sleep(seconds)

    async def _ask(self, name: str, known: _Name) -> float:
        """Look a name up once; return the seconds until the next time."""
        try:
            resolved = await self._lookup(name)
        except NameNotResolved as error:
            if not known.failures:
                log.warning("name_not_resolved", name=name, error=error.detail, known=list(known.addresses))
            known.problem = error.detail
            known.failures += 1
            return RETRY_SECONDS[min(known.failures, len(RETRY_SECONDS)) - 1]
        finally:
            known.asked = True
        known.failures, known.problem = 0, ""
        before, known.addresses = known.addresses, resolved.addresses
        if set(before) != set(resolved.addresses):
            log.info("name_resolved", name=name, addresses=list(resolved.addresses))
            self.changed(name)
        return min(max(resolved.ttl, MIN_SECONDS), MAX_SECONDS) if resolved.ttl > 0 else FILE_SECONDS
