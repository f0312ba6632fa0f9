from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from policies.splits import pick

WEIGHTS = st.lists(st.floats(0, 100), min_size=1, max_size=6)
DRAWS = st.floats(0, 1, exclude_max=True)


@dataclass(frozen=True)
class Arm:
    number: int
    weight: float


def arms(weights: list[float]) -> list[Arm]:
    return [Arm(number, weight) for number, weight in enumerate(weights)]


@given(WEIGHTS, DRAWS)
def test_somebody_is_picked_unless_nobody_has_weight(weights: list[float], draw: float) -> None:
    assert (pick(arms(weights), draw) is None) == (max(weights) <= 0)


@given(WEIGHTS, DRAWS)
def test_an_arm_without_weight_is_never_picked(weights: list[float], draw: float) -> None:
    chosen = pick(arms(weights), draw)
    assert chosen is None or chosen.weight > 0


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_shares_match_the_weights(weights: list[int]) -> None:
    rounds = 2000
    counts = [0] * len(weights)
    for number in range(rounds):
        chosen = pick(arms([float(weight) for weight in weights]), (number + 0.5) / rounds)
        assert chosen is not None
        counts[chosen.number] += 1
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count / rounds - weight / sum(weights)) <= 1 / rounds + 1e-9


@given(WEIGHTS, DRAWS, st.floats(0.1, 10))
def test_only_the_proportions_count(weights: list[float], draw: float, factor: float) -> None:
    chosen, scaled = pick(arms(weights), draw), pick(arms([weight * factor for weight in weights]), draw)
    if chosen is not None and scaled is not None and chosen.number != scaled.number:
        total = sum(weights)  # at a border rounding may fall either way
        edges = [sum(weights[: number + 1]) / total for number in range(len(weights))]
        assert any(abs(draw - edge) < 1e-6 for edge in edges)
