from __future__ import annotations

import asyncio

import pytest

from controlplane.turns import Turns


async def queue(turns: Turns, ranks: str, done: list[str]) -> list[asyncio.Task[None]]:
    """Let one after the other wait for its turn; each is named by its rank and a letter."""

    async def one(name: str) -> None:
        async with turns.turn(int(name[0])):
            await asyncio.sleep(0)
            done.append(name)

    tasks = [asyncio.create_task(one(name)) for name in ranks.split()]
    await asyncio.sleep(0)
    return tasks


async def test_who_matters_more_goes_first_and_then_who_came_first() -> None:
    turns, done = Turns(), list[str]()
    tasks = await queue(turns, "1a 1b 1c 0d 0e", done)
    await asyncio.gather(*tasks)
    assert done == ["1a", "0d", "0e", "1b", "1c"], "the first has its turn already"


async def test_one_at_a_time_has_the_turn_and_an_error_ends_it() -> None:
    turns, inside = Turns(), 0

    async def one(number: int) -> None:
        nonlocal inside
        async with turns.turn(number % 2):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            if number == 3:
                raise ValueError

    results = await asyncio.gather(*(one(number) for number in range(10)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [ValueError]


@pytest.mark.parametrize("cancelled", ["while it waits", "when it was given"])
async def test_a_turn_that_is_not_wanted_any_more_goes_to_the_next(cancelled: str) -> None:
    turns, done = Turns(), list[str]()
    async with turns.turn(0):
        gone, waiting = await queue(turns, "0a 1b", done)
        if cancelled == "while it waits":
            gone.cancel()
    gone.cancel()  # it has been given the turn, and has not begun
    await asyncio.gather(gone, waiting, return_exceptions=True)
    assert done == ["1b"]
    async with turns.turn(1):
        pass
