"""Which arm of a split takes a request. Every request is drawn for by itself, as Envoy does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Weighted(Protocol):
    """Anything with a weight."""

    @property
    def weight(self) -> float:
        """Return the share; 0 or less is never picked."""
        ...


_W = TypeVar("_W", bound=Weighted)


def pick(legs: Sequence[_W], draw: float) -> _W | None:
    """Return the leg that a draw from [0, 1) falls on, or None when no leg has any weight.

    Shares are proportional to the weights, whatever these sum up to: flattening nested splitters rounds them.
    """
    if len(legs) == 1:
        return legs[0] if legs[0].weight > 0 else None
    point = draw * sum(leg.weight for leg in legs if leg.weight > 0)
    chosen = None
    for leg in legs:
        if leg.weight > 0:
            chosen = leg
            point -= leg.weight
            if point < 0:
                break
    return chosen
