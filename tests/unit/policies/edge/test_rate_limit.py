from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.edge.rate_limit import Rate, TokenBuckets, address_key


def test_a_burst_is_taken_at_once_and_then_the_rate() -> None:
    buckets = TokenBuckets(Rate(10, 3))
    assert [buckets.take("a", 100.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 100.0) == pytest.approx(0.1)
    assert buckets.take("a", 100.05) == pytest.approx(0.05)
    assert buckets.take("b", 100.0) == 0.0
    assert buckets.take("a", 100.1001) == 0.0
    assert buckets.take("a", 100.1001) > 0
    assert [buckets.take("a", 200.0) for _ in range(4)][:3] == [0.0] * 3  # full again, and no fuller


def test_refusals_cost_nothing() -> None:
    buckets = TokenBuckets(Rate(1, 1))
    assert buckets.take("a", 0.0) == 0.0
    for _ in range(100):
        assert buckets.take("a", 0.5) == pytest.approx(0.5)
    assert buckets.take("a", 1.0) == 0.0


def test_memory_is_bounded_and_who_was_quiet_for_longest_is_forgotten() -> None:
    buckets = TokenBuckets(Rate(1, 1), max_keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert len(buckets) == 2
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0.0  # forgotten


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_what_came_since(rate: float, burst: int, pauses: list[float]) -> None:
    buckets, tokens, now = TokenBuckets(Rate(rate, burst)), float(burst), 1000.0
    for pause in pauses:
        now += pause
        tokens = min(burst, tokens + pause * rate)
        wait = buckets.take("a", now)
        if wait == 0.0:
            assert tokens > 1 - 1e-6
            tokens = max(0.0, tokens - 1)
        else:
            assert tokens < 1 + 1e-6
            assert wait == pytest.approx((1 - tokens) / rate, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("strange", "strange", True),
        ("strange", "other", False),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_caller(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table
    assert (address_key(one) == address_key(other)) is same
