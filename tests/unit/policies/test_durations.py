from __future__ import annotations

import pytest

from policies.durations import parse_duration
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
