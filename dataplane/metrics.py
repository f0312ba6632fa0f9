"""Counters as plain integers, and their rendering as Prometheus text when somebody scrapes.

The hot path adds to slots of objects that it holds already; names and labels exist only in `render`. Label values are
bounded: listeners, upstreams, reasons and status classes, never paths or peers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from dataplane.exposition import Family
from policies.untold import Untold

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_CLASSES = 6


class HttpCounts:
    """The requests of one listener or upstream."""

    __slots__ = ("bucket_counts", "by_class", "reasons", "seconds")

    def __init__(self) -> None:
        self.by_class = [0] * _CLASSES  # index 2 counts 2xx
        self.reasons: Counter[str] = Counter()  # answers made here, by reason
        self.bucket_counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self.by_class[status // 100 if status < _CLASSES * 100 else 5] += 1
        self.bucket_counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class ConnectionCounts:
    """The connections of one listener."""

    __slots__ = ("accepted", "bytes_in", "bytes_out", "closed", "cut", "denied", "refused", "revoked", "untold")

    def __init__(self) -> None:
        self.accepted = 0
        self.closed = 0
        self.denied = 0  # tcp connections that an intention refused
        self.revoked: Counter[str] = Counter()  # what was closed because an intention now denies it
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused: Counter[str] = Counter()  # before a byte, by reason
        self.cut: Counter[str] = Counter()  # for being too slow, by what was slow
        self.untold = Untold()  # lines of the log about them


class UpstreamCounts:
    """The connections towards one upstream."""

    __slots__ = (
        "connect_failures",
        "connections",
        "ejected",
        "ejections",
        "overflows",
        "retries",
        "retries_succeeded",
        "retry_budget_exhausted",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.connect_failures = 0
        self.retries = 0
        self.retries_succeeded = 0
        self.retry_budget_exhausted = 0
        self.overflows: Counter[str] = Counter()  # requests and connections refused, by the limit that was reached
        self.ejections: Counter[str] = Counter()  # of endpoints, by cause
        self.ejected = 0  # now


class Metrics:
    """All counters of a process, by the name of listener or upstream. `gauges` are asked at every scrape."""

    def __init__(self) -> None:
        self.http: dict[str, HttpCounts] = {}
        self.listeners: dict[str, ConnectionCounts] = {}
        self.upstreams: dict[str, UpstreamCounts] = {}
        self.gauges: list[Callable[[], Iterable[Family]]] = []

    def for_http(self, name: str) -> HttpCounts:
        """Return the request counters of a listener, made when first asked for."""
        return self.http.setdefault(name, HttpCounts())

    def for_listener(self, name: str) -> ConnectionCounts:
        """Return the connection counters of a listener."""
        return self.listeners.setdefault(name, ConnectionCounts())

    def for_upstream(self, name: str) -> UpstreamCounts:
        """Return the counters of an upstream target."""
        return self.upstreams.setdefault(name, UpstreamCounts())

    def render(self) -> bytes:
        """Return the Prometheus text exposition format, version 0.0.4. May run in a thread."""
        gauges = (family for asked in self.gauges for family in asked())
        families = (*self._http(), *self._listeners(), *self._upstreams(), *gauges)
        return "".join(map(str, families)).encode()

    def _http(self) -> Iterator[Family]:
        requests = Family("lictor_requests_total", "counter", "HTTP requests answered, by class of status.")
        reasons = Family("lictor_local_answers_total", "counter", "Answers made by this proxy, by reason.")
        durations = Family(
            "lictor_request_duration_seconds", "histogram", "From the head of a request to the end of its answer."
        )
        for name, counts in tuple(self.http.items()):
            labels = {"listener": name}
            for status_class, count in enumerate(counts.by_class):
                if count:
                    requests.add({**labels, "class": f"{status_class}xx"}, count)
            for reason, count in tuple(counts.reasons.items()):
                reasons.add({**labels, "reason": reason}, count)
            durations.add_histogram(labels, BUCKETS, tuple(counts.bucket_counts), counts.seconds)
        yield from (requests, reasons, durations)

    def _listeners(self) -> Iterator[Family]:
        accepted = Family("lictor_connections_total", "counter", "Connections accepted.")
        active = Family("lictor_connections_active", "gauge", "Connections open now.")
        denied = Family("lictor_tcp_denied_total", "counter", "tcp connections that an intention denied.")
        revoked = Family(
            "lictor_revoked_total",
            "counter",
            "What was open and closed because an intention now denies it, by what it was.",
        )
        received = Family("lictor_tcp_received_bytes_total", "counter", "Bytes from downstream.")
        sent = Family("lictor_tcp_sent_bytes_total", "counter", "Bytes to downstream.")
        refused = Family(
            "lictor_connections_refused_total", "counter", "Refused before a byte was delivered, by reason."
        )
        cut = Family("lictor_connections_cut_total", "counter", "Ended because the caller was too slow, by at what.")
        for name, counts in tuple(self.listeners.items()):
            labels = {"listener": name}
            for reason, count in tuple(counts.cut.items()):
                cut.add({**labels, "reason": reason}, count)
            accepted.add(labels, counts.accepted)
            active.add(labels, counts.accepted - counts.closed)
            denied.add(labels, counts.denied)
            received.add(labels, counts.bytes_in)
            sent.add(labels, counts.bytes_out)
            for what, count in tuple(counts.revoked.items()):
                revoked.add({**labels, "what": what}, count)
            for reason, count in tuple(counts.refused.items()):
                refused.add({**labels, "reason": reason}, count)
        yield from (accepted, active, denied, revoked, received, sent, refused, cut)

    def _upstreams(self) -> Iterator[Family]:
        made = Family("lictor_upstream_connections_total", "counter", "Connections made to a target.")
        failed = Family("lictor_upstream_connect_failures_total", "counter", "Connections that failed.")
        retried = Family("lictor_upstream_retries_total", "counter", "Requests sent a second time.")
        good = Family("lictor_upstream_retries_succeeded_total", "counter", "Retried requests that were answered well.")
        over = Family("lictor_upstream_retry_budget_exhausted_total", "counter", "Retries that the budget forbade.")
        refused = Family("lictor_upstream_overflows_total", "counter", "Refused at a limit of the target, by limit.")
        ejections = Family("lictor_upstream_ejections_total", "counter", "Endpoints ejected, by cause.")
        ejected = Family("lictor_upstream_ejected", "gauge", "Endpoints that are ejected now.")
        for name, counts in tuple(self.upstreams.items()):
            labels = {"target": name}
            made.add(labels, counts.connections)
            failed.add(labels, counts.connect_failures)
            retried.add(labels, counts.retries)
            good.add(labels, counts.retries_succeeded)
            over.add(labels, counts.retry_budget_exhausted)
            ejected.add(labels, counts.ejected)
            for limit, count in tuple(counts.overflows.items()):
                refused.add({**labels, "limit": limit}, count)
            for cause, count in tuple(counts.ejections.items()):
                ejections.add({**labels, "cause": cause}, count)
        yield from (made, failed, retried, good, over, refused, ejections, ejected)
