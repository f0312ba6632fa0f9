"""One plain HTTP hop with Lictor's data plane: no TLS, no policy. What the HTTP engine alone costs."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

from dataplane.clock import Clock
from dataplane.downstream import Downstream
from dataplane.heads import RequestHead, ResponseHead
from dataplane.listener import Keeper, Listener, bind
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.pool import Pool
from dataplane.pools import Pools
from policies.retries import RetryBudget, RetryPolicy


class Pass:
    """The decision to pass everything on."""

    request_timeout: float | None = 15.0
    idle_timeout: float | None = 300.0
    retry: RetryPolicy | None = None
    budget: RetryBudget | None = None
    in_mesh = False
    repeats = True

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def choose(self, head: RequestHead, downstream: Downstream) -> Pool:
        return self._pool

    def another(self, tried: set[Pool]) -> Pool | None:
        return None

    def connect_timeout(self, pool: Pool) -> float:
        return 5.0

    def request(self, head: RequestHead, downstream: Downstream) -> bytes:
        return head.render()

    def response_lines(self, head: ResponseHead, downstream: Downstream) -> ResponseHead:
        return head


async def main(port: int, app_port: int) -> None:
    loop = asyncio.get_running_loop()
    clock, metrics = Clock(loop), Metrics()
    clock.start()
    forward = Pass(Pools(Live(), clock, metrics).of_app("127.0.0.1", app_port))
    counts = metrics.for_http("hop"), metrics.for_listener("hop")

    async def welcome(sock: socket.socket, listener: Keeper) -> None:
        await loop.connect_accepted_socket(lambda: Downstream(listener, lambda *_: forward, clock, counts), sock)

    Listener(bind("127.0.0.1", port), welcome)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
