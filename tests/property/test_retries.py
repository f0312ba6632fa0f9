"""Whatever comes, retries cost no more than the budget says; and no policy asks again what nobody named."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from policies.retries import BASE_SECONDS, MAX_SECONDS, Failure, RetryBudget, RetryPolicy, back_off

ANSWERS = ("5xx", "gateway-error", "reset", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream")
GRPC = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
CONDITIONS = st.frozensets(st.sampled_from((*ANSWERS, *GRPC)))
CODES = st.frozensets(st.integers(100, 599), max_size=3)


class NoFields:
    def get_all(self, name: str) -> Sequence[str]:
        del name
        return ()


@given(
    st.floats(0, 100),
    st.lists(st.tuples(st.sampled_from(["asked", "spend", "wait"]), st.floats(0, 3)), max_size=200),
)
def test_retries_stay_within_the_percentage_and_the_floor(percent: float, events: list[tuple[str, float]]) -> None:
    budget, now = RetryBudget(percent, 0.0), 0.0
    asked = spent = 0
    for event, seconds in events:
        if event == "asked":
            budget.asked()
            asked += 1
        elif event == "spend":
            spent += budget.spend(now)
        else:
            now += seconds
        assert spent <= asked * percent / 100 + 10 + now + 1e-6
    if percent == 0:
        assert spent == 0


@given(st.floats(1, 100), st.integers(0, 300), st.integers(0, 300))
def test_a_single_request_may_be_retried_after_a_second_of_rest(percent: float, asked: int, spent: int) -> None:
    budget = RetryBudget(percent, 0.0)
    for _ in range(asked):
        budget.asked()
    for _ in range(spent):
        budget.spend(0.0)
    assert budget.spend(1.0)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_are_within_their_bounds(retry: int, draw: float) -> None:
    assert 0 <= back_off(retry, draw) <= min(BASE_SECONDS * 2 ** min(retry - 1, 30), MAX_SECONDS)


@given(CONDITIONS, CODES, st.integers(100, 599))
def test_an_answer_is_asked_again_only_where_a_condition_names_it(
    conditions: frozenset[str], codes: frozenset[int], status: int
) -> None:
    named = (
        status in codes
        or ("5xx" in conditions and status >= 500)
        or ("gateway-error" in conditions and status in {502, 503, 504})
        or ("retriable-4xx" in conditions and status == 409)
    )
    assert RetryPolicy(1, conditions, codes).after_answer(status, NoFields()) is named


@given(CONDITIONS, CONDITIONS, CODES, st.sampled_from(Failure))
def test_a_further_condition_takes_no_retry_away(
    some: frozenset[str], more: frozenset[str], codes: frozenset[int], failure: Failure
) -> None:
    few, many = RetryPolicy(1, some, codes), RetryPolicy(1, some | more, codes)
    assert many.after_failure(failure) or not few.after_failure(failure)
