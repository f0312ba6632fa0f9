"""When to renew a leaf, when to try again, and when to worry. Pure: the time and the jitter come in.

A leaf is renewed at a random point between a half and two thirds of its life, so that a fleet started together does not
ask together; SPIRE, Istio and Vault's own watcher lie in the same range. After a failure the next try comes after a
random part of a growing pause (full jitter). Past 75 % of its life without a new leaf readiness turns amber.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """Fractions of a leaf's life, and pauses in seconds."""

    earliest: float = 0.50
    latest: float = 2 / 3
    alarm: float = 0.75
    first_retry: float = 1.0
    longest_retry: float = 60.0


DEFAULT_POLICY = RenewalPolicy()


def renew_at(
    not_before: datetime, not_after: datetime, jitter: float, policy: RenewalPolicy = DEFAULT_POLICY
) -> datetime:
    """Return when to ask for the next leaf. `jitter` is in [0, 1). Always inside [not_before, not_after)."""
    life = max(not_after - not_before, timedelta(0))
    return not_before + life * (policy.earliest + (policy.latest - policy.earliest) * jitter)


def pause_before(
    not_before: datetime, not_after: datetime, now: datetime, jitter: float, policy: RenewalPolicy = DEFAULT_POLICY
) -> float:
    """Return the seconds to wait before asking for the next leaf; 0 when it is time."""
    return max(0.0, (renew_at(not_before, not_after, jitter, policy) - now).total_seconds())


def retry_pause(failures: int, remaining: float, jitter: float, policy: RenewalPolicy = DEFAULT_POLICY) -> float:
    """Return the seconds before the next try after this many failures in a row (>= 1).

    `remaining` is the rest of the leaf's life in seconds: as it runs out the tries come closer, never more than one
    `first_retry` apart per tenth of what is left, so that a short-lived leaf is not slept away.
    """
    ceiling = min(policy.longest_retry, policy.first_retry * 2.0 ** min(failures - 1, 16))
    if remaining > 0:
        ceiling = min(ceiling, max(policy.first_retry, remaining / 10))
    return ceiling * jitter


class LeafState(enum.Enum):
    """How a leaf stands."""

    MISSING = "missing"
    FRESH = "fresh"
    AGING = "aging"  # past the alarm without a next one
    EXPIRED = "expired"


def leaf_state(
    validity: tuple[datetime, datetime] | None, now: datetime, policy: RenewalPolicy = DEFAULT_POLICY
) -> LeafState:
    """Return how a leaf with this (not_before, not_after) stands now; None is no leaf."""
    if validity is None:
        return LeafState.MISSING
    not_before, not_after = validity
    if now >= not_after:
        return LeafState.EXPIRED
    aged = now >= not_before + (not_after - not_before) * policy.alarm
    return LeafState.AGING if aged else LeafState.FRESH
