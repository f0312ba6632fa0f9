"""What is held against an endpoint, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dataplane.clock import Clock
from harness.clusters import QuietCluster
from policies.outliers import HEALTHY, PassiveHealth, State

ONE = PassiveHealth(max_failures=1, max_ejection_percent=100)


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = asyncio.new_event_loop()
    yield Clock(loop)
    loop.close()


def test_an_endpoint_that_the_table_does_not_name_any_more_is_no_outlier(clock: Clock) -> None:
    cluster = QuietCluster(clock, 3, ONE)
    gone = cluster.pools[0]
    gone.failed()
    assert cluster.outliers.of(gone).state is State.EJECTED
    gone.close()
    gone.failed()  # requests that were under way
    gone.answered(503)
    gone.connect_failed()
    gone.answered(200)
    gone.connected()
    assert (cluster.outliers.out, cluster.outliers.of(gone), cluster.counts.ejected) == (set(), HEALTHY, 0)
    assert gone not in cluster.outliers._known
