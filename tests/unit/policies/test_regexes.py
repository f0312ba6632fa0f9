from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from policies.errors import EntryError
from policies.regexes import FullMatches, full_match, search


def test_a_full_match_takes_the_whole_value() -> None:
    test = full_match("/v[0-9]+")
    assert test("/v12")
    assert not test("/v12/x")


def test_a_search_takes_any_part() -> None:
    assert search("v[0-9]")("a-v1-b")
    assert not search("v[0-9]")("a-v-b")


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", "(a)\\1", "*"])
def test_what_re2_does_not_take_is_an_error_that_shows_the_pattern(pattern: str) -> None:
    with pytest.raises(EntryError, match=r"is not RE2"):
        full_match(pattern)


def test_a_pattern_that_kills_backtracking_engines_answers_at_once() -> None:
    assert not full_match("(a+)+b")("a" * 5000)


def test_bytes_that_are_no_text_of_ours_are_matched_as_bytes() -> None:
    assert full_match("/é.")("/é.".encode().decode("latin-1"))
    assert not full_match("/é")("/é")


PATTERNS = ("/a/.*", "/b", "/(a|b)(/.*)?", "/c")


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("together", [1, 3, 500])
def test_many_patterns_are_matched_at_once_or_one_by_one_with_the_same_answer(
    memory: int | None, together: int
) -> None:
    matches = FullMatches(PATTERNS, memory, together)
    assert [made is None for _, made in matches._sets] == [memory == 1] * -(-len(PATTERNS) // together)
    assert [matches.of(path) for path in ("/a/x", "/b", "/x", "/c/")] == [[0, 2], [1, 2], [], []]


def test_no_patterns_match_nothing() -> None:
    assert FullMatches(()).of("/a") == []


def test_an_engine_that_gives_up_is_not_believed() -> None:
    import re2

    silent = re2.Set.FullMatchSet()  # which finds nothing, not even what always matches
    silent.Add("x")
    silent.Compile()
    matches = FullMatches(PATTERNS)
    matches._sets = [(patterns, silent) for patterns, _ in matches._sets]
    assert matches.of("/b") == [1, 2]


def test_strange_paths_fill_no_more_than_a_few_megabytes_where_there_are_few_patterns() -> None:
    matches, draw = FullMatches(["/s/.*[0-9]{2,20}.*(x|y).{0,30}"]), random.Random(1)
    assert matches.of("/s/12x") == [0]
    before = resident()
    for _ in range(6000):
        matches.of("/s/" + "".join(draw.choices("0123456789xyab/", k=100)))
    assert resident() - before < 16


def resident() -> float:
    """Return the megabytes that this process holds."""
    (pages,) = re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(pages) / 1024
