"""Passive health at work: what happens at the endpoints of one target, and which of them are left out.

The rules are those of `policies.outliers`; here is the state, kept with the pools over swaps of the table. A balancer
looks at `out`: empty means that nothing has to be looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from dataplane.clock import NEVER, Clock
from policies.outliers import (
    HEALTHY,
    Company,
    Failure,
    Outlier,
    PassiveHealth,
    State,
    Verdict,
    after_answer,
    after_connect,
    after_failure,
    as_last_resort,
    may_try,
    no_worse,
    on_trial,
    taken_back,
)

if TYPE_CHECKING:
    from dataplane.metrics import UpstreamCounts
    from dataplane.pool import Pool

log = structlog.get_logger(__name__)


class Outliers:
    """The endpoints of one target that are ejected. `endpoints` is how many it has, `backed_up` as in Company."""

    __slots__ = (
        "_clock",
        "_draw",
        "_known",
        "_settings",
        "_target",
        "backed_up",
        "counts",
        "endpoints",
        "out",
        "trial_at",
    )

    def __init__(
        self, target: str, clock: Clock, counts: UpstreamCounts, draw: Callable[[], float] = random.random
    ) -> None:
        self._target = target
        self._clock = clock
        self._draw = draw
        self._settings = PassiveHealth()
        self._known: dict[Pool, Outlier] = {}  # of those with whom anything is the matter
        self.counts = counts
        self.endpoints = 1
        self.backed_up = False
        self.out: set[Pool] = set()
        self.trial_at = NEVER  # when the next one of them may be tried

    def obey(self, settings: PassiveHealth, endpoints: int) -> None:
        """Judge what comes from now on by these settings."""
        self._settings = settings
        self.endpoints = endpoints

    def of(self, pool: Pool) -> Outlier:
        """Return what is known of an endpoint."""
        return self._known.get(pool, HEALTHY)

    # --- what happens ---

    def failed(self, pool: Pool, failure: Failure) -> None:
        """A connect, a request or its answer has failed."""
        before = self.of(pool)
        company = Company(self.endpoints, len(self.out), self.backed_up)
        after, verdict = after_failure(before, failure, company, self._settings, self._clock.now, self._draw())
        self._put(pool, after)
        if verdict is Verdict.EJECT:
            self._eject(pool, after)
        elif verdict is Verdict.TAKE_BACK and after.cause is not None:
            cause = after.cause
            self._take_back([one for one in self.out if no_worse(self.of(one), cause)])

    def connected(self, pool: Pool) -> None:
        """A connection was made."""
        self._better(pool, after_connect(self.of(pool), self._clock.now), "it takes connections again")

    def answered(self, pool: Pool) -> None:
        """An answer other than 5xx has come."""
        self._better(pool, after_answer(self.of(pool), self._clock.now), "it answered")

    @property
    def trial_due(self) -> bool:
        """Return whether an ejected endpoint may be tried."""
        return self._clock.now >= self.trial_at

    def may_try(self, pool: Pool) -> bool:
        """Return whether an ejected endpoint may have a request, and count that one as its trial."""
        outlier = self.of(pool)
        if not may_try(outlier, self._clock.now):
            return False
        self._put(pool, on_trial(outlier, self._settings, self._clock.now))
        self._next_trial()
        return True

    def try_anyway(self, pool: Pool) -> None:
        """Count the next request to an endpoint, if it is ejected, as a trial: no other one has taken it."""
        if pool in self.out:
            self._put(pool, as_last_resort(self.of(pool)))

    def take_back_all(self) -> None:
        """Nobody is left: a request that is refused helps nobody, one that is tried may find an endpoint recovered."""
        self._take_back(list(self.out))

    def forget(self, pool: Pool) -> None:
        """The endpoint is gone."""
        self._known.pop(pool, None)
        pool.troubled = False
        self.out.discard(pool)
        self._count_out()

    # --- what follows ---

    def _eject(self, pool: Pool, outlier: Outlier) -> None:
        self.out.add(pool)
        self._count_out()
        assert outlier.cause is not None  # noqa: S101 - an ejection has one
        self.counts.ejections[outlier.cause.value] += 1
        log.info(
            "endpoint_ejected",
            target=self._target,
            endpoint=str(pool.route),
            because=outlier.cause.value,
            seconds=round(outlier.until - self._clock.now, 1),
            left=self.endpoints - len(self.out),
        )

    def _better(self, pool: Pool, after: Outlier, because: str) -> None:
        self._put(pool, after)
        if after.state is State.ADMITTED and pool in self.out:
            self._readmit(pool, because)

    def _take_back(self, pools: list[Pool]) -> None:
        for pool in pools:
            self._put(pool, taken_back(self.of(pool), self._clock.now))
            self._readmit(pool, "no other endpoint is left")

    def _readmit(self, pool: Pool, because: str) -> None:
        self.out.discard(pool)
        self._count_out()
        log.info("endpoint_readmitted", target=self._target, endpoint=str(pool.route), because=because)

    def _count_out(self) -> None:
        self.counts.ejected = len(self.out)
        self._next_trial()

    def _next_trial(self) -> None:
        self.trial_at = min((self.of(pool).until for pool in self.out), default=NEVER)

    def _put(self, pool: Pool, outlier: Outlier) -> None:
        # An admitted one whose last ejection is not made up for is remembered, but has nothing that an answer changes.
        self._known[pool] = outlier
        pool.troubled = bool(outlier.state is not State.ADMITTED or outlier.failures or outlier.connect_failures)
