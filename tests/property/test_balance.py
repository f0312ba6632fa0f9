from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policies.balance import Endpoint, LoadBalancer, Question, build

ENDPOINTS = st.lists(st.integers(1, 12), min_size=1, max_size=6).map(
    lambda weights: tuple(Endpoint(f"i{n}", "10.0.0.1", n + 1, weight) for n, weight in enumerate(weights))
)
POLICIES = st.sampled_from(["round_robin", "least_request", "random", "ring_hash", "maglev"])


@given(ENDPOINTS, POLICIES, st.integers(0, 1 << 20), st.floats(0, 1, exclude_max=True), st.integers(0, (1 << 64) - 1))
def test_whatever_comes_an_endpoint_of_the_set_is_picked(
    endpoints: tuple[Endpoint, ...], policy: str, counter: int, draw: float, hashed: int
) -> None:
    balancer = build(endpoints, LoadBalancer(policy, minimum_ring_size=64, maximum_ring_size=128))
    assert balancer.pick(Question(counter, lambda: draw, lambda _: 0, hashed)) in endpoints


@given(ENDPOINTS)
def test_one_round_gives_every_endpoint_its_weight(endpoints: tuple[Endpoint, ...]) -> None:
    balancer = build(endpoints, LoadBalancer())
    total = sum(endpoint.weight for endpoint in endpoints)
    turns = Counter(balancer.pick(Question(turn, lambda: 0.0, lambda _: 0)).instance_id for turn in range(total))
    assert turns == {endpoint.instance_id: endpoint.weight for endpoint in endpoints}
