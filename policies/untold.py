"""Which lines of the log are written where every request might bring one: one of a kind in ten seconds.

A line that is written says how many of its kind were left out before it. Counters count them all.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

SECONDS = 10.0
MAX_KINDS = 256  # in that time; what is of none of these is of one kind

_OTHERS = object()


class Untold:
    """What was written lately, and how often it was left out since."""

    __slots__ = ("_lately",)

    def __init__(self) -> None:
        self._lately: dict[Hashable, tuple[float, int]] = {}  # what was written longest ago comes first

    def due(self, kind: Hashable, now: float) -> int | None:
        """Return how many lines of a kind were left out, if it is time for one; None: leave this one out too.

        `now` is in seconds.
        """
        if kind not in self._lately and not self._has_room(now):
            kind = _OTHERS
        at, left_out = self._lately.get(kind, (-math.inf, 0))
        if now - at < SECONDS:
            self._lately[kind] = at, left_out + 1
            return None
        self._lately.pop(kind, None)
        self._lately[kind] = now, 0
        return left_out

    def _has_room(self, now: float) -> bool:
        """Return whether one more kind can be remembered. One that is due again anyway makes room for it."""
        if len(self._lately) < MAX_KINDS:
            return True
        oldest = next(iter(self._lately))
        if now - self._lately[oldest][0] < SECONDS:
            return False
        del self._lately[oldest]
        return True

    def __len__(self) -> int:
        """Return how many kinds are remembered."""
        return len(self._lately)
