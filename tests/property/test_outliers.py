"""Whatever happens at the endpoints of a cluster, in whatever order, somebody is left to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.clock import NEVER, Clock
from dataplane.pool import Pool
from harness.clusters import QuietCluster
from policies.outliers import Failure, PassiveHealth, State, after_answer

POLICIES = ("round_robin", "random", "least_request", "ring_hash")


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    loop = asyncio.new_event_loop()
    yield Clock(loop)
    loop.close()


class World(QuietCluster):
    """What happens to the endpoints, and what holds whatever happens."""

    def act(self, pool: Pool, action: str) -> None:
        match action:
            case "error":
                pool.answered(500)
            case "silence":
                pool.failed()
            case "refused":
                pool.connect_failed()
            case "connected":
                pool.connected()
            case _:
                pool.answered(200)

    def check(self) -> None:
        outliers = self.outliers
        states = {pool: outliers.of(pool) for pool in self.pools}
        assert outliers.out == {pool for pool, outlier in states.items() if outlier.state is not State.ADMITTED}
        assert self.counts.ejected == len(outliers.out)
        assert outliers.trial_at == min((states[pool].until for pool in outliers.out), default=NEVER)
        assert outliers.backed_up or len(outliers.out) < len(self.pools), "the last one stays"
        for pool, outlier in states.items():
            assert outlier.until <= self.clock.now + 300.0
            if not pool.troubled:
                assert after_answer(outlier, self.clock.now) == outlier, "an answer that is not told changes nothing"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["error", "silence", "refused", "refused", "connected", "good"]),
        st.sampled_from([0.0, 0.0, 0.0, 1.0, 40.0]),
        st.one_of(st.none(), st.integers(0, 4)),  # at the endpoint chosen, or out of the blue
        st.integers(0, 2**64 - 1),
    ),
    min_size=10,
    max_size=40,
)


@given(
    st.integers(1, 5),
    st.builds(
        PassiveHealth,
        max_failures=st.integers(1, 2),
        max_ejection_percent=st.sampled_from([10.0, 50.0, 100.0]),
        base_ejection_time=st.sampled_from([0.5, 30.0]),
    ),
    st.sampled_from(POLICIES),
    st.booleans(),
    STEPS,
)
def test_somebody_is_always_asked_and_an_ejected_one_only_in_its_time(
    clock: Clock,
    size: int,
    settings: PassiveHealth,
    policy: str,
    backed_up: bool,  # noqa: FBT001 - hypothesis gives it by position
    steps: list[tuple[str, float, int | None, int]],
) -> None:
    world = World(clock, size, settings, policy, backed_up=backed_up)
    for action, seconds, where, request_hash in steps:
        clock.now += seconds
        before = {pool: world.outliers.of(pool) for pool in world.outliers.out}
        available = world.cluster.available
        pool = world.cluster.choose(request_hash)
        if pool in before and len(before) < size:
            assert clock.now >= before[pool].until, "an ejected one only as its trial"
        assert available or len(before) == size
        world.check()
        if action == "refused" and where is None:
            pool.connect_failed()
            pool = world.cluster.another({pool}) or pool
            world.check()
        world.act(pool if where is None else world.pools[where % size], action)
        world.check()


@given(st.lists(st.sampled_from(list(Failure)), min_size=1, max_size=30), st.integers(1, 4))
def test_nobody_is_ejected_before_its_row_is_long_enough(clock: Clock, kinds: list[Failure], longest: int) -> None:
    world = World(clock, 3, PassiveHealth(max_failures=longest, max_ejection_percent=100), "random", backed_up=False)
    for number, kind in enumerate(kinds, 1):
        world.outliers.failed(world.pools[0], kind)
        assert (world.pools[0] in world.outliers.out) == (number >= longest)
