"""How much a gateway takes from one caller, and how long it waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.edge.rate_limit import Rate


@dataclass(frozen=True, slots=True)
class Protection:
    """What the YAML says; 0 is no limit. Timeouts in seconds, `min_rate` in bytes a second.

    A caller that sends a body, or reads an answer, at less than `min_rate` over `slow_after` seconds is cut.
    Trusted proxies are exempt from `max_connections_per_address`.
    """

    max_connections: int = 10_000  # of all edge listeners together
    max_connections_per_address: int = 1_000
    head_timeout: float = 10.0  # from a head's first byte to its last
    idle_timeout: float = 60.0  # between requests
    min_rate: int = 500
    slow_after: float = 20.0
    max_body: int = 0  # bytes
    max_requests_per_connection: int = 0
    per_address: Rate | None = None
    per_identity: Rate | None = None


DEFAULT_PROTECTION = Protection()
# Inside the mesh callers are known and one's own.
INSIDE = Protection(0, 0, idle_timeout=300.0, min_rate=0)
