"""Passive health: which endpoints of a cluster are left out for a while because of what they answered, or did not.

An endpoint is *admitted*, *ejected*, or on *trial*. Failures in a row eject it, for longer each time; when the time is
over one request is let through, and what comes of it decides:

    ADMITTED ──max_failures in a row──▶ EJECTED ──time over, one request──▶ TRIAL ──failed──▶ EJECTED
       ▲                                   │                                  │
       └────────── nobody else is left ────┴──────────── success ─────────────┘

Counted as in Envoy: a connect failure, a request without an answer (connection lost, timeout) and an answer of 5xx all
make one row, which any other answer ends. Two rules are ours:

- `max_ejection_percent` bounds what requests can bring about. Failures to connect eject whatever the size of the
  cluster: ten percent of three endpoints is nobody, and a dead one would keep its third.
- Not the last one, unless another cluster stands in for it. If even the last one fails, none is an outlier: all are
  taken back, and whoever recovers first is found by the next requests.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from policies.durations import parse_duration
from policies.errors import EntryError
from policies.weak import Opaque

MAX_EJECTION_SECONDS = 300.0  # or the base time, if that is longer
_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class PassiveHealth:
    """When an endpoint is ejected and for how long (`PassiveHealthCheck`). Times in seconds; Envoy's defaults."""

    interval: float = 10.0  # healthy time that takes back one lengthening of the ejection
    max_failures: int = 5
    enforcing: float = 100.0  # percent of the ejections due that really happen
    max_ejection_percent: float = 10.0
    base_ejection_time: float = 30.0


DEFAULT_HEALTH = PassiveHealth()


class State(enum.Enum):
    """How an endpoint stands."""

    ADMITTED = "admitted"
    EJECTED = "ejected"
    TRIAL = "trial"  # ejected, and one request is on its way to it


class Event(enum.Enum):
    """What changes it."""

    EJECT = enum.auto()
    TRY = enum.auto()
    SUCCEED = enum.auto()
    TAKE_BACK = enum.auto()


MOVES: Mapping[tuple[State, Event], State] = {
    (State.ADMITTED, Event.EJECT): State.EJECTED,
    (State.EJECTED, Event.TRY): State.TRIAL,
    (State.EJECTED, Event.TAKE_BACK): State.ADMITTED,
    (State.TRIAL, Event.TRY): State.TRIAL,  # nothing was heard of the request before
    (State.TRIAL, Event.EJECT): State.EJECTED,
    (State.TRIAL, Event.SUCCEED): State.ADMITTED,
    (State.TRIAL, Event.TAKE_BACK): State.ADMITTED,
}


class Failure(enum.Enum):
    """What went wrong at an endpoint."""

    CONNECT = enum.auto()
    SILENCE = enum.auto()  # the connection ended, or time was up, before an answer
    ERROR = enum.auto()  # it answered 5xx


class Cause(enum.Enum):
    """Why an endpoint is ejected."""

    CONNECT_FAILURES = "connect_failures"
    CONSECUTIVE_5XX = "consecutive_5xx"


@dataclass(frozen=True, slots=True)
class Outlier:
    """What is known of one endpoint. Times are those of the clock that `now` is read from."""

    state: State = State.ADMITTED
    failures: int = 0  # in a row, of every kind
    connect_failures: int = 0  # in a row
    times: int = 0  # ejections that good behaviour has not made up for
    until: float = 0.0  # ejected: a request may be let through from then on
    since: float = 0.0  # admitted since
    cause: Cause | None = None  # of the last ejection


HEALTHY = Outlier()


@dataclass(frozen=True, slots=True)
class Company:
    """The endpoints of the cluster: how many, how many of them ejected, and whether another cluster stands in."""

    endpoints: int
    ejected: int
    backed_up: bool = False


class Verdict(enum.Enum):
    """What follows from a failure."""

    KEEP = enum.auto()  # it stays as it is
    EJECT = enum.auto()
    TAKE_BACK = enum.auto()  # it is the last one: those ejected for no worse cause are as good as this one


def after_failure(
    outlier: Outlier, failure: Failure, company: Company, settings: PassiveHealth, now: float, draw: float
) -> tuple[Outlier, Verdict]:
    """Return what is known after a failure, and what follows. `draw` in [0, 1) decides about enforcing."""
    if outlier.state is State.EJECTED:
        return outlier, Verdict.KEEP  # of a request that was under way before
    if outlier.state is State.TRIAL:
        cause = Cause.CONNECT_FAILURES if failure is Failure.CONNECT else Cause.CONSECUTIVE_5XX
        return _ejected(outlier, cause, settings, now), Verdict.EJECT
    counted = replace(
        outlier,
        failures=outlier.failures + 1,
        connect_failures=_connect_failures(outlier, failure),
    )
    cause_due = _due(counted, settings)
    if cause_due is None:
        return counted, Verdict.KEEP
    verdict = _judge(cause_due, company, settings, draw)
    if verdict is Verdict.EJECT:
        return _ejected(counted, cause_due, settings, now), verdict
    # A row that the percentage keeps from counting may still become one of connect failures, which it does not bound.
    connect_failures = 0 if cause_due is Cause.CONNECT_FAILURES else counted.connect_failures
    return replace(counted, failures=0, connect_failures=connect_failures, cause=cause_due), verdict


def _connect_failures(outlier: Outlier, failure: Failure) -> int:
    match failure:
        case Failure.CONNECT:
            return outlier.connect_failures + 1
        case Failure.SILENCE:
            return outlier.connect_failures
        case Failure.ERROR:
            return 0  # it takes connections


def _due(outlier: Outlier, settings: PassiveHealth) -> Cause | None:
    if outlier.connect_failures >= settings.max_failures:
        return Cause.CONNECT_FAILURES
    return Cause.CONSECUTIVE_5XX if outlier.failures >= settings.max_failures else None


def _judge(cause: Cause, company: Company, settings: PassiveHealth, draw: float) -> Verdict:
    percent = settings.max_ejection_percent
    if percent <= 0 or draw * _PERCENT >= settings.enforcing:
        return Verdict.KEEP
    if company.endpoints - company.ejected <= 1 and not company.backed_up:
        return Verdict.TAKE_BACK
    over = (company.ejected + 1) * _PERCENT > percent * company.endpoints
    return Verdict.KEEP if over and cause is not Cause.CONNECT_FAILURES else Verdict.EJECT


def _ejected(outlier: Outlier, cause: Cause, settings: PassiveHealth, now: float) -> Outlier:
    times = outlier.times
    if outlier.state is State.ADMITTED and settings.interval > 0:
        times = max(0, times - int((now - outlier.since) / settings.interval))
    base = settings.base_ejection_time
    longest = max(base, MAX_EJECTION_SECONDS)
    times = min(times + 1, math.ceil(longest / base)) if base > 0 else 1
    return Outlier(
        state=MOVES[outlier.state, Event.EJECT],
        times=times,
        until=now + min(base * times, longest),
        cause=cause,
    )


def may_try(outlier: Outlier, now: float) -> bool:
    """Return whether an ejected endpoint's time is over."""
    return now >= outlier.until


def on_trial(outlier: Outlier, settings: PassiveHealth, now: float) -> Outlier:
    """Let one request through; another one after an interval in which nothing is heard of it."""
    return replace(outlier, state=MOVES[outlier.state, Event.TRY], until=now + settings.interval)


def as_last_resort(outlier: Outlier) -> Outlier:
    """Let one request through before the time is over, since no other endpoint took it. A failure lengthens nothing."""
    if outlier.state is not State.EJECTED:
        return outlier
    return replace(outlier, state=MOVES[outlier.state, Event.TRY], times=max(0, outlier.times - 1))


def after_connect(outlier: Outlier, now: float) -> Outlier:
    """Return what is known once a connection was made: enough for one that was ejected for refusing them."""
    if outlier.state is State.TRIAL and outlier.cause is Cause.CONNECT_FAILURES:
        return _admitted(outlier, Event.SUCCEED, now)
    return replace(outlier, connect_failures=0) if outlier.connect_failures else outlier


def after_answer(outlier: Outlier, now: float) -> Outlier:
    """Return what is known after an answer other than 5xx."""
    match outlier.state:
        case State.TRIAL:
            return _admitted(outlier, Event.SUCCEED, now)
        case State.ADMITTED:
            return replace(outlier, failures=0, connect_failures=0)
        case State.EJECTED:
            return outlier  # of a request that was under way before


def taken_back(outlier: Outlier, now: float) -> Outlier:
    """Return an ejected endpoint as admitted because nobody is left. This ejection does not make the next longer."""
    return replace(_admitted(outlier, Event.TAKE_BACK, now), times=max(0, outlier.times - 1))


def no_worse(outlier: Outlier, cause: Cause) -> bool:
    """Return whether an endpoint was ejected for no worse than this: one that answers badly still answers."""
    return cause is Cause.CONNECT_FAILURES or outlier.cause is not Cause.CONNECT_FAILURES


def _admitted(outlier: Outlier, event: Event, now: float) -> Outlier:
    return Outlier(state=MOVES[outlier.state, event], times=outlier.times, since=now)


# --- settings --------------------------------------------------------------------------------------------------------


def parse_passive_health(config: Opaque) -> PassiveHealth:
    """Return the settings in the opaque config of an upstream. What cannot be read is the default."""
    part = config.part("passive_health_check")
    return _settings(part, PassiveHealth(), enforcing_zero=True)


def ingress_passive_health(defaults: Mapping[str, Any], service: Mapping[str, Any]) -> PassiveHealth:
    """Return the settings of a service of an ingress-gateway entry, field by field its own or the entry's."""
    of_entry = _settings(Opaque(defaults.get("PassiveHealthCheck")), PassiveHealth(), enforcing_zero=False)
    return _settings(Opaque(service.get("PassiveHealthCheck")), of_entry, enforcing_zero=False)


def _settings(part: Opaque, known: PassiveHealth, *, enforcing_zero: bool) -> PassiveHealth:
    """Return what is known, replaced by what is set: 0 sets only percentages; enforcing not on an ingress gateway."""
    enforcing = part.number("enforcing_consecutive_5xx", known.enforcing)
    return PassiveHealth(
        interval=_seconds(part, "interval") or known.interval,
        max_failures=max(0, int(part.number("max_failures", 0))) or known.max_failures,
        enforcing=enforcing if enforcing or enforcing_zero else known.enforcing,
        max_ejection_percent=part.number("max_ejection_percent", known.max_ejection_percent),
        base_ejection_time=_seconds(part, "base_ejection_time") or known.base_ejection_time,
    )


def _seconds(part: Opaque, key: str) -> float:
    try:
        return max(0.0, parse_duration(part.value(key), key))
    except EntryError:
        return 0.0
