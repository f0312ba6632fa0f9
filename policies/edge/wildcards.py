"""Host names that stand for others: in `*.suffix` the asterisk is one label or more, as in Envoy's filter chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

_T = TypeVar("_T")


def longest_suffix(name: str, patterns: Mapping[str, _T]) -> _T | None:
    """Return what belongs to the longest `*.suffix` that stands for a name (lower case), None if none does."""
    _, dot, parent = name.partition(".")
    while dot:
        if (found := patterns.get(f"*.{parent}")) is not None:
            return found
        _, dot, parent = parent.partition(".")
    return None
