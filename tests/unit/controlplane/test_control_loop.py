from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest

from controlplane import control_loop as module
from controlplane.control_loop import ControlLoop, Tidy, on


@pytest.fixture
async def control() -> AsyncIterator[ControlLoop]:
    loop = ControlLoop()
    yield loop
    await loop.close()


async def test_the_work_is_done_in_another_thread_while_this_loop_goes_on(control: ControlLoop) -> None:
    begun, over = threading.Event(), threading.Event()

    async def work() -> int:
        begun.set()
        assert over.wait(5)
        return threading.get_ident()

    working = asyncio.create_task(control(work()))
    while not begun.is_set():  # noqa: ASYNC110 - a thread's event: that the loop gets its turn is what is tested
        await asyncio.sleep(0)
    over.set()
    assert await working != threading.get_ident()


async def test_the_work_may_hand_something_to_the_first_loop(control: ControlLoop) -> None:
    front = asyncio.get_running_loop()

    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def work() -> tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]:
        return await where(), await on(front, where())

    there, here = await control(work())
    assert here is front
    assert there is not front
    assert type(there) is type(front)


async def test_an_error_is_raised_here(control: ControlLoop) -> None:
    async def work() -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        await control(work())


async def test_what_is_cancelled_here_is_cancelled_there(control: ControlLoop) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    working = asyncio.create_task(control(work()))
    assert await asyncio.to_thread(begun.wait, 5)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await asyncio.to_thread(cancelled.wait, 5)


async def test_closing_ends_what_is_left_and_the_thread_and_sets_the_interpreter_back() -> None:
    before, threads = sys.getswitchinterval(), threading.active_count()
    loop = ControlLoop()
    assert sys.getswitchinterval() == pytest.approx(module.SWITCH_SECONDS)
    ended = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    left = asyncio.create_task(loop(work()))
    await asyncio.sleep(0)
    await loop.close()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert ended.is_set()
    assert "control" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= threads + 1  # the one that waited for it
    assert sys.getswitchinterval() == pytest.approx(before)


@pytest.fixture
def few_young() -> None:
    gc.collect()


@pytest.mark.usefixtures("few_young")
def test_no_collection_begins_within_the_work_and_little_is_left_to_the_collector() -> None:
    frozen = gc.get_freeze_count()
    with Tidy()():
        assert not gc.isenabled()
        few = [[number] for number in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    assert len(few) == 100


@pytest.mark.usefixtures("few_young")
@pytest.mark.parametrize("pieces", [1, 10])
def test_many_new_objects_are_taken_out_of_the_collectors_sight_also_when_others_went(pieces: int) -> None:
    frozen, tidy = gc.get_freeze_count(), Tidy()
    kept = [[number] for number in range(2 * module.MANY_OBJECTS)]
    gc.collect()
    try:
        for piece in range(pieces):
            with tidy():
                share = len(kept) // pieces
                kept[piece * share : (piece + 1) * share] = [[number] for number in range(share)]
        assert gc.get_freeze_count() >= frozen + module.MANY_OBJECTS
    finally:
        gc.unfreeze()


def test_garbage_among_what_is_new_is_found() -> None:
    gc.collect()
    tidy = Tidy()
    with tidy():
        held: list[list[object]] = [[] for _ in range(2 * module.SOME_OBJECTS)]
        circle: list[object] = []
        circle.append(circle)
        there = id(circle)
        del circle
    assert there not in {id(one) for one in gc.get_objects()}
    assert held


def test_another_thread_makes_tuples_meanwhile() -> None:
    """`gc.get_objects` shows them before they are filled; whoever holds one then breaks `tuple`."""
    over = threading.Event()

    def make() -> int:
        made = 0
        while not over.is_set():
            made += len(tuple(number for number in range(12)))
        return made

    before = sys.getswitchinterval()
    sys.setswitchinterval(module.SWITCH_SECONDS)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as others:
            making = others.submit(make)
            ends, tidy = time.monotonic() + 1.0, Tidy()
            try:
                while time.monotonic() < ends and not making.done():
                    with tidy():
                        pass
            finally:
                over.set()
            assert making.result() > 0
    finally:
        sys.setswitchinterval(before)
