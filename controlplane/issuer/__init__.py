"""Where leaf certificates come from: Vault, or the agent's Connect CA.

An issuer is a stream of leaves: the first as soon as one can be had, then each next one in time. It never ends and does
not raise for what may get better; its `status` tells what is wrong meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from policies.identity import Leaf, SpiffeId


@dataclass(slots=True)
class IssuerStatus:
    """How the issuer stands. Times are seconds since the epoch."""

    kind: str
    issued: int = 0
    failures: int = 0  # in a row
    failing_since: float | None = None
    error: str = ""
    next_renewal: float | None = None


class Issuer(Protocol):
    """A source of leaves. `status` is about our own; a terminating gateway has leaves of others too."""

    status: IssuerStatus

    def leaves(self, spiffe_id: SpiffeId, status: IssuerStatus | None = None) -> AsyncIterator[Leaf]:
        """Yield the leaf of this identity, and each next one before the last ends. `status` tells how it stands."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...
