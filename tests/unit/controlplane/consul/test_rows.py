from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.consul.rows import Later, Rows, decoded
from harness.meshes import instance
from policies.errors import CatalogBadAnswer

ELEMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(ELEMENTS, max_size=6), st.sampled_from([None, 0, 2]))
def test_row_by_row_is_what_json_says(elements: list[Any], indent: int | None) -> None:
    for ascii_only in (True, False):
        text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
        for window in (1, 7, 1000):
            assert list(decoded(f" {text}\r\n".encode(), window)) == json.loads(text)


@given(st.text(alphabet='[]{},:"1a \n', max_size=12))
def test_what_is_no_list_for_json_is_none_here(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert list(decoded(text.encode(), 3)) == expected
    else:
        with pytest.raises(ValueError, match=r".*"):
            list(decoded(text.encode(), 3))


@given(ELEMENTS, st.integers(0, 4), st.integers(1, 9), st.sampled_from([None, 0, 2]))
def test_an_answer_taken_apart_is_what_json_says(value: Any, depth: int, size: int, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    try:
        expected = json.loads(text)
    except ValueError:  # half a surrogate
        return
    assert Later("x", pieces, depth, lambda found: found).decoded() == expected


@given(st.text(alphabet='[]{},:"1a \n', max_size=12), st.integers(0, 3))
def test_what_is_not_json_is_a_bad_answer(text: str, depth: int) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(CatalogBadAnswer):
            Later("x", [text.encode()], depth, lambda found: found).decoded()
    else:
        assert Later("x", [text.encode()], depth, lambda found: found).decoded() == expected


def test_rows_can_be_gone_through_more_than_once() -> None:
    rows = Rows("x", json.dumps([instance("api", 1), instance("api", 2, 2)]).encode())
    assert list(rows) == list(rows)
    assert len(list(rows)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b"[null]",
        b"[{}]",
        b'[{"Service": {}, "Node": null}]',
        b'[{"Service": {}, "Node": {}}',
        b'[{"Service": {}, "Node": {}},]',
        b'[{"Service": {}, "Node": {}}] x',
        b'["\xff"]',
        b"<html>",
    ],
)
def test_rows_that_are_none_are_a_bad_answer(content: bytes) -> None:
    with pytest.raises(CatalogBadAnswer, match="y:"):
        list(Rows("y", content))


def test_an_answer_that_nests_without_end_is_a_bad_one() -> None:
    deep = b"[" * 100_000
    with pytest.raises(CatalogBadAnswer):
        list(Rows("y", b"[" + deep))
    with pytest.raises(CatalogBadAnswer):
        Later("y", deep, 3, lambda found: found).decoded()
