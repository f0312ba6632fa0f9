from __future__ import annotations

import asyncio

import pytest

from controlplane.consul.places import FEWEST, MAX_FIRST_READS, MAX_WATCHES, Places
from harness.servers import eventually
from policies.errors import CatalogFault, CatalogRateLimited

ALLOWED = 200  # connections of an address, by an agent as it comes
OWN = 6  # roots, mesh entry, registration, intentions, default action, leaf


async def refused(places: Places, error: Exception) -> None:
    async with places.place():
        raise error


def test_three_large_proxies_fit_one_agent() -> None:
    assert 3 * (MAX_WATCHES + MAX_FIRST_READS + OWN) <= ALLOWED


async def test_no_more_are_held_than_there_are() -> None:
    places, held, most = Places(5), 0, 0

    async def read() -> None:
        nonlocal held, most
        async with places.place():
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(read() for _ in range(50)))
    assert most == 5


async def test_a_refused_read_leaves_its_place_empty_for_a_while_but_some_are_always_left() -> None:
    places = Places(10, withheld_seconds=0.05)
    for _ in range(20):
        with pytest.raises(CatalogRateLimited):
            await refused(places, CatalogRateLimited("GET /x", "too many"))
    assert places.left == FEWEST
    holding = [places.place() for _ in range(FEWEST)]
    for one in holding:
        await one.__aenter__()
    waiting = asyncio.create_task(places.place().__aenter__())
    await asyncio.sleep(0)
    assert not waiting.done()
    await eventually(lambda: places.left == 10)
    await waiting
    for one in holding:
        await one.__aexit__(None, None, None)


async def test_another_failure_gives_the_place_back_at_once() -> None:
    places = Places(1, withheld_seconds=60)
    for _ in range(3):
        with pytest.raises(CatalogFault):
            await refused(places, CatalogFault("GET /x", "no leader"))
    assert places.left == 1
