"""When a request is tried again, after how long, and how much of that a cluster has to bear.

Source: `NumRetries`, `RetryOn`, `RetryOnStatusCodes` and `RetryOnConnectFailure` of a route's `Destination`; what each
condition means is Envoy's (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`):

    5xx              an answer of 5xx, or none             connect-failure     no connection was made
    gateway-error    502, 503, 504, or none                retriable-4xx       409
    reset            no answer                             envoy-ratelimited   an answer with x-envoy-ratelimited
    refused-stream   a stream of HTTP/2: never here        cancelled, deadline-exceeded, internal, resource-exhausted,
                                                           unavailable: the grpc-status in the answer's head

No answer is a connection that ended, an answer that is not HTTP, and a try that took too long.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.matching import Headers
from policies.weak import Opaque, items

BASE_SECONDS = 0.025  # Envoy's
MAX_SECONDS = 0.25
BUDGET_PERCENT = 20.0
_WHOLE = 100.0  # a retry, in hundredths
BUDGET_FLOOR = 10 * _WHOLE
BUDGET_FLOOR_A_SECOND = _WHOLE
BUDGET_CEILING = 100 * _WHOLE

_FOREVER = 1e9
_CONFLICT = 409
_SERVICE_UNAVAILABLE = 503
_STATUSES = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset({502, 503, 504}),
    "retriable-4xx": frozenset({_CONFLICT}),
}
_GRPC = {"cancelled": "1", "deadline-exceeded": "4", "resource-exhausted": "8", "internal": "13", "unavailable": "14"}
_WITHOUT_ANSWER = frozenset({"5xx", "gateway-error", "reset"})
_WITHOUT_CONNECTION = _WITHOUT_ANSWER | {"connect-failure"}
_UNREACHED = frozenset({b"remote_connection_failure", b"connection_timeout"})


class Failure(enum.Enum):
    """Why a try brought no answer: Envoy's reset reason."""

    REFUSED = "remote connection failure"
    CONNECT_TIMED_OUT = "connection timeout"
    OVERFLOW = "overflow"  # a limit of our own: asking again makes it worse
    ENDED = "connection termination"
    NOT_HTTP = "protocol error"
    TIMED_OUT = "per try timeout"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A route's retries: how often and on what. `try_timeout` is in seconds; see `RetryBudget` of the percent."""

    count: int
    conditions: frozenset[str]
    status_codes: frozenset[int] = frozenset()
    try_timeout: float | None = None
    budget_percent: float = BUDGET_PERCENT
    _statuses: frozenset[int] = field(init=False, repr=False, compare=False)
    _grpc: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Bring the conditions to what answers are compared with."""
        wanted = (_STATUSES.get(condition, frozenset()) for condition in self.conditions)
        object.__setattr__(self, "_statuses", self.status_codes.union(*wanted))
        object.__setattr__(self, "_grpc", frozenset(_GRPC[name] for name in self.conditions & _GRPC.keys()))

    def after_failure(self, failure: Failure) -> bool:
        """Return whether a request is tried again that got no answer."""
        if failure is Failure.OVERFLOW:
            return False
        nobody = failure in {Failure.REFUSED, Failure.CONNECT_TIMED_OUT}
        return bool(self.conditions & (_WITHOUT_CONNECTION if nobody else _WITHOUT_ANSWER))

    def after_answer(self, status: int, fields: Headers, reason: bytes = b"") -> bool:
        """Return whether a request is tried again that was answered so.

        `reason` is what the called sidecar says about an answer of its own: an app that could not be reached there is
        a failed connection. What is limited for being too much is not asked again, unless just that is the condition.
        """
        on_limited = "envoy-ratelimited" in self.conditions
        matches = status in self._statuses
        if not matches and status == _SERVICE_UNAVAILABLE and reason in _UNREACHED:
            matches = "connect-failure" in self.conditions
        if not matches and self._grpc:
            matches = not self._grpc.isdisjoint(fields.get_all("grpc-status")[:1])
        if (matches or on_limited) and fields.get_all("x-envoy-ratelimited"):
            return on_limited
        return matches


def parse_retry(destination: Mapping[str, Any]) -> RetryPolicy | None:
    """Return the retries of a route's `Destination`. A number without a condition retries nothing."""
    conditions = {str(condition) for condition in items(destination.get("RetryOn"))}
    if destination.get("RetryOnConnectFailure"):
        conditions.add("connect-failure")
    codes = frozenset(int(code) for code in items(destination.get("RetryOnStatusCodes")))
    if not conditions and not codes:
        return None
    return RetryPolicy(int(destination.get("NumRetries") or 1), frozenset(conditions), codes)


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """What Consul has no field for; see RetryPolicy."""

    try_timeout: float | None = None
    budget_percent: float = BUDGET_PERCENT

    def of(self, policy: RetryPolicy | None) -> RetryPolicy | None:
        """Return a route's policy with these settings."""
        if policy is None or self == DEFAULT_RETRIES:
            return policy
        return replace(policy, try_timeout=self.try_timeout, budget_percent=self.budget_percent)


DEFAULT_RETRIES = RetrySettings()


def parse_retry_settings(config: Opaque, default: RetrySettings = DEFAULT_RETRIES) -> RetrySettings:
    """Return `per_try_timeout_ms` and `retry_budget_percent` of the opaque config of an upstream, or of the proxy.

    These keys are ours; Consul passes them through. No time, 0 or less is no limit of a try.
    """
    seconds = config.number("per_try_timeout_ms", (default.try_timeout or 0.0) * 1000) / 1000
    percent = config.number("retry_budget_percent", default.budget_percent)
    return RetrySettings(
        try_timeout=seconds if 0 < seconds < _FOREVER else None,
        budget_percent=percent if 0 <= percent < _FOREVER else default.budget_percent,
    )


def back_off(retry: int, draw: float) -> float:
    """Return the seconds to wait before the first retry (1), the second, ...; `draw` is in [0, 1): full jitter."""
    return draw * min(BASE_SECONDS * 2.0 ** min(retry - 1, 16), MAX_SECONDS)


class RetryBudget:
    """The retries that a cluster may still be burdened with.

    Every request that may be retried pays in `percent` of a retry (20 by default), every retry takes one out: a cluster
    that fails altogether gets at most so much load in addition. 10 retries are there at first, and below 10 one more
    comes every second, so that single requests on an idle mesh may be retried; more than 100 are never saved up. With
    0 percent there are no retries at all. Times are seconds of the clock that the caller reads.
    """

    __slots__ = ("_balance", "_percent", "_since")

    def __init__(self, percent: float, now: float) -> None:
        self._percent = percent
        self._balance = BUDGET_FLOOR if percent > 0 else 0.0  # in hundredths of a retry, so that they add up
        self._since = now  # when the floor was last reckoned

    def asked(self) -> None:
        """Count a request that may be retried."""
        if self._balance < BUDGET_CEILING:
            self._balance += self._percent

    def spend(self, now: float) -> bool:
        """Return whether there may be a retry now, and count it."""
        if self._balance < BUDGET_FLOOR and self._percent > 0:
            grown = (now - self._since) * BUDGET_FLOOR_A_SECOND
            self._balance = min(self._balance + grown, BUDGET_FLOOR)
        self._since = now
        if self._balance < _WHOLE:
            return False
        self._balance -= _WHOLE
        return True
