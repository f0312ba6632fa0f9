from __future__ import annotations

import pytest

from dataplane.modifiers import compile_edits
from policies.routes import HeaderModifiers


def apply(lines: bytes, *levels: HeaderModifiers | None) -> bytes:
    known = {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": "10.0.0.1"}
    for edit in compile_edits(levels):
        lines = edit.apply(lines, known.get)
    return lines


def test_removes_come_first_then_sets_then_adds() -> None:
    modifiers = HeaderModifiers(add=(("x-a", "3"),), set=(("x-b", "2"),), remove=("x-a",))
    assert apply(b"X-A: 0\r\nX-B: 0\r\nX-C: 0\r\n", modifiers) == b"X-C: 0\r\nx-b: 2\r\nx-a: 3\r\n"


def test_levels_run_one_after_the_other() -> None:
    leg = HeaderModifiers(add=(("x-a", "leg"),))
    gateway = HeaderModifiers(remove=("x-a",), add=(("x-a", "gateway"),))
    assert apply(b"", leg, None, gateway) == b"x-a: gateway\r\n"


def test_variables_are_filled_in_unknown_ones_stay_and_two_percents_are_one() -> None:
    modifiers = HeaderModifiers(set=(("x-a", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %NOPE% 100%% sure"),))
    assert apply(b"", modifiers) == b"x-a: 10.0.0.1 %NOPE% 100% sure\r\n"


@pytest.mark.parametrize(
    "pair",
    [
        ("host", "evil"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("x a", "1"),
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "\x00"),
        ("x-a", ""),
    ],
)
def test_a_modifier_that_could_break_the_message_is_left_out(pair: tuple[str, str]) -> None:
    assert apply(b"Host: a\r\n", HeaderModifiers(set=(pair,), add=(("x-ok", "1"),))).startswith(b"Host: a\r\nx-ok")


def test_host_cannot_be_removed() -> None:
    assert apply(b"Host: a\r\n", HeaderModifiers(remove=("host",))) == b"Host: a\r\n"
