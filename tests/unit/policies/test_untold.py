from __future__ import annotations

from policies.untold import MAX_KINDS, SECONDS, Untold


def test_one_line_of_a_kind_is_written_and_the_next_one_says_how_many_were_not() -> None:
    untold = Untold()
    assert [untold.due("a", 100.0 + second) for second in range(5)] == [0, None, None, None, None]
    assert untold.due("b", 104.0) == 0
    assert untold.due("a", 100.0 + SECONDS - 0.01) is None
    assert untold.due("a", 100.0 + SECONDS) == 5
    assert untold.due("a", 100.0 + SECONDS) is None
    assert untold.due("a", 100.0 + 3 * SECONDS) == 1


def test_the_first_line_is_written_however_young_the_clock_is() -> None:
    assert Untold().due("a", 0.0) == 0


def test_lines_and_memory_are_bounded_whatever_comes() -> None:
    untold = Untold()
    written = [untold.due(number, 0.0) for number in range(10_000)]
    assert written.count(None) == 10_000 - MAX_KINDS - 1
    assert len(untold) == MAX_KINDS + 1
    assert untold.due("another", SECONDS) == 0
    assert len(untold) == MAX_KINDS + 1


def test_what_found_no_room_is_told_as_one_kind() -> None:
    untold = Untold()
    for number in range(MAX_KINDS):
        untold.due(number, 1.0)
    assert [untold.due(name, 0.0) for name in ("x", "y", "z")] == [0, None, None]
    assert untold.due("more", SECONDS + 0.5) == 2
    assert untold.due(5, 1.0) is None, "those that were known are still told by themselves"
