from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from controlplane import aside as module
from controlplane.aside import Aside


@pytest.fixture
def aside() -> Iterator[Aside]:
    thread = Aside()
    yield thread
    thread.close()


async def test_the_work_is_done_in_another_thread_while_the_loop_goes_on(aside: Aside) -> None:
    begun, over = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        assert over.wait(5)
        return threading.get_ident()

    working = asyncio.create_task(aside(work))
    while not begun.is_set():  # noqa: ASYNC110 - a thread's event: that the loop gets its turn is what is tested
        await asyncio.sleep(0)
    over.set()
    assert await working != threading.get_ident()


async def test_the_loop_goes_first_and_the_collector_waits_meanwhile(aside: Aside) -> None:
    before = sys.getswitchinterval()
    interval, collects = await aside(lambda: (sys.getswitchinterval(), gc.isenabled()))
    assert interval == pytest.approx(module.SWITCH_SECONDS)
    assert not collects
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(before)


async def test_an_error_is_raised_here_and_leaves_all_as_it_was(aside: Aside) -> None:
    before = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0)
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(before)


async def test_many_new_objects_are_taken_out_of_the_collectors_sight(aside: Aside) -> None:
    before = gc.get_freeze_count()
    few = await aside(lambda: [[number] for number in range(10)])
    assert gc.get_freeze_count() == before
    many = await aside(lambda: [[number] for number in range(2 * module.MANY_OBJECTS)])
    try:
        assert gc.get_freeze_count() >= before + 2 * module.MANY_OBJECTS
    finally:
        gc.unfreeze()
    assert len(few) + len(many) > 0


async def test_one_work_waits_for_the_other(aside: Aside) -> None:
    running: list[int] = []

    def work() -> int:
        running.append(1)
        time.sleep(0.01)
        most = len(running)
        running.pop()
        return most

    assert await asyncio.gather(*(aside(work) for _ in range(5))) == [1] * 5
