"""The one place where control path and data path meet: the generation in force.

A generation is the table, the contexts of the leaf in force and the check of peers, swapped as one reference. Whoever
keeps something made from a generation (a decision, a pool) compares by identity and makes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dataplane.tls import Contexts, PeerCheck, build_contexts
from policies.identity import Leaf, Roots
from policies.mesh import Mesh
from policies.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """All that the data path reads. `number` grows by one a swap."""

    number: int
    table: Table
    leaf: Leaf
    roots: Roots
    mesh: Mesh
    contexts: Contexts
    check_peer: PeerCheck

    @property
    def leaf_ends(self) -> float:
        """Return the end of the leaf as seconds since the epoch."""
        return self.leaf.not_after.timestamp()


class Live:
    """Holds the generation in force. None until everything needed was heard."""

    def __init__(self) -> None:
        self.current: Generation | None = None
        self._subscribers: list[Callable[[Generation], None]] = []

    def swap(self, table: Table, leaf: Leaf, roots: Roots, mesh: Mesh) -> Generation:
        """Put a new generation in force. Raise BadLeaf and leave the old one when leaf and roots do not fit."""
        old = self.current
        if old is not None and (old.leaf, old.roots, old.mesh) == (leaf, roots, mesh):
            contexts, check = old.contexts, old.check_peer
        else:
            contexts = build_contexts(leaf, roots, mesh.incoming, mesh.outgoing)
            check = PeerCheck(roots.trust_domain)
        number = old.number + 1 if old is not None else 1
        generation = Generation(number, table, leaf, roots, mesh, contexts, check)
        self.current = generation
        for subscriber in tuple(self._subscribers):
            subscriber(generation)
        return generation

    def subscribe(self, callback: Callable[[Generation], None]) -> Callable[[], None]:
        """Call back after every swap, in order, on the loop. Return the end of the subscription."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)
