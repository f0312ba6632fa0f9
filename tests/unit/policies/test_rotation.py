from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from policies.rotation import LeafState, leaf_state, pause_before, renew_at, retry_pause

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(hours=1)


@pytest.mark.parametrize(("jitter", "minutes"), [(0.0, 30), (0.5, 35), (0.999999, 40)])
def test_a_leaf_is_renewed_between_a_half_and_two_thirds_of_its_life(jitter: float, minutes: int) -> None:
    assert (renew_at(START, END, jitter) - START).total_seconds() / 60 == pytest.approx(minutes, abs=0.01)


def test_a_leaf_that_ends_before_it_starts_is_renewed_at_once() -> None:
    assert renew_at(END, START, 0.5) == END


def test_the_pause_before_renewal_is_never_negative() -> None:
    assert pause_before(START, END, START, 0.0) == 1800
    assert pause_before(START, END, START + timedelta(minutes=45), 0.0) == 0


@pytest.mark.parametrize(
    ("failures", "remaining", "ceiling"),
    [(1, 3600, 1), (2, 3600, 2), (5, 3600, 16), (7, 3600, 60), (99, 3600, 60), (7, 30, 3), (7, 5, 1), (7, 0, 60)],
)
def test_pauses_grow_and_come_closer_as_the_leaf_runs_out(failures: int, remaining: float, ceiling: float) -> None:
    assert retry_pause(failures, remaining, 1.0) == ceiling
    assert retry_pause(failures, remaining, 0.25) == ceiling / 4


@pytest.mark.parametrize(
    ("minutes", "state"), [(0, LeafState.FRESH), (44, LeafState.FRESH), (45, LeafState.AGING), (60, LeafState.EXPIRED)]
)
def test_a_leaf_ages_at_three_quarters_of_its_life(minutes: int, state: LeafState) -> None:
    assert leaf_state((START, END), START + timedelta(minutes=minutes)) is state


def test_no_leaf_is_missing() -> None:
    assert leaf_state(None, START) is LeafState.MISSING
