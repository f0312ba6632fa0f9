from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import pytest

from policies.balance import (
    MAX_SCHEDULE,
    Endpoint,
    HashPolicy,
    LoadBalancer,
    Maglev,
    Question,
    Ring,
    Schedule,
    build,
    combined_hash,
    key,
    stable_hash,
)

THREE = tuple(Endpoint(f"i{number}", f"10.0.0.{number}", 80) for number in range(1, 4))
WEIGHTED = (Endpoint("a", "10.0.0.1", 80, 3), Endpoint("b", "10.0.0.2", 80, 1))
RANDOM = Random(1)


def question(counter: int = 0, hash_: int | None = None, load: dict[str, int] | None = None) -> Question:
    return Question(counter, RANDOM.random, lambda endpoint: (load or {}).get(endpoint.instance_id, 0), hash_)


def shares(policy: str, endpoints: tuple[Endpoint, ...], rounds: int = 4000) -> dict[str, float]:
    balancer = build(endpoints, LoadBalancer(policy))
    hashes = (stable_hash(str(number)) for number in range(rounds))
    found = Counter(balancer.pick(question(number, next(hashes))).instance_id for number in range(rounds))
    return {name: count / rounds for name, count in found.items()}


def test_round_robin_takes_turns() -> None:
    balancer = build(THREE, LoadBalancer())
    assert [balancer.pick(question(turn)).instance_id for turn in range(4)] == ["i1", "i2", "i3", "i1"]


def test_a_heavy_endpoints_turns_are_spread() -> None:
    balancer = build(WEIGHTED, LoadBalancer())
    turns = "".join(balancer.pick(question(turn)).instance_id for turn in range(8))
    assert turns.count("a") == 6
    assert "bb" not in turns


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request", "ring_hash", "maglev", "of_tomorrow"])
def test_every_policy_follows_the_weights(policy: str) -> None:
    assert shares(policy, WEIGHTED)["a"] == pytest.approx(0.75, abs=0.12)


@pytest.mark.parametrize("policy", ["random", "ring_hash", "maglev"])
def test_a_lone_endpoint_takes_everything(policy: str) -> None:
    assert isinstance(build(THREE[:1], LoadBalancer(policy)), Schedule)


def test_least_request_takes_the_idler_of_two_draws() -> None:
    balancer = build(THREE, LoadBalancer("least_request", choice_count=50))
    assert balancer.pick(question(load={"i1": 5, "i2": 0, "i3": 5})).instance_id == "i2"


def test_the_same_hash_finds_the_same_endpoint() -> None:
    for policy in ("ring_hash", "maglev"):
        balancer = build(THREE, LoadBalancer(policy))
        assert len({balancer.pick(question(turn, 12345)).instance_id for turn in range(20)}) == 1


def test_without_a_hash_any_endpoint_may_be_taken() -> None:
    for policy in ("ring_hash", "maglev"):
        balancer = build(THREE, LoadBalancer(policy))
        assert len({balancer.pick(question(turn)).instance_id for turn in range(200)}) == 3


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_when_one_of_three_leaves_most_hashes_stay_where_they_were(policy: str) -> None:
    before, after = build(THREE, LoadBalancer(policy)), build(THREE[:2], LoadBalancer(policy))
    hashes = [stable_hash(str(number)) for number in range(2000)]
    stayed = [h for h in hashes if before.pick(question(0, h)) in THREE[:2]]
    moved = sum(before.pick(question(0, h)) != after.pick(question(0, h)) for h in stayed)
    assert moved / len(stayed) < 0.1


def test_a_ring_has_points_between_its_bounds() -> None:
    assert len(Ring(THREE, 1024, 8192)._points) == 3 * 512
    assert len(Ring(WEIGHTED, 1024, 8192)._points) == 4 * 256
    assert len(Ring(WEIGHTED, 1024, 64)._points) == 64
    heavy = (Endpoint("a", "10.0.0.1", 80, 1), *(Endpoint(f"h{n}", "10.0.0.2", n, 128) for n in range(20)))
    assert len(Ring(heavy, 1024, 8192)._points) == 1 + 20 * 128  # the lightest has a point, and the others their share


def test_without_a_maximum_a_large_minimum_holds() -> None:
    assert len(Ring(THREE, 10_000, LoadBalancer().maximum_ring_size)._points) == 3 * 4096


def test_a_maglev_table_is_full() -> None:
    assert len(Maglev(THREE, 101)._table) == 101


def test_a_schedule_is_bounded_whatever_the_weights() -> None:
    odd = tuple(Endpoint(str(n), "10.0.0.1", n, 127 + n % 2) for n in range(1, 100))
    turns = Schedule(odd).turns
    assert len(turns) <= MAX_SCHEDULE * 1.1
    assert {endpoint.instance_id for endpoint in turns} == {endpoint.instance_id for endpoint in odd}
    many = tuple(Endpoint(str(n), "10.0.0.1", n, 1 + n % 2) for n in range(1, MAX_SCHEDULE + 10))
    assert len(Schedule(many).turns) == len(many)


def test_hash_policies_are_combined_in_order_and_a_terminal_one_ends_the_list() -> None:
    a, b, end = HashPolicy("header", "a"), HashPolicy("header", "b"), HashPolicy("header", "a", terminal=True)
    assert combined_hash((a, b), {}) is None
    assert combined_hash((a, b), {a: "1"}) == stable_hash("1")
    assert combined_hash((a, b), {a: "1", b: "2"}) != combined_hash((b, a), {a: "1", b: "2"})
    assert combined_hash((end, b), {end: "1", b: "2"}) == stable_hash("1")
    assert combined_hash((end, b), {b: "2"}) == stable_hash("2")


def test_hashes_are_the_same_on_every_machine() -> None:
    assert stable_hash("10.0.0.1:80") == 0x10BABA142DBC806B
    assert key(THREE[0]) == "10.0.0.1:80"
    assert len({stable_hash(f"{a}{b}") for a, b in itertools.product("abcd", repeat=2)}) == 16
