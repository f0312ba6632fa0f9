"""The one place where control path and data path meet: the generation in force.

A generation is the table, the contexts of the leaf in force and the check of peers, swapped as one reference. Whoever
keeps something made from a generation (a decision, a pool) compares by identity and makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from dataplane.credentials import NO_CREDENTIALS, Credential
from dataplane.plans import Plans
from dataplane.tls import Contexts, PeerCheck, build_contexts
from policies.errors import BadLeaf, Problem
from policies.identity import Leaf, Roots
from policies.mesh import Mesh
from policies.table import Table

if TYPE_CHECKING:  # a sidecar loads none of these
    from dataplane.edge.server_tls import ServerContexts
    from policies.edge.server_certificates import EdgeMaterial

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """All that the data path reads. `number` grows by one a swap.

    `outside` are the contexts of a gateway's TLS listeners by port, as far as their certificates are known; `problems`
    say why one is missing.
    """

    number: int
    table: Table
    leaf: Leaf
    roots: Roots
    mesh: Mesh
    contexts: Contexts
    check_peer: PeerCheck
    material: EdgeMaterial | None = None
    outside: Mapping[int, ServerContexts] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    linked: Mapping[str, Credential] = field(default_factory=dict)

    @property
    def leaf_ends(self) -> float:
        """Return the end of the leaf as seconds since the epoch."""
        return self.leaf.not_after.timestamp()


class Live:
    """Holds the generation in force. None until everything needed was heard."""

    def __init__(self) -> None:
        self.current: Generation | None = None
        self.plans = Plans()
        self._subscribers: list[Callable[[Generation], None]] = []

    def prepare(
        self,
        table: Table,
        leaf: Leaf,
        roots: Roots,
        mesh: Mesh,
        material: EdgeMaterial | None = None,
        linked: Mapping[str, Credential] = NO_CREDENTIALS,
    ) -> Generation | None:
        """Return the generation that what has changed makes, for `put_in_force`; None when nothing has.

        May be called in another thread than the loop's, by one caller who puts in force what it has prepared before
        it prepares more. To compare large tables, build contexts and try them takes many milliseconds.

        Who may call does not wait for a leaf that fits roots and TLS versions: a table is put in force with the leaf,
        the roots and the TLS versions of before. Of a new trust domain only the inbound half is: peers of the old one
        are all that the old roots know.
        """
        old = self.current
        if old is not None and table == old.table:
            table = old.table  # by identity: what was prepared for it stays good
            given = (leaf, roots, mesh, material, linked)
            if given == (old.leaf, old.roots, old.mesh, old.material, old.linked):
                return None
        try:
            return generation_after(old, table, leaf, roots, mesh, material, linked)
        except BadLeaf as error:
            log.error("leaf_unusable", error=str(error))
        if old is None:
            return None
        if roots.trust_domain != old.roots.trust_domain:
            table = replace(old.table, inbound=table.inbound, egress=table.egress)
        if (table, material, linked) == (old.table, old.material, old.linked):
            return None
        return generation_after(old, table, old.leaf, old.roots, old.mesh, material, linked)

    def put_in_force(self, generation: Generation) -> None:
        """Swap in what was prepared, on the loop."""
        before = self.current.number if self.current is not None else 0
        assert generation.number == before + 1, "prepared for another generation than the one in force"  # noqa: S101
        self.current = generation
        self.plans.forget()
        for subscriber in tuple(self._subscribers):
            subscriber(generation)

    def subscribe(self, callback: Callable[[Generation], None]) -> Callable[[], None]:
        """Call back after every swap, in order, on the loop. Return the end of the subscription."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)


def generation_after(
    old: Generation | None,
    table: Table,
    leaf: Leaf,
    roots: Roots,
    mesh: Mesh,
    material: EdgeMaterial | None,
    linked: Mapping[str, Credential],
) -> Generation:
    """Return the generation after `old`, which gives what need not be built again.

    Raise BadLeaf when leaf, roots and TLS versions do not fit each other.
    """
    if old is not None and (old.leaf, old.roots, old.mesh) == (leaf, roots, mesh):
        contexts, check = old.contexts, old.check_peer
    else:
        contexts = build_contexts(leaf, roots, mesh.incoming, mesh.outgoing)
        check = PeerCheck(roots.trust_domain)
    outside, problems = _outside(old, table, material)
    number = old.number + 1 if old is not None else 1
    return Generation(number, table, leaf, roots, mesh, contexts, check, material, outside, problems, linked)


def _outside(
    old: Generation | None, table: Table, material: EdgeMaterial | None
) -> tuple[Mapping[int, ServerContexts], tuple[Problem, ...]]:
    if not table.ingress:
        return {}, ()
    from dataplane.edge.server_tls import contexts_of_listeners  # noqa: PLC0415 - only a gateway has such listeners
    from policies.edge.server_certificates import NO_MATERIAL  # noqa: PLC0415 - the same

    return contexts_of_listeners(table.ingress, material or NO_MATERIAL, old.outside if old is not None else {})
