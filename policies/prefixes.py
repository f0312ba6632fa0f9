"""The longest of many prefixes that a text begins with, found by halving: prefixes of paths, suffixes of hosts.

Sorted, a text stands right behind its prefixes or behind something that begins with one of them. So one search finds
the place, and from there the way leads up through ever shorter prefixes. The time depends on how deep prefixes are
nested in one another, and hardly on how many there are.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node(Generic[T]):
    """One prefix. `above` is the next shorter one that it begins with."""

    prefix: str
    value: T
    above: Node[T] | None


class Prefixes(Generic[T]):
    """Values by prefix."""

    __slots__ = ("_nodes", "_sorted")

    def __init__(self, values: Mapping[str, T]) -> None:
        self._sorted = sorted(values)
        self._nodes: list[Node[T]] = []
        above: Node[T] | None = None
        for prefix in self._sorted:
            while above is not None and not prefix.startswith(above.prefix):
                above = above.above
            above = Node(prefix, values[prefix], above)
            self._nodes.append(above)

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def longest(self, text: str) -> Node[T] | None:
        """Return the longest prefix that the text begins with; those above it are all the others."""
        place = bisect.bisect_right(self._sorted, text)
        node = self._nodes[place - 1] if place else None
        while node is not None and not text.startswith(node.prefix):
            node = node.above
        return node
