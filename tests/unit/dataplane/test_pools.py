"""By which cluster a target goes when several are of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dataplane.clock import Clock
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.pools import Pools
from harness.clusters import QuietCluster
from policies.limits import Limits
from policies.outliers import DEFAULT_HEALTH
from policies.table import Cluster


@pytest.fixture
def pools() -> Iterator[Pools]:
    loop = asyncio.new_event_loop()
    yield Pools(Live(), Clock(loop), Metrics())
    loop.close()


def cluster(pools: Pools, requests: int, size: int = 2) -> Cluster:
    quiet = QuietCluster(pools._clock, size, DEFAULT_HEALTH)
    return replace(quiet.cluster.cluster, limits=Limits(max_concurrent_requests=requests))


def test_of_several_clusters_of_a_target_the_last_one_of_the_table_rules(pools: Pools) -> None:
    circuit = pools._target("api").circuit
    for first, last in ((10, 20), (20, 10)):
        one, two = cluster(pools, first), cluster(pools, last)
        list(pools.steps([one, two]))
        assert circuit.max_active == last
        pools.of_cluster(two)
        pools.of_cluster(one)
        assert circuit.max_active == last, "whoever is asked first"
        list(pools.steps([cluster(pools, 30), two]))
        assert circuit.max_active == last, "whichever is new"
        list(pools.steps([one]))
        assert circuit.max_active == first, "the other one is gone"


def test_two_instances_at_one_address_are_one_endpoint(pools: Pools) -> None:
    twice = cluster(pools, 1)
    one = twice.endpoints[0]
    list(pools.steps([replace(twice, endpoints=(one, replace(one, instance_id="n/2")))]))
    assert pools._target("api").outliers.endpoints == 1


def test_whoever_is_asked_for_between_two_steps_goes_by_the_new_table(pools: Pools) -> None:
    before = [replace(cluster(pools, 10), target=f"s{number}") for number in range(100)]
    list(pools.steps(before))
    after = [replace(one, limits=Limits(max_concurrent_requests=20)) for one in before]
    steps = pools.steps(after)
    next(steps)
    assert pools._target("s99").circuit.max_active == 10, "not its turn yet"
    pools.of_cluster(after[99])
    assert pools._target("s99").circuit.max_active == 20
    assert len(list(steps)) > 1
    assert {pools._target(one.target).circuit.max_active for one in after} == {20}


def test_steps_close_what_is_gone_and_nothing_else(pools: Pools) -> None:
    before = [replace(cluster(pools, 10), target=f"s{number}") for number in range(40)]
    list(pools.steps(before))
    for one in before:
        for endpoint in one.endpoints:
            pools._of_endpoint(one, endpoint)
    after = [replace(one, endpoints=one.endpoints[1:]) for one in before[:20]] + before[20:]
    list(pools.steps(after))
    left = {(name, (route.address, route.port)) for name, route in pools._pools}
    assert left == {(one.target, (each.address, each.port)) for one in after for each in one.endpoints}
