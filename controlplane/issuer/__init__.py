"""Where leaf certificates come from: Vault, or the agent's Connect CA.

An issuer is a stream of leaves: the first as soon as one can be had, then each next one in time. It never ends and does
not raise for what may get better; its `status` tells what is wrong meanwhile.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from policies.errors import CatalogError, IssuerError
from policies.identity import Leaf, SpiffeId
from policies.rotation import retry_pause

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class IssuerStatus:
    """How the issuer stands. Times are seconds since the epoch."""

    kind: str
    issued: int = 0
    failures: int = 0  # in a row
    failing_since: float | None = None
    error: str = ""
    next_renewal: float | None = None

    def succeed(self) -> None:
        """Note that there is an answer."""
        self.failures = 0
        self.failing_since = None
        self.error = ""

    def fail(self, error: str) -> None:
        """Note that there is none."""
        self.failures += 1
        self.failing_since = self.failing_since or time.time()
        self.error = error


class Issuer(Protocol):
    """A source of leaves. `status` is about our own; a terminating gateway has leaves of others too."""

    status: IssuerStatus

    def leaves(self, spiffe_id: SpiffeId, status: IssuerStatus | None = None) -> AsyncIterator[Leaf]:
        """Yield the leaf of this identity, and each next one before the last ends. `status` tells how it stands."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


def succeeded(status: IssuerStatus) -> None:
    """Note that the issuer answered, telling the end of a failure."""
    if status.failing_since is not None:
        log.info("issuer_recovered", issuer=status.kind, seconds=round(time.time() - status.failing_since, 1))
    status.succeed()


def failed(status: IssuerStatus, error: CatalogError | IssuerError, ends: datetime | None) -> float:
    """Note a failure, telling it once and what is terminal by its words; return the seconds before the next try.

    `ends` is the end of what was signed last, if anything was.
    """
    said = str(error)
    if status.failing_since is None or (error.terminal and said != status.error):
        log.warning("issuer_failing", issuer=status.kind, error=said)
    status.fail(said)
    remaining = ends.timestamp() - time.time() if ends is not None else 0.0
    return 0.05 + retry_pause(status.failures, remaining, random.random())
