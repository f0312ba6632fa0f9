from __future__ import annotations

import pytest

from policies.durations import format_duration, parse_duration, parse_nanoseconds
from policies.errors import EntryError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("0", 0.0),
        (0, 0.0),
        (5_000_000_000, 5.0),
        (250_000_000.0, 0.25),
        ("5s", 5.0),
        ("1m0s", 60.0),
        ("1h2m3.5s", 3723.5),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
        ("-1s", -1.0),
        ("+2s", 2.0),
        (".5s", 0.5),
    ],
)
def test_durations_come_out_in_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value, "x") == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["5", "5 s", "s", "5sec", "1m 5s", True, [], "-", "1d"])
def test_what_go_would_refuse_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(EntryError, match=r"^router Timeout: .* write it as 5s"):
        parse_duration(value, "router Timeout")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (90_000_000_000, "1m30s"),
        (-1_500_000_000, "-1.5s"),
        (3_661_000_000_001, "1h1m1.000000001s"),
        ((1 << 63) - 1, "2562047h47m16.854775807s"),
    ],
)
def test_durations_are_printed_and_read_as_go_does(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    assert parse_nanoseconds(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("ü", 'time: invalid duration "\\xc3\\xbc"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ('5"s', 'time: unknown unit "\\"s" in duration "5\\"s"'),
    ],
)
def test_a_duration_that_go_refuses_is_refused_in_its_words(text: str, refusal: str) -> None:
    with pytest.raises(EntryError) as caught:
        parse_nanoseconds(text)
    assert str(caught.value) == refusal
