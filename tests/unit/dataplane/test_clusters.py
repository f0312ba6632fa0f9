"""Who is asked when everybody is ejected."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dataplane.clock import Clock
from dataplane.clusters import Failover
from harness.clusters import QuietCluster
from policies.outliers import PassiveHealth, State

ONE = PassiveHealth(max_failures=1, max_ejection_percent=100)


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = asyncio.new_event_loop()
    yield Clock(loop)
    loop.close()


def refuse(*clusters: QuietCluster) -> None:
    """Let every endpoint refuse a connection."""
    for cluster in clusters:
        for pool in cluster.pools:
            pool.connect_failed()


def test_the_first_cluster_with_anybody_left_is_asked_and_its_own_trial_comes_first(clock: Clock) -> None:
    first, second = (QuietCluster(clock, 2, ONE) for _ in range(2))
    failover = Failover([first.cluster, second.cluster])
    assert failover.choose() in first.pools
    refuse(first)
    assert failover.choose() in second.pools
    clock.now += 30.0
    assert failover.choose() in first.pools
    assert failover.choose() in first.pools, "the other one's"
    assert failover.choose() in second.pools, "one request each, no more"


def test_the_connect_timeout_is_that_of_the_cluster_that_stands_in(clock: Clock) -> None:
    first, second = (QuietCluster(clock, 2, ONE) for _ in range(2))
    second.cluster.cluster = replace(second.cluster.cluster, connect_timeout=0.3)
    failover = Failover([first.cluster, second.cluster])
    assert failover.connect_timeout(failover.choose()) == 1.0
    refuse(first)
    assert failover.connect_timeout(failover.choose()) == 0.3


def test_when_nobody_is_left_in_any_cluster_all_are_taken_back(clock: Clock) -> None:
    first, second = (QuietCluster(clock, 2, ONE) for _ in range(2))
    failover = Failover([first.cluster, second.cluster])
    refuse(first, second)
    assert not failover.available
    assert failover.choose() in first.pools
    assert (first.outliers.out, second.outliers.out) == (set(), set())


def test_another_is_admitted_first_then_of_the_next_cluster_then_ejected(clock: Clock) -> None:
    first, second = (QuietCluster(clock, 2, ONE) for _ in range(2))
    failover = Failover([first.cluster, second.cluster])
    one, two = first.pools
    two.connect_failed()
    third = failover.another({one})
    assert third in second.pools
    assert third is not None
    fourth = failover.another({one, third})
    assert fourth is not None
    assert {third, fourth} == set(second.pools)
    assert failover.another({one, third, fourth}) is two
    assert failover.another({one, two, third, fourth}) is None


def test_an_ejected_one_that_takes_what_no_other_would_take_is_admitted(clock: Clock) -> None:
    world = QuietCluster(clock, 2, ONE)
    one, two = world.pools
    one.connect_failed()
    until = world.outliers.of(one).until
    assert world.cluster.another({two}) is one
    assert (world.outliers.of(one).state, world.outliers.of(one).until) == (State.TRIAL, until)
    one.connected()
    assert world.outliers.out == set()


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_request", "ring_hash", "maglev"])
def test_every_policy_leads_past_the_ejected_and_gives_each_other_its_share(clock: Clock, policy: str) -> None:
    world = QuietCluster(clock, 5, ONE, policy)
    for pool in world.pools[:4]:
        pool.connect_failed()
    assert {world.cluster.choose(number * 2**60) for number in range(16)} == {world.pools[4]}


def test_an_ejected_ones_turns_are_shared_by_the_others(clock: Clock) -> None:
    world = QuietCluster(clock, 3, ONE)  # of weights 2, 3 and 1
    world.pools[1].connect_failed()
    chosen = [world.cluster.choose() for _ in range(30)]
    assert [chosen.count(pool) for pool in world.pools] == [20, 0, 10]
