from __future__ import annotations

from dataclasses import dataclass

import pytest

from policies.splits import pick


@dataclass(frozen=True)
class Arm:
    name: str
    weight: float


@pytest.mark.parametrize(("draw", "name"), [(0.0, "a"), (0.79999, "a"), (0.8, "b"), (0.99999, "b")])
def test_a_draw_falls_on_the_arm_whose_share_holds_it(draw: float, name: str) -> None:
    chosen = pick([Arm("a", 80), Arm("b", 20)], draw)
    assert chosen is not None
    assert chosen.name == name


def test_weights_need_not_sum_up_to_a_hundred() -> None:
    assert pick([Arm("a", 33.33), Arm("b", 33.33), Arm("c", 33.33)], 0.999).name == "c"  # type: ignore[union-attr]


def test_an_arm_without_weight_is_never_picked() -> None:
    arms = [Arm("a", 0), Arm("b", 100), Arm("c", 0), Arm("d", -1)]
    assert {pick(arms, draw / 100).name for draw in range(100)} == {"b"}  # type: ignore[union-attr]


def test_no_weight_at_all_picks_nobody() -> None:
    assert pick([Arm("a", 0), Arm("b", 0)], 0.5) is None
    assert pick([Arm("a", 0)], 0.5) is None
    assert pick([], 0.5) is None


def test_a_lone_arm_takes_everything() -> None:
    assert pick([Arm("a", 1)], 0.999) == Arm("a", 1)
