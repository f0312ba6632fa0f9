from __future__ import annotations

import pytest

from policies.errors import EntryError
from policies.regexes import full_match, search


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
