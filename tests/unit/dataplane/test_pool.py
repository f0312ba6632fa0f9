"""What is held against an endpoint, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest

from dataplane.clock import Clock
from dataplane.pool import Route
from dataplane.upstream import Upstream
from harness.clusters import QuietCluster
from policies.errors import ConnectFailed
from policies.outliers import HEALTHY, PassiveHealth, State

if TYPE_CHECKING:
    from dataplane.downstream import Downstream

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


class Silent(asyncio.Transport):
    """Takes everything and says nothing."""

    def write(self, data: object) -> None:
        del data

    def abort(self) -> None:
        """Stay: the test says when it is lost."""


class Caller:
    """Waits for an answer."""

    def __init__(self) -> None:
        self.lost = 0

    def upstream_lost(self, upstream: Upstream) -> None:
        del upstream
        self.lost += 1


@pytest.mark.parametrize(("seconds", "state"), [(1.0, State.EJECTED), (11.0, State.ADMITTED)])
def test_a_connection_cut_for_a_certificate_that_ended_is_nobodys_failure(
    clock: Clock, seconds: float, state: State
) -> None:
    cluster, caller = QuietCluster(clock, 3, ONE), Caller()
    connection = Upstream(cluster.pools[0])
    connection.connection_made(Silent())
    connection.expires = clock.now + 10.0
    connection.ask(cast("Downstream", caller), b"GET", "GET")
    clock.now += seconds
    connection.expire()
    connection.connection_lost(None)
    assert caller.lost == 1
    assert cluster.outliers.of(cluster.pools[0]).state is state


async def test_a_host_name_that_cannot_be_one_is_a_connection_that_failed() -> None:
    clock = Clock(asyncio.get_running_loop())
    pool = QuietCluster(clock, 1, ONE).pools[0]
    pool.route = Route("a" * 70, 1)
    with pytest.raises(ConnectFailed):
        await pool.dial(5.0)
    assert (pool.active, pool.connections, pool.circuit.pending, pool.circuit.connections) == (0, 0, 0, 0)
