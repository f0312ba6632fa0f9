"""Which route takes a request: the matches of `service-router`, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeaderModifiers:
    """Changes to the headers of one level: removes first, then sets, then adds. Names are lower case."""

    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A route's retries: how often and on what (`RetryOn`, `RetryOnStatusCodes`, `RetryOnConnectFailure`)."""

    count: int
    conditions: frozenset[str]
    status_codes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The `Match.HTTP` of a route, ready to ask. Filled in by `parse_match`."""
