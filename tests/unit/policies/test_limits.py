from __future__ import annotations

import pytest

from policies.limits import Limits, ingress_limits, parse_limits
from policies.weak import Opaque


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Limits(1024, 1024, 1024)),
        ({"limits": {"MaxConnections": 100, "MaxPendingRequests": 0}}, Limits(100, 0, 1024)),  # of service-defaults
        ({"limits": {"max_connections": "7", "max_concurrent_requests": 2.0}}, Limits(7, 1024, 2)),
        ({"Limits": {"max_connections": None, "max_pending_requests": "many"}}, Limits()),
        ({"limits": {"max_connections": -1}}, Limits(4294967295, 1024, 1024)),
        ({"limits": 5}, Limits()),
    ],
)
def test_limits_of_an_upstream(config: object, expected: Limits) -> None:
    assert parse_limits(Opaque(config)) == expected


def test_limits_of_an_ingress_service_win_over_the_entrys_and_zero_is_not_set() -> None:
    defaults = {"MaxConnections": 10, "MaxPendingRequests": 0, "MaxConcurrentRequests": 5}
    assert ingress_limits(defaults, {"MaxConnections": 3, "MaxConcurrentRequests": 0}) == Limits(3, 1024, 5)
    assert ingress_limits({}, {}) == Limits()
