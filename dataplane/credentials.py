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
    """A leaf with its contexts."""

    leaf: Leaf
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
        self._tried: dict[str, tuple[Leaf, Roots, Mesh]] = {}  # what each was last built from, well or not
        self._problems: dict[str, Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return which leaves cannot be used."""
        return tuple(self._problems.copy().values())

    def steps(self, leaves: Mapping[str, Leaf], roots: Roots, mesh: Mesh) -> Iterator[None]:
        """Go by these leaves; one a step, since a handshake in memory takes some milliseconds.

        Whoever has no time for all of them may come again: each is tried once.
        """
        for service in self._tried.keys() - leaves.keys():
            del self._tried[service]
            self._problems.pop(service, None)
            self.current = {name: one for name, one in self.current.items() if name != service}
        for service, leaf in leaves.items():
            given = (leaf, roots, mesh)
            if self._tried.get(service) == given:
                continue
            self._tried[service] = given
            try:
                contexts = build_contexts(leaf, roots, mesh.incoming, mesh.outgoing)
            except BadLeaf as error:
                effect = "the last good one goes on" if service in self.current else "the service stays closed"
                self._problems[service] = Problem(f"leaf of {service}", str(error), effect)
            else:
                self._problems.pop(service, None)
                self.current = {**self.current, service: Credential(leaf, contexts)}
            yield
