from __future__ import annotations

from sidecar.ending import Ending


async def test_the_second_word_cuts_what_is_under_way() -> None:
    ending = Ending()
    assert [ending.tell(), ending.tell(), ending.tell()] == [False, True, True]


async def test_a_hold_takes_one_more_word_until_it_ends_and_is_not_undone_by_another_hold() -> None:
    ending = Ending()
    ending.hold()
    ending.hold()
    assert ending.told.is_set()
    assert [ending.tell(), ending.tell()] == [False, True]


async def test_who_ends_already_is_not_held() -> None:
    ending = Ending()
    ending.tell()
    ending.hold()
    assert ending.tell()
