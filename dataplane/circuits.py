"""The circuit breaker of one target: counts over all its endpoints, and the limits that they are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.limits import Limits

if TYPE_CHECKING:
    from dataplane.metrics import UpstreamCounts
    from dataplane.pool import Pool


class Overflow(Exception):
    """A limit of the target is reached."""


class Circuit:
    """What is open, waiting and under way towards a target. `starving` are the pools in which somebody waits."""

    __slots__ = (
        "active",
        "connections",
        "counts",
        "max_active",
        "max_connections",
        "max_pending",
        "pending",
        "starving",
    )

    def __init__(self, counts: UpstreamCounts) -> None:
        self.counts = counts
        self.connections = 0  # open, busy or idle
        self.pending = 0  # requests that wait for a connection
        self.active = 0  # requests that have one
        self.starving: dict[Pool, None] = {}
        self.obey(Limits())

    def obey(self, limits: Limits) -> None:
        """Hold what comes from now on against these limits."""
        self.max_connections = limits.max_connections
        self.max_pending = limits.max_pending_requests
        self.max_active = limits.max_concurrent_requests

    def overflow(self, limit: str) -> Overflow:
        """Count a refusal and return it."""
        self.counts.overflows[limit] += 1
        return Overflow(limit)
