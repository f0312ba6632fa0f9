from __future__ import annotations

import asyncio

from dataplane.clock import NEVER, TICK, Clock


class Item:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1
        self.deadline = NEVER


async def test_those_past_their_deadline_are_told_once() -> None:
    clock = Clock(asyncio.get_running_loop())
    due, later, gone = Item(clock.now), Item(clock.now + 1000), Item(clock.now)
    for item in (due, later, gone):
        clock.add(item)
    clock.discard(gone)
    clock.start()
    clock._tick()
    clock.stop()
    assert (due.expired, later.expired, gone.expired) == (1, 0, 0)
    clock.stop()


async def test_who_got_more_time_from_somebody_before_it_is_not_told() -> None:
    clock = Clock(asyncio.get_running_loop())

    class Giver(Item):
        def expire(self) -> None:
            super().expire()
            for one in things:
                one.deadline = NEVER

    things = [Giver(0.0), Giver(0.0)]
    for one in things:
        clock.add(one)
    clock.start()
    clock.stop()
    assert sum(one.expired for one in things) == 1


async def test_time_goes_on_at_every_tick() -> None:
    clock = Clock(asyncio.get_running_loop())
    before = clock.now
    await asyncio.sleep(0.01)
    clock._tick()
    clock.stop()
    assert clock.now > before
    assert TICK < 1


async def test_the_date_follows_however_late_a_tick_comes() -> None:
    clock = Clock(asyncio.get_running_loop())
    told = []
    for wall in (1_000_000_000.9, 1_000_000_001.2, 1_000_000_001.9, 1_000_000_004.5):
        clock.strike(clock.now, wall)
        told.append(clock.date.split()[-2])
    assert told == [b"01:46:40", b"01:46:41", b"01:46:41", b"01:46:44"]
    assert clock.date == b"Sun, 09 Sep 2001 01:46:44 GMT"
