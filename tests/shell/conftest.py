"""Real loopback sockets, on both loops: every shell test runs on asyncio's own and on uvloop.

`LICTOR_LOOPS=uvloop` leaves it at the one that the programs run on, as scripts/pythons does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    del config, item
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    wanted = os.environ.get("LICTOR_LOOPS", "asyncio uvloop").split()
    return {name: both[name] for name in wanted}


@pytest.fixture(autouse=True)
async def _nothing_left(nothing_left_behind: None) -> None:
    del nothing_left_behind
