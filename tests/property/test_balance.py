from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.balance import (
    Balancer,
    Endpoint,
    LoadBalancer,
    Maglev,
    Question,
    Ring,
    build,
    points_per_weight,
    stable_hash,
)

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


# --- hashes --------------------------------------------------------------------------------------------------------

HASHES = [stable_hash(str(number)) for number in range(300)]
SEVERAL = st.lists(st.integers(1, 4), min_size=3, max_size=7).map(
    lambda weights: tuple(Endpoint(f"i{n}", f"10.0.0.{n}", 80, weight) for n, weight in enumerate(weights))
)


def homes(balancer: Balancer) -> list[Endpoint]:
    return [balancer.pick(Question(0, lambda: 0.0, lambda _: 0, hashed)) for hashed in HASHES]


@settings(max_examples=50)
@given(SEVERAL, st.data())
def test_when_an_endpoint_leaves_a_ring_only_its_share_moves(
    endpoints: tuple[Endpoint, ...], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(endpoints))
    rest = tuple(endpoint for endpoint in endpoints if endpoint != gone)
    before, after = homes(Ring(endpoints, 256, 8192)), homes(Ring(rest, 256, 8192))
    moved = sum(old not in {gone, new} for old, new in zip(before, after, strict=True))
    if points_per_weight(endpoints, 256, 8192) == points_per_weight(rest, 256, 8192):
        assert moved == 0
    else:  # the number of points doubles
        assert moved < 0.45 * len(HASHES)


@settings(max_examples=50)
@given(SEVERAL, st.data())
def test_when_an_endpoint_leaves_a_maglev_table_few_others_move(
    endpoints: tuple[Endpoint, ...], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(endpoints))
    rest = tuple(endpoint for endpoint in endpoints if endpoint != gone)
    before, after = homes(Maglev(endpoints, 4099)), homes(Maglev(rest, 4099))
    moved = sum(old not in {gone, new} for old, new in zip(before, after, strict=True))
    assert moved < 0.1 * len(HASHES)


@settings(max_examples=25)
@given(SEVERAL, st.randoms(use_true_random=False))
def test_the_order_of_endpoints_does_not_move_a_hash(endpoints: tuple[Endpoint, ...], random: Random) -> None:
    shuffled = list(endpoints)
    random.shuffle(shuffled)
    assert homes(Ring(endpoints, 256, 8192)) == homes(Ring(tuple(shuffled), 256, 8192))
    assert homes(Maglev(endpoints, 1009)) == homes(Maglev(tuple(shuffled), 1009))
