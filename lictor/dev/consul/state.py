"""What the dev server knows, with the index of every change: one table of facts, one counter, and who waits for what.

A *topic* names what a read depends on: `("service", "web")`, `("entry", "service-resolver", "api")`. A write touches
topics, which moves the counter once and wakes only those who wait for one of them. The index of a read is the highest
of its topics, as Consul's is that of its rows and tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.consul.rows import Rows, VirtualAddresses, checks_table, services_table
from policies.entries import Entries

Topic = tuple[str, ...]
Json = dict[str, Any]
DATACENTER = "dc1"
FIRST_INDEX = 10


@dataclass(slots=True)
class Tables:
    """Everything that `--state` keeps. Rows are JSON objects in Consul's shapes."""

    nodes: dict[str, Json] = field(default_factory=dict)  # by name, lower case
    services: Rows = field(default_factory=services_table)  # by node and ID
    checks: Rows = field(default_factory=checks_table)  # by node and check ID
    entries: Entries = field(default_factory=Entries)
    entry_indexes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # created, modified
    keys: dict[str, Json] = field(default_factory=dict)
    sessions: dict[str, Json] = field(default_factory=dict)
    virtual_ips: VirtualAddresses = field(default_factory=VirtualAddresses)
    legacy: dict[str, Json] = field(default_factory=dict)  # what only rows of the legacy intention API carry, by ID


class State:
    """The tables and the counter."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.index = FIRST_INDEX
        self.leaderless = False
        self.shift = 0  # taken from every index that is told: the fault "index goes back"
        self._touched: dict[Topic, int] = {}
        self._waiting: dict[Topic, set[asyncio.Future[None]]] = {}

    def touch(self, *topics: Topic) -> int:
        """Move the counter for these topics and wake who waits for one of them. Return the new index."""
        self.index += 1
        for topic in topics:
            self._touched[topic] = self.index
        for topic in topics:
            self._wake(topic)
        return self.index

    def wake_all(self) -> None:
        """Let everybody look again: after a fault, a wipe or a restore."""
        for topic in tuple(self._waiting):
            self._wake(topic)

    def last(self, topics: Iterable[Topic], otherwise: int = 1) -> int:
        """Return the highest index of these topics, or `otherwise` when none was ever touched."""
        found = [self._touched[topic] for topic in topics if topic in self._touched]
        return max(found, default=otherwise)

    def _wake(self, topic: Topic) -> None:
        for waiter in self._waiting.get(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, topics: Iterable[Topic], seconds: float) -> bool:
        """Wait until one of the topics is touched. Return whether that was within this time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waited = tuple(topics)
        for topic in waited:
            self._waiting.setdefault(topic, set()).add(waiter)
        timer = loop.call_later(max(0.0, seconds), _give_up, waiter)
        try:
            await waiter
        except TimeoutError:
            return False
        else:
            return True
        finally:
            timer.cancel()
            self._forget(waited, waiter)

    def _forget(self, topics: Iterable[Topic], waiter: asyncio.Future[None]) -> None:
        for topic in topics:
            left = self._waiting.get(topic)
            if left is not None:
                left.discard(waiter)
                if not left:
                    del self._waiting[topic]

    @property
    def waiting(self) -> int:
        """Return how many topics are waited for."""
        return len(self._waiting)

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON."""
        tables = self.tables
        return {
            "index": self.index,
            "touched": [[list(topic), index] for topic, index in self._touched.items()],
            "nodes": tables.nodes,
            "services": [[*key, row] for key, row in tables.services.items()],
            "checks": [[*key, row] for key, row in tables.checks.items()],
            "entries": list(_all(tables.entries)),
            "entry_indexes": [[*key, *value] for key, value in tables.entry_indexes.items()],
            "keys": tables.keys,
            "sessions": tables.sessions,
            "virtual_ips": tables.virtual_ips.dump(),
            "legacy": tables.legacy,
        }

    def load(self, kept: Json) -> None:
        """Take what `dump` gave."""
        tables = Tables(
            nodes=dict(kept["nodes"]),
            services=services_table({(node, name): row for node, name, row in kept["services"]}),
            checks=checks_table({(node, name): row for node, name, row in kept["checks"]}),
            entry_indexes={
                (kind, name): (created, modified) for kind, name, created, modified in kept["entry_indexes"]
            },
            keys=dict(kept["keys"]),
            sessions=dict(kept["sessions"]),
            virtual_ips=VirtualAddresses(kept["virtual_ips"]),
            legacy=dict(kept["legacy"]),
        )
        for entry in kept["entries"]:
            tables.entries = tables.entries.put(entry)
        self.tables, self.index = tables, int(kept["index"])
        self._touched = {tuple(topic): index for topic, index in kept["touched"]}
        self.wake_all()

    def wipe(self, keep: Callable[[Tables], Tables] | None = None) -> None:
        """Forget everything, as a server whose data were lost; `keep` makes the tables that are left."""
        self.tables = keep(self.tables) if keep else Tables()
        self.index = FIRST_INDEX
        self._touched.clear()
        self.wake_all()


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


def _all(entries: Entries) -> Iterable[Json]:
    from policies.entries import KINDS  # noqa: PLC0415 - only a dump needs it

    return (dict(entry) for kind in sorted(KINDS) for entry in entries.of_kind(kind))
