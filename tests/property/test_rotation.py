from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.rotation import DEFAULT_POLICY, LeafState, leaf_state, pause_before, renew_at, retry_pause

START = datetime(2026, 1, 1, tzinfo=UTC)
LIVES = st.timedeltas(timedelta(seconds=1), timedelta(days=365))
JITTER = st.floats(0, 1, exclude_max=True)


@given(LIVES, JITTER)
def test_renewal_lies_inside_the_leafs_life(life: timedelta, jitter: float) -> None:
    at = renew_at(START, START + life, jitter)
    assert START < at < START + life


@given(LIVES, JITTER, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_it_is_never_time_before_renewal_and_never_a_wait_after(life: timedelta, jitter: float, age: timedelta) -> None:
    pause = pause_before(START, START + life, START + age, jitter)
    assert pause >= 0
    assert (pause == 0) == (START + age >= renew_at(START, START + life, jitter))


@given(st.integers(1, 1000), st.floats(0, 1e7), JITTER)
def test_a_retry_never_waits_longer_than_the_longest(failures: int, remaining: float, jitter: float) -> None:
    pause = retry_pause(failures, remaining, jitter)
    assert 0 <= pause <= DEFAULT_POLICY.longest_retry
    if remaining > 10:
        assert pause <= remaining / 10 + DEFAULT_POLICY.first_retry


@given(LIVES, st.timedeltas(timedelta(0), timedelta(days=400)), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_leaf_never_gets_younger(life: timedelta, one: timedelta, other: timedelta) -> None:
    order = [LeafState.FRESH, LeafState.AGING, LeafState.EXPIRED]
    early, late = sorted((one, other))
    states = [leaf_state((START, START + life), START + age) for age in (early, late)]
    assert order.index(states[0]) <= order.index(states[1])
