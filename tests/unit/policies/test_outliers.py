from __future__ import annotations

from dataclasses import replace

import pytest

from policies.outliers import (
    HEALTHY,
    MOVES,
    Cause,
    Company,
    Event,
    Failure,
    Outlier,
    PassiveHealth,
    State,
    Verdict,
    after_answer,
    after_connect,
    after_failure,
    as_last_resort,
    ingress_passive_health,
    may_try,
    no_worse,
    on_trial,
    parse_passive_health,
    taken_back,
)
from policies.weak import Opaque

THREE = Company(3, 0)
HALF = PassiveHealth(max_ejection_percent=50)


def fail(
    kinds: list[Failure],
    company: Company = THREE,
    settings: PassiveHealth = HALF,
    outlier: Outlier = HEALTHY,
    now: float = 100.0,
    draw: float = 0.0,
) -> tuple[Outlier, Verdict]:
    verdict = Verdict.KEEP
    for kind in kinds:
        outlier, verdict = after_failure(outlier, kind, company, settings, now, draw)
    return outlier, verdict


@pytest.mark.parametrize("kind", list(Failure))
def test_five_failures_in_a_row_eject_and_four_do_not(kind: Failure) -> None:
    outlier, verdict = fail([kind] * 4)
    assert (outlier.state, verdict) == (State.ADMITTED, Verdict.KEEP)
    outlier, verdict = fail([kind] * 5)
    assert (outlier.state, verdict, outlier.until) == (State.EJECTED, Verdict.EJECT, 130.0)


def test_every_kind_of_failure_makes_one_row() -> None:
    mixed = [Failure.CONNECT, Failure.SILENCE, Failure.ERROR, Failure.SILENCE, Failure.ERROR]
    outlier, verdict = fail(mixed)
    assert (verdict, outlier.cause) == (Verdict.EJECT, Cause.CONSECUTIVE_5XX)


def test_a_good_answer_ends_the_row() -> None:
    outlier, _ = fail([Failure.ERROR] * 4)
    assert after_answer(outlier, 1.0) == HEALTHY
    _, verdict = fail([Failure.ERROR] * 4, outlier=after_answer(outlier, 1.0))
    assert verdict is Verdict.KEEP


def test_ten_percent_of_three_is_nobody_but_connect_failures_eject_all_the_same() -> None:
    default = PassiveHealth()
    outlier, verdict = fail([Failure.ERROR] * 5, settings=default)
    assert (verdict, outlier.failures) == (Verdict.KEEP, 0)
    outlier, verdict = fail([Failure.CONNECT] * 5, settings=default)
    assert (verdict, outlier.cause) == (Verdict.EJECT, Cause.CONNECT_FAILURES)


@pytest.mark.parametrize(
    ("percent", "endpoints", "ejected", "expected"),
    [(10, 10, 0, True), (10, 10, 1, False), (10, 9, 0, False), (50, 4, 1, True), (50, 4, 2, False), (100, 4, 2, True)],
)
def test_the_percentage_bounds_what_answers_bring_about(
    percent: float, endpoints: int, ejected: int, *, expected: bool
) -> None:
    settings = PassiveHealth(max_ejection_percent=percent)
    _, verdict = fail([Failure.ERROR] * 5, Company(endpoints, ejected), settings)
    assert (verdict is Verdict.EJECT) == expected


def test_what_the_percentage_spares_is_ejected_once_it_does_not_even_take_connections() -> None:
    kinds = [Failure.CONNECT, *[Failure.SILENCE] * 4, *[Failure.CONNECT] * 4]
    outlier, verdict = fail(kinds, settings=PassiveHealth())
    assert (verdict, outlier.cause) == (Verdict.EJECT, Cause.CONNECT_FAILURES)


def test_an_answer_of_5xx_shows_that_connections_are_taken() -> None:
    kinds = [*[Failure.CONNECT] * 4, Failure.ERROR, *[Failure.CONNECT] * 4]
    assert fail(kinds, settings=PassiveHealth())[1] is Verdict.KEEP


def test_a_percentage_of_zero_ejects_nobody_and_neither_does_enforcing_zero() -> None:
    for settings in (PassiveHealth(max_ejection_percent=0), PassiveHealth(enforcing=0)):
        assert fail([Failure.CONNECT] * 5, settings=settings)[1] is Verdict.KEEP


def test_enforcing_is_a_chance() -> None:
    settings = replace(HALF, enforcing=30)
    assert fail([Failure.ERROR] * 5, settings=settings, draw=0.29)[1] is Verdict.EJECT
    assert fail([Failure.ERROR] * 5, settings=settings, draw=0.30)[1] is Verdict.KEEP


@pytest.mark.parametrize("company", [Company(1, 0), Company(3, 2)])
def test_the_last_one_stays_and_the_others_are_taken_back(company: Company) -> None:
    settings = PassiveHealth(max_ejection_percent=100)
    outlier, verdict = fail([Failure.CONNECT] * 5, company, settings)
    assert (outlier.state, verdict) == (State.ADMITTED, Verdict.TAKE_BACK)


def test_the_last_one_goes_where_another_cluster_stands_in() -> None:
    assert fail([Failure.CONNECT] * 5, Company(1, 0, backed_up=True))[1] is Verdict.EJECT


def test_one_that_answers_badly_is_better_than_one_that_takes_no_connection() -> None:
    silent, answering = Outlier(cause=Cause.CONNECT_FAILURES), Outlier(cause=Cause.CONSECUTIVE_5XX)
    assert not no_worse(silent, Cause.CONSECUTIVE_5XX)
    assert no_worse(silent, Cause.CONNECT_FAILURES)
    assert no_worse(answering, Cause.CONSECUTIVE_5XX)


# --- trial and time --------------------------------------------------------------------------------------------------


def ejected(now: float = 100.0, outlier: Outlier = HEALTHY, settings: PassiveHealth = HALF) -> Outlier:
    return fail([Failure.ERROR] * settings.max_failures, outlier=outlier, now=now, settings=settings)[0]


def test_one_request_is_let_through_when_the_time_is_over() -> None:
    outlier = ejected()
    assert not may_try(outlier, 129.9)
    assert may_try(outlier, 130.0)
    trial = on_trial(outlier, HALF, 130.0)
    assert trial.state is State.TRIAL
    assert not may_try(trial, 139.9), "one at a time"
    assert may_try(trial, 140.0), "nothing was heard of the first"


def test_a_trial_that_succeeds_admits_and_one_that_fails_ejects_for_longer() -> None:
    trial = on_trial(ejected(), HALF, 130.0)
    good = after_answer(trial, 131.0)
    assert (good.state, good.failures, good.times) == (State.ADMITTED, 0, 1)
    bad, verdict = fail([Failure.SILENCE], outlier=trial, now=131.0)
    assert (bad.state, verdict, bad.until, bad.times) == (State.EJECTED, Verdict.EJECT, 191.0, 2)


def test_a_connection_is_success_enough_for_one_that_refused_them() -> None:
    refused = on_trial(fail([Failure.CONNECT] * 5)[0], HALF, 130.0)
    assert after_connect(refused, 131.0).state is State.ADMITTED
    answered_badly = on_trial(ejected(), HALF, 130.0)
    assert after_connect(answered_badly, 131.0) == answered_badly


def test_a_connection_ends_a_row_of_connect_failures_only() -> None:
    outlier, _ = fail([Failure.SILENCE, Failure.CONNECT, Failure.CONNECT])
    outlier = after_connect(outlier, 1.0)
    assert (outlier.failures, outlier.connect_failures) == (3, 0)
    assert after_connect(HEALTHY, 1.0) is HEALTHY


def test_what_was_under_way_when_it_was_ejected_changes_nothing() -> None:
    outlier = ejected()
    assert after_answer(outlier, 101.0) is outlier
    assert fail([Failure.ERROR], outlier=outlier, now=101.0) == (outlier, Verdict.KEEP)


def test_the_time_grows_up_to_five_minutes() -> None:
    outlier, times = ejected(), []
    for _ in range(12):
        times.append(outlier.until - 100.0)
        outlier, _ = fail([Failure.ERROR], outlier=on_trial(outlier, HALF, 100.0))
    assert times == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_a_base_time_above_five_minutes_is_its_own_limit() -> None:
    settings = replace(HALF, base_ejection_time=400.0)
    outlier = ejected(settings=settings)
    assert outlier.until == 500.0
    again, _ = fail([Failure.ERROR], outlier=on_trial(outlier, settings, 500.0), settings=settings, now=500.0)
    assert again.until == 900.0


def test_good_behaviour_makes_up_for_one_lengthening_an_interval() -> None:
    trial = on_trial(replace(ejected(), times=4), HALF, 130.0)
    admitted = after_answer(trial, 200.0)
    assert ejected(209.0, admitted).times == 5
    assert ejected(220.0, admitted).times == 3
    assert ejected(900.0, admitted).times == 1


def test_a_last_resort_that_succeeds_admits_and_one_that_fails_is_ejected_no_longer() -> None:
    outlier = ejected()
    asked = as_last_resort(outlier)
    assert (asked.state, asked.until) == (State.TRIAL, outlier.until)
    assert as_last_resort(asked) is asked
    assert after_answer(asked, 105.0).state is State.ADMITTED
    again, _ = fail([Failure.CONNECT], outlier=asked, now=105.0)
    assert (again.state, again.times, again.until) == (State.EJECTED, outlier.times, 135.0)


def test_being_taken_back_does_not_make_the_next_ejection_longer() -> None:
    back = taken_back(ejected(), 105.0)
    assert (back.state, back.failures) == (State.ADMITTED, 0)
    assert ejected(106.0, back).until == 136.0


def test_moves_are_those_of_the_picture() -> None:
    """An admitted one can only be ejected; whatever is out can be taken back; only a trial succeeds."""
    assert {event for state, event in MOVES if state is State.ADMITTED} == {Event.EJECT}
    assert {state for state, event in MOVES if event is Event.TAKE_BACK} == {State.EJECTED, State.TRIAL}
    assert {state for state, event in MOVES if event is Event.SUCCEED} == {State.TRIAL}


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, PassiveHealth()),
        ({"Interval": 7_000_000_000, "MaxFailures": 3}, PassiveHealth(interval=7.0, max_failures=3)),
        (
            {"interval": "3s", "max_failures": "2", "base_ejection_time": "1m", "max_ejection_percent": "50"},
            PassiveHealth(interval=3.0, max_failures=2, base_ejection_time=60.0, max_ejection_percent=50),
        ),
        ({"EnforcingConsecutive5xx": 0, "MaxEjectionPercent": 0}, PassiveHealth(enforcing=0, max_ejection_percent=0)),
        ({"enforcing_consecutive_5xx": 40}, PassiveHealth(enforcing=40)),
        ({"interval": "soon", "max_failures": 0, "base_ejection_time": 0}, PassiveHealth()),
        ("all", PassiveHealth()),
    ],
)
def test_settings_of_an_upstream(part: object, expected: PassiveHealth) -> None:
    assert parse_passive_health(Opaque({"passive_health_check": part})) == expected


def test_settings_of_an_ingress_service_replace_the_entrys_field_by_field() -> None:
    defaults = {"PassiveHealthCheck": {"Interval": 5_000_000_000, "MaxFailures": 2, "EnforcingConsecutive5xx": 50}}
    service = {"PassiveHealthCheck": {"MaxFailures": 9, "EnforcingConsecutive5xx": 0}}
    assert ingress_passive_health(defaults, service) == PassiveHealth(interval=5.0, max_failures=9, enforcing=50)
    assert ingress_passive_health({}, {}) == PassiveHealth()
