"""The leaves of linked services, ready to answer with: a terminating gateway has one for each service outside.

Each is built and tried by itself. A leaf that cannot be used costs only its service, which goes on with the last good
one until that ends; without one its filter chains stay closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dataplane.tls import Contexts, build_contexts
from policies.errors import BadLeaf, Problem
from policies.identity import Leaf, Roots
from policies.mesh import Mesh


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """A leaf with its contexts, and what else those were built from."""

    leaf: Leaf
    roots: Roots
    mesh: Mesh
    contexts: Contexts

    @property
    def ends(self) -> float:
        """Return the end of the leaf as seconds since the epoch."""
        return self.leaf.not_after.timestamp()


NO_CREDENTIALS: Mapping[str, Credential] = MappingProxyType({})


class Credentials:
    """All of them. `current` is by service; the very same object as long as nothing in it changes."""

    def __init__(self) -> None:
        self.current = NO_CREDENTIALS
        self.problems: tuple[Problem, ...] = ()

    def steps(self, leaves: Mapping[str, Leaf], roots: Roots, mesh: Mesh) -> Iterator[None]:
        """Go by these leaves; one a step, since a handshake in memory takes a millisecond or two."""
        built: dict[str, Credential] = {}
        problems: list[Problem] = []
        for service, leaf in leaves.items():
            old = self.current.get(service)
            if old is not None and (old.leaf, old.roots, old.mesh) == (leaf, roots, mesh):
                built[service] = old
                continue
            try:
                built[service] = Credential(
                    leaf, roots, mesh, build_contexts(leaf, roots, mesh.incoming, mesh.outgoing)
                )
            except BadLeaf as error:
                effect = "the last good one goes on" if old is not None else "the service stays closed"
                problems.append(Problem(f"leaf of {service}", str(error), effect))
                if old is not None:
                    built[service] = old
            yield
        self.problems = tuple(problems)
        if built != self.current:
            self.current = built
