from __future__ import annotations

from collections.abc import Sequence

import pytest

from policies.retries import (
    Failure,
    RetryBudget,
    RetryPolicy,
    RetrySettings,
    back_off,
    parse_retry,
    parse_retry_settings,
)
from policies.weak import Opaque


class Fields:
    def __init__(self, **fields: str) -> None:
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()}

    def get_all(self, name: str) -> Sequence[str]:
        return [self._fields[name]] if name in self._fields else []


def on(*conditions: str, codes: tuple[int, ...] = ()) -> RetryPolicy:
    return RetryPolicy(1, frozenset(conditions), frozenset(codes))


def test_retries_need_a_condition_and_a_condition_alone_is_one_retry() -> None:
    assert parse_retry({"NumRetries": 3}) is None
    assert parse_retry({"RetryOnConnectFailure": True}) == RetryPolicy(1, frozenset({"connect-failure"}))
    assert parse_retry({"NumRetries": 2, "RetryOnStatusCodes": [503]}) == RetryPolicy(2, frozenset(), frozenset({503}))
    assert parse_retry({"RetryOn": ["5xx", "reset"]}) == RetryPolicy(1, frozenset({"5xx", "reset"}))


@pytest.mark.parametrize(
    ("policy", "statuses"),
    [
        (on("5xx"), set(range(500, 600))),
        (on("gateway-error"), {502, 503, 504}),
        (on("retriable-4xx"), {409}),
        (on(codes=(429, 503)), {429, 503}),
        (on("retriable-4xx", "gateway-error", codes=(418,)), {409, 418, 502, 503, 504}),
        (on("reset", "connect-failure", "refused-stream", "envoy-ratelimited"), set()),
        (on("unavailable"), set()),
    ],
)
def test_which_statuses_are_tried_again(policy: RetryPolicy, statuses: set[int]) -> None:
    assert {status for status in range(200, 600) if policy.after_answer(status, Fields())} == statuses


@pytest.mark.parametrize(
    ("policy", "failures"),
    [
        (on("5xx"), set(Failure) - {Failure.OVERFLOW}),
        (on("gateway-error"), set(Failure) - {Failure.OVERFLOW}),
        (on("reset"), set(Failure) - {Failure.OVERFLOW}),
        (on("connect-failure"), {Failure.REFUSED, Failure.CONNECT_TIMED_OUT}),
        (on("retriable-4xx", "refused-stream", "unavailable", codes=(503,)), set()),
    ],
)
def test_which_failures_are_tried_again(policy: RetryPolicy, failures: set[Failure]) -> None:
    assert {failure for failure in Failure if policy.after_failure(failure)} == failures


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ],
)
def test_grpc_conditions_look_at_the_status_in_the_head(condition: str, code: str) -> None:
    policy = on(condition)
    taken = {number for number in range(17) if policy.after_answer(200, Fields(grpc_status=str(number)))}
    assert taken == {int(code)}


def test_an_app_that_its_sidecar_cannot_reach_is_a_failed_connection() -> None:
    for reason in (b"remote_connection_failure", b"connection_timeout"):
        assert on("connect-failure").after_answer(503, Fields(), reason)
        assert not on("connect-failure").after_answer(502, Fields(), reason)
        assert not on("retriable-4xx").after_answer(503, Fields(), reason)
    assert not on("connect-failure").after_answer(503, Fields(), b"connection_termination")
    assert not on("connect-failure").after_answer(503, Fields())


def test_what_is_limited_is_asked_again_only_where_that_is_the_condition() -> None:
    limited = Fields(x_envoy_ratelimited="true")
    assert not on("5xx").after_answer(503, limited)
    assert on("envoy-ratelimited").after_answer(429, limited)
    assert not on("envoy-ratelimited").after_answer(429, Fields())
    assert on("5xx", "envoy-ratelimited").after_answer(503, limited)


def test_waits_grow_to_a_quarter_of_a_second_and_are_drawn_from_zero_on() -> None:
    assert [back_off(retry, 1.0) for retry in range(1, 7)] == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25]
    assert back_off(3, 0.5) == 0.05
    assert back_off(10_000, 0.0) == 0.0


def spent(budget: RetryBudget, now: float, times: int = 1000) -> int:
    return sum(budget.spend(now) for _ in range(times))


def test_a_cluster_that_fails_altogether_gets_a_fifth_more_and_the_floor() -> None:
    budget = RetryBudget(20.0, 0.0)
    allowed = 0
    for _ in range(1000):
        budget.asked()
        allowed += budget.spend(0.0)
    assert allowed == 210


def test_an_idle_cluster_has_its_floor_again_after_a_while() -> None:
    budget = RetryBudget(20.0, 0.0)
    assert spent(budget, 0.0) == 10
    assert spent(budget, 0.5) == 0
    assert spent(budget, 1.5) == 1
    assert spent(budget, 1000.0) == 10


def test_good_times_save_up_no_more_than_the_ceiling() -> None:
    budget = RetryBudget(20.0, 0.0)
    for _ in range(100_000):
        budget.asked()
    assert spent(budget, 0.0) == 100


def test_nothing_percent_is_no_retry_at_all() -> None:
    budget = RetryBudget(0.0, 0.0)
    budget.asked()
    assert spent(budget, 1000.0) == 0


def test_a_hundred_percent_is_a_retry_a_request() -> None:
    budget = RetryBudget(100.0, 0.0)
    spent(budget, 0.0)
    for _ in range(50):
        budget.asked()
        assert budget.spend(0.0)


def test_settings_are_those_of_the_upstream_else_of_the_proxy() -> None:
    proxy = parse_retry_settings(Opaque({"per_try_timeout_ms": 500, "RetryBudgetPercent": "50"}))
    assert proxy == RetrySettings(0.5, 50.0)
    assert parse_retry_settings(Opaque({}), proxy) == proxy
    assert parse_retry_settings(Opaque({"per_try_timeout_ms": 0}), proxy) == RetrySettings(None, 50.0)
    assert parse_retry_settings(Opaque({"retry_budget_percent": 0}), proxy) == RetrySettings(0.5, 0.0)


@pytest.mark.parametrize("value", [-1, "nan", "inf", "soon", None])
def test_settings_without_sense_are_not_obeyed(value: object) -> None:
    config = Opaque({"per_try_timeout_ms": value, "retry_budget_percent": value})
    assert parse_retry_settings(config) == RetrySettings()


def test_settings_change_a_policy_but_make_none() -> None:
    settings = RetrySettings(0.5, 50.0)
    assert settings.of(None) is None
    changed = settings.of(on("5xx"))
    assert changed == RetryPolicy(1, frozenset({"5xx"}), try_timeout=0.5, budget_percent=50.0)
    assert changed is not None
    assert changed.after_answer(500, Fields())
