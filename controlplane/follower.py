"""Following Consul: one task for every watch that the snapshot calls for.

    wanted(snapshot) ─▶ tasks ─ read, blocking ─▶ Heard ─▶ apply ─▶ changed? ─▶ publish(snapshot)
         ▲                                                    │
         └────────────────────────────────────────────────────┘

A failed read is tried again after a growing, jittered pause; the last good answer stays in force meanwhile. A failure
is logged when it begins and when it ends. Rules of the index: a lower one starts over, an answer is compared before it
counts, a busy table is read no faster than the bucket of its watch fills. Answers are taken one at a time: what says
who we are and who may call goes before what says where others are, however much of that there is.
Source: https://developer.hashicorp.com/consul/api-docs/features/blocking.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from tenacity import RetryCallState, wait_random_exponential

from controlplane.consul.catalog import Answer
from controlplane.consul.places import MAX_INTENTIONS, MAX_WATCHES
from controlplane.consul.rows import Later
from controlplane.control_loop import Tidy
from controlplane.turns import Turns
from policies.errors import CatalogError, CatalogForbidden, CatalogNotFound, CatalogUnreachable
from policies.identity import Leaf
from policies.intentions import Intentions
from policies.reducer import apply
from policies.snapshot import Snapshot
from policies.updates import Heard, LeafUpdate, Update, understand
from policies.wanted import wanted
from policies.watches import (
    DefaultActionWatch,
    EndpointsWatch,
    IntentionsWatch,
    OutsideWatch,
    RegistrationWatch,
    RoutesWatch,
    UpstreamWatch,
    Watch,
    name_of,
)

log = structlog.get_logger(__name__)

WAIT_SECONDS = 25.0  # of a blocking query; a cancelled one holds its connection at the agent for the rest of it
ROUND_SECONDS = 8.0  # within which every upstream is looked at where there are too many to block for each
JUDGING_ROUND_SECONDS = 1.0  # likewise every linked service's intentions: a deny must not wait for long
POLL_SECONDS = 5.0  # of what cannot block
SHAKEN_SECONDS = 30.0  # after the agent was away: its checks begin as critical and run once an interval
STARTING_SECONDS = 0.2  # between looks at a server that is still starting
MISSING_REGISTRATION_SECONDS = 0.5  # between looks for our own registration
BEGUN_AT_ONCE = 16  # watches, until others have their turn
BURST = 5
READS_PER_SECOND = 5.0
_backoff = wait_random_exponential(multiplier=0.25, max=10.0)


class Source(Protocol):
    """What can be read; `Catalog` is one."""

    async def read(self, watch: Watch, cursor: str, wait: float) -> Answer:
        """Return a watch's answer."""
        ...


@dataclass(slots=True)
class WatchStatus:
    """How one watch stands. Times are the loop's."""

    answered_at: float | None = None
    failing_since: float | None = None
    failures: int = 0  # in a row
    error: str = ""
    index: int = 0  # of the last answer that was taken
    resets: int = 0  # the index went backwards
    hidden: bool = False  # by ACLs: an empty list that is not believed


@dataclass(slots=True)
class Status:
    """How all watches stand. `registration_missing`: Consul has forgotten this proxy since it was registered.

    Read from other threads too: a copy of the watches is taken in one step.
    """

    watches: dict[Watch, WatchStatus] = field(default_factory=dict)
    registration_missing: asyncio.Event = field(default_factory=asyncio.Event)

    def failing(self) -> dict[Watch, WatchStatus]:
        """Return the watches whose last read failed."""
        return {watch: status for watch, status in self.watches.copy().items() if status.failing_since is not None}


class Follower:
    """The tasks of one proxy. `snapshot` is always the newest; `publish` is called after every change."""

    def __init__(
        self,
        source: Source,
        snapshot: Snapshot,
        publish: Callable[[Snapshot], None],
        wait: float = WAIT_SECONDS,
    ) -> None:
        self.snapshot = snapshot
        self.status = Status()
        self._source = source
        self._publish = publish
        self._wait = wait
        self._tasks: dict[Watch, asyncio.Task[None]] = {}
        self._turns = Turns()
        self._tidy = Tidy()
        self._shaken_until = 0.0  # the loop's time

    async def run(self, leaves: Callable[[Snapshot], AsyncIterator[Leaf] | None]) -> None:
        """Follow until cancelled. `leaves` gives the stream of leaves as soon as the snapshot tells who we are."""
        self._beginning = asyncio.get_running_loop().call_soon(bool)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._known = asyncio.Event()
                self._adjust()
                group.create_task(self._follow_leaves(leaves))
        finally:
            self._beginning.cancel()

    def take(self, update: Update) -> None:
        """Apply an update, adjust the watches and publish if anything changed."""
        before = self.snapshot
        self.snapshot = apply(before, update)
        if self.snapshot is not before:
            if self.snapshot.asked is not before.asked:
                self._adjust()
            self._publish(self.snapshot)
        self._known.set()

    def _adjust(self) -> None:
        """Begin and end what the snapshot calls for; many watches are begun a few at a time."""
        self._beginning.cancel()
        want = wanted(self.snapshot)
        new = want.difference(self._tasks)
        for watch in itertools.islice(sorted(new, key=_rank), BEGUN_AT_ONCE):
            self.status.watches[watch] = WatchStatus()
            self._tasks[watch] = self._group.create_task(self._follow(watch), name=name_of(watch))
        for watch in set(self._tasks).difference(want):
            self._tasks.pop(watch).cancel()
            self.status.watches.pop(watch, None)
        if len(new) > BEGUN_AT_ONCE:
            self._beginning = asyncio.get_running_loop().call_soon(self._adjust)

    async def _follow_leaves(self, leaves: Callable[[Snapshot], AsyncIterator[Leaf] | None]) -> None:
        while (stream := leaves(self.snapshot)) is None:
            self._known.clear()
            await self._known.wait()
        async for leaf in stream:
            self.take(LeafUpdate(leaf))

    async def _follow(self, watch: Watch) -> None:
        status = self.status.watches[watch]
        bucket = _Bucket()
        cursor = ""
        while True:
            await bucket.take()
            try:
                answer = await self._source.read(watch, cursor, self._patience(watch))
                if self._shaken_seconds() > 0 and _is_older(status, answer):
                    cursor = ""
                    await asyncio.sleep(STARTING_SECONDS)
                    continue
                async with self._turns.turn(_rank(watch)):
                    with self._tidy():
                        self._take_answer(watch, status, answer)
                    cursor = _next_cursor(status, cursor, answer.cursor)
                    await asyncio.sleep(0)  # what matters more may have come meanwhile
            except CatalogError as error:
                cursor = ""
                await asyncio.sleep(self._failed(watch, status, error))
                continue
            if isinstance(watch, DefaultActionWatch):
                await asyncio.sleep(POLL_SECONDS * (0.5 + random.random() / 2))
            elif not cursor:
                await asyncio.sleep(1.0)

    def _take_answer(self, watch: Watch, status: WatchStatus, answer: Answer) -> None:
        update = Heard(watch, _decoded(answer.data), self._shaken_seconds() > 0)
        understood = understand(update, self.snapshot.heard.get(watch))
        self._succeeded(watch, status)
        if not self._is_suspicious(watch, status, answer):
            self.take(understood)

    def _shaken_seconds(self) -> float:
        return self._shaken_until - asyncio.get_running_loop().time()

    def _patience(self, watch: Watch) -> float:
        """Return how long a read may block: what was heard of instances while shaken is heard again after it.

        Where there are more upstreams than the agent takes blocking queries, each has its turn once a round.
        """
        wait, left = self._wait, self._shaken_seconds()
        asked = len(self.snapshot.asked)
        if isinstance(watch, UpstreamWatch) and asked > MAX_WATCHES:
            share = ROUND_SECONDS * MAX_WATCHES / asked
            wait = min(wait, share * (0.5 + random.random()))  # else they would end together, round after round
        links = len(self.snapshot.links)
        if isinstance(watch, IntentionsWatch) and links > MAX_INTENTIONS:
            share = JUDGING_ROUND_SECONDS * MAX_INTENTIONS / links
            wait = min(wait, share * (0.5 + random.random()))
        return min(wait, left + 0.5) if left > 0 and isinstance(watch, EndpointsWatch | OutsideWatch) else wait

    def _failed(self, watch: Watch, status: WatchStatus, error: CatalogError) -> float:
        """Note a failure; return the pause before the next try."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, CatalogUnreachable):
            self._shaken_until = now + SHAKEN_SECONDS
        status.failures += 1
        status.error = str(error)
        if isinstance(watch, RegistrationWatch) and isinstance(error, CatalogNotFound):
            if status.answered_at is not None:
                self.status.registration_missing.set()
            return MISSING_REGISTRATION_SECONDS
        if status.failing_since is None:
            status.failing_since = now
            hint = {"hint": error.advice} if isinstance(error, CatalogForbidden) else {}
            log.warning("watch_failing", watch=name_of(watch), error=str(error), **hint)
        return _pause(status.failures)

    @staticmethod
    def _succeeded(watch: Watch, status: WatchStatus) -> None:
        now = asyncio.get_running_loop().time()
        if status.failing_since is not None:
            log.info("watch_recovered", watch=name_of(watch), seconds=round(now - status.failing_since, 1))
        status.failing_since = None
        status.failures = 0
        status.error = ""
        status.answered_at = now

    def _is_suspicious(self, watch: Watch, status: WatchStatus, answer: Answer) -> bool:
        """Return whether an empty list rather means that the token sees nothing: the last good one stays. Told once."""
        before = self.snapshot.heard.get(watch)
        hides = isinstance(answer.data, list) and not answer.data and answer.filtered
        known = before.rows if isinstance(before, Intentions) else before
        if hides and not status.hidden:
            hint = f"the Consul token lacks {_rights_to_see(watch)}" + ("; the last good answer stays" if known else "")
            log.warning("rows_hidden", watch=name_of(watch), hint=hint)
        status.hidden = hides
        return hides and bool(known)


def _rights_to_see(watch: Watch) -> str:
    return "mesh:read" if isinstance(watch, RoutesWatch) else "service:read or node:read"


def _rank(watch: Watch) -> int:
    """Return how much a watch matters, the lowest first: policy, identity and the listeners, then each upstream."""
    return 1 if isinstance(watch, UpstreamWatch) else 0


def _decoded(data: Any) -> Any:
    return data.decoded() if isinstance(data, Later) else data


def _is_older(status: WatchStatus, answer: Answer) -> bool:
    """Return whether an answer is from before the last one: a server that starts reads its log from the beginning."""
    return answer.cursor.isdigit() and int(answer.cursor) < status.index


def _next_cursor(status: WatchStatus, old: str, new: str) -> str:
    """Return the cursor of the next read: an index that went back starts over."""
    status.index = int(new) if new.isdigit() else 0
    if new.isdigit() and old.isdigit() and int(new) < int(old):
        status.resets += 1
        return ""
    return "1" if new == "0" else new


def _pause(failures: int) -> float:
    """Return a random part of a pause that grows with the failures in a row (full jitter)."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = min(failures, 16)
    return max(0.05, _backoff(state))


class _Bucket:
    """A token bucket: bursts are read at once, a busy table no faster than it fills."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._filled = asyncio.get_running_loop().time()

    async def take(self) -> None:
        now = asyncio.get_running_loop().time()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * READS_PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / READS_PER_SECOND)
        self._tokens -= 1
