"""The circuit breaker of a cluster: how much may be open, waiting and under way towards one upstream.

Source: `Config.limits` of an upstream, as a registration has it or as service-defaults `UpstreamConfig` renders it, and
the limits of the ingress-gateway entry. What is not set is Envoy's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.weak import Opaque

DEFAULT = 1024
_UNLIMITED = (1 << 32) - 1  # what a negative number becomes on its way to Envoy


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one cluster, over all its endpoints. 0 allows none; of connections each endpoint may still have one."""

    max_connections: int = DEFAULT
    max_pending_requests: int = DEFAULT  # that wait for a connection
    max_concurrent_requests: int = DEFAULT


DEFAULT_LIMITS = Limits()


def parse_limits(config: Opaque) -> Limits:
    """Return the limits in the opaque config of an upstream."""
    part = config.part("limits")
    return Limits(
        _limit(part, "max_connections"),
        _limit(part, "max_pending_requests"),
        _limit(part, "max_concurrent_requests"),
    )


def _limit(part: Opaque, key: str) -> int:
    value = int(part.number(key, DEFAULT))
    return value if value >= 0 else _UNLIMITED


def ingress_limits(defaults: Mapping[str, Any], service: Mapping[str, Any]) -> Limits:
    """Return the limits of a service of an ingress-gateway entry: its own, else the entry's. There 0 is not set."""
    return Limits(
        *(
            next((int(row[key]) for row in (service, defaults) if _is_set(row.get(key))), DEFAULT)
            for key in ("MaxConnections", "MaxPendingRequests", "MaxConcurrentRequests")
        )
    )


def _is_set(value: object) -> bool:
    return isinstance(value, int) and value > 0
