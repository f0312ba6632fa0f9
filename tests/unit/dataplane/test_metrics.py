from __future__ import annotations

from dataplane.metrics import Metrics


def test_counters_are_told_in_prometheus_words() -> None:
    metrics = Metrics()
    http = metrics.for_http("inbound")
    http.answered(200, 0.002)
    http.answered(503, 20.0)
    http.answered(799, 0.1)
    http.reasons["denied_by_intention"] += 1
    connections = metrics.for_listener("inbound")
    connections.accepted, connections.closed = 5, 2
    connections.revoked["session"] += 1
    connections.refused["plaintext"] += 3
    upstream = metrics.for_upstream("api.default")
    upstream.connections, upstream.connect_failures, upstream.retries = 4, 1, 2
    text = metrics.render().decode()
    for line in (
        'lictor_requests_total{class="2xx",listener="inbound"} 1.0',
        'lictor_requests_total{class="5xx",listener="inbound"} 2.0',
        'lictor_local_answers_total{listener="inbound",reason="denied_by_intention"} 1.0',
        'lictor_request_duration_seconds_bucket{le="0.0025",listener="inbound"} 1.0',
        'lictor_request_duration_seconds_bucket{le="+Inf",listener="inbound"} 3.0',
        'lictor_connections_total{listener="inbound"} 5.0',
        'lictor_connections_active{listener="inbound"} 3.0',
        'lictor_revoked_total{listener="inbound",what="session"} 1.0',
        'lictor_connections_refused_total{listener="inbound",reason="plaintext"} 3.0',
        'lictor_upstream_connections_total{target="api.default"} 4.0',
        'lictor_upstream_connect_failures_total{target="api.default"} 1.0',
        'lictor_upstream_retries_total{target="api.default"} 2.0',
    ):
        assert line in text, line


def test_the_same_name_gives_the_same_counters() -> None:
    metrics = Metrics()
    assert metrics.for_http("a") is metrics.for_http("a")
    assert metrics.for_listener("a") is not metrics.for_listener("b")
