"""Counters as plain integers, and their rendering as Prometheus text when somebody scrapes.

The hot path adds to slots of objects that it holds already; names and labels exist only in `render`. Label values are
bounded: listeners, upstreams, reasons and status classes, never paths or peers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

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

    __slots__ = ("accepted", "bytes_in", "bytes_out", "closed", "denied", "refused", "revoked")

    def __init__(self) -> None:
        self.accepted = 0
        self.closed = 0
        self.denied = 0  # tcp connections that an intention refused
        self.revoked = 0  # live tcp connections ended because an intention changed
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused: Counter[str] = Counter()  # before a byte, by reason


class UpstreamCounts:
    """The connections towards one upstream."""

    __slots__ = ("connect_failures", "connections", "retries")

    def __init__(self) -> None:
        self.connections = 0
        self.connect_failures = 0
        self.retries = 0


class Metrics:
    """All counters of a process, by the name of listener or upstream. `gauges` are asked at every scrape."""

    def __init__(self) -> None:
        self.http: dict[str, HttpCounts] = {}
        self.listeners: dict[str, ConnectionCounts] = {}
        self.upstreams: dict[str, UpstreamCounts] = {}
        self.gauges: list[Callable[[], Iterable[Metric]]] = []

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
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Rendering(self))
        return generate_latest(registry)


class _Rendering(Collector):
    """One scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._http()
        yield from self._listeners()
        yield from self._upstreams()
        for gauge in self._metrics.gauges:
            yield from gauge()

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "lictor_requests", "HTTP requests answered, by class of status.", labels=("listener", "class")
        )
        reasons = CounterMetricFamily(
            "lictor_local_answers", "Answers made by this proxy, by reason.", labels=("listener", "reason")
        )
        durations = HistogramMetricFamily(
            "lictor_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            labels=("listener",),
        )
        for name, counts in tuple(self._metrics.http.items()):
            for status_class, count in enumerate(counts.by_class):
                if count:
                    requests.add_metric((name, f"{status_class}xx"), count)
            for reason, count in tuple(counts.reasons.items()):
                reasons.add_metric((name, reason), count)
            durations.add_metric((name,), list(_cumulative(counts.bucket_counts)), counts.seconds)
        yield from (requests, reasons, durations)

    def _listeners(self) -> Iterator[Metric]:
        labels = ("listener",)
        accepted = CounterMetricFamily("lictor_connections", "Connections accepted.", labels=labels)
        active = GaugeMetricFamily("lictor_connections_active", "Connections open now.", labels=labels)
        denied = CounterMetricFamily("lictor_tcp_denied", "tcp connections that an intention denied.", labels=labels)
        revoked = CounterMetricFamily(
            "lictor_tcp_revoked", "Live tcp connections closed because an intention now denies them.", labels=labels
        )
        received = CounterMetricFamily("lictor_tcp_received_bytes", "Bytes from downstream.", labels=labels)
        sent = CounterMetricFamily("lictor_tcp_sent_bytes", "Bytes to downstream.", labels=labels)
        refused = CounterMetricFamily(
            "lictor_connections_refused",
            "Refused before a byte was delivered, by reason.",
            labels=("listener", "reason"),
        )
        for name, counts in tuple(self._metrics.listeners.items()):
            accepted.add_metric((name,), counts.accepted)
            active.add_metric((name,), counts.accepted - counts.closed)
            denied.add_metric((name,), counts.denied)
            revoked.add_metric((name,), counts.revoked)
            received.add_metric((name,), counts.bytes_in)
            sent.add_metric((name,), counts.bytes_out)
            for reason, count in tuple(counts.refused.items()):
                refused.add_metric((name, reason), count)
        yield from (accepted, active, denied, revoked, received, sent, refused)

    def _upstreams(self) -> Iterator[Metric]:
        labels = ("target",)
        made = CounterMetricFamily("lictor_upstream_connections", "Connections made to a target.", labels=labels)
        failed = CounterMetricFamily("lictor_upstream_connect_failures", "Connections that failed.", labels=labels)
        retried = CounterMetricFamily("lictor_upstream_retries", "Requests sent a second time.", labels=labels)
        for name, counts in tuple(self._metrics.upstreams.items()):
            made.add_metric((name,), counts.connections)
            failed.add_metric((name,), counts.connect_failures)
            retried.add_metric((name,), counts.retries)
        yield from (made, failed, retried)


def _cumulative(counts: list[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*(str(bound) for bound in BUCKETS), "+Inf"), counts, strict=True):
        total += count
        yield bound, total
