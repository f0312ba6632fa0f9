from __future__ import annotations

from collections.abc import Sequence

import pytest

from policies.errors import EntryError
from policies.matching import PathMatch, RequestTest, ValueMatch, parse_methods, parse_path, parse_values


class Lines:
    """Headers of a request, for tests."""

    def __init__(self, **values: list[str]) -> None:
        self._values = {name.replace("_", "-"): lines for name, lines in values.items()}

    def get_all(self, name: str) -> Sequence[str]:
        return self._values.get(name, ())


@pytest.mark.parametrize(
    ("row", "path", "taken"),
    [
        ({"PathExact": "/a"}, "/a", True),
        ({"PathExact": "/a"}, "/a/", False),
        ({"PathPrefix": "/a"}, "/abc", True),
        ({"PathPrefix": "/a"}, "/A", False),
        ({"PathRegex": "/v[0-9]"}, "/v1", True),
        ({"PathRegex": "/v[0-9]"}, "/v1/x", False),
        ({"PathExact": "/A", "CaseInsensitive": True}, "/a", True),
        ({"PathPrefix": "/A", "CaseInsensitive": True}, "/aB", True),
        ({"PathRegex": "/A", "CaseInsensitive": True}, "/a", False),
    ],
)
def test_paths_match_as_consul_says(row: dict[str, object], path: str, taken: bool) -> None:  # noqa: FBT001
    match = parse_path(row)
    assert match is not None
    assert match.compiled()(path) is taken


def test_no_path_criterion_takes_every_path() -> None:
    assert parse_path({}) is None
    assert RequestTest(None, frozenset(), ())("GET", "/any", Lines())


def test_methods_are_compared_in_upper_case() -> None:
    methods = parse_methods({"Methods": ["get", "PUT"]})
    test = RequestTest(PathMatch("prefix", "/a"), methods, ())
    assert test("GET", "/a", Lines())
    assert not test("POST", "/a", Lines())
    assert not test("GET", "/b", Lines())
    assert parse_methods({}) == frozenset()


@pytest.mark.parametrize(
    ("row", "lines", "taken"),
    [
        ({"Present": True}, ["x"], True),
        ({"Present": True}, [], False),
        ({"Present": True, "Invert": True}, [], True),
        ({"Present": True, "Invert": True}, ["x"], False),
        ({"Exact": "yes"}, ["yes"], True),
        ({"Exact": "yes"}, ["no", "yes"], True),
        ({"Exact": "yes"}, ["no,yes"], False),
        ({"Exact": "yes", "Invert": True}, ["no"], True),
        ({"Exact": "yes", "Invert": True}, [], False),
        ({"Exact": "YES", "IgnoreCase": True}, ["yEs"], True),
        ({"Prefix": "a"}, ["abc"], True),
        ({"Suffix": "c"}, ["abc"], True),
        ({"Contains": "b"}, ["abc"], True),
        ({"Contains": "B", "IgnoreCase": True}, ["abc"], True),
        ({"Regex": "a.c"}, ["abc"], True),
        ({"Regex": "a"}, ["abc"], False),
    ],
)
def test_headers_are_tested_line_by_line(row: dict[str, object], lines: list[str], taken: bool) -> None:  # noqa: FBT001
    test = RequestTest(None, frozenset(), parse_values([{"Name": "X-Probe", **row}]))
    assert test("GET", "/", Lines(x_probe=lines) if lines else Lines()) is taken


def test_every_header_must_hold() -> None:
    test = RequestTest(None, frozenset(), (ValueMatch("a", "exact", "1"), ValueMatch("b", "exact", "2")))
    assert test("GET", "/", Lines(a=["1"], b=["2"]))
    assert not test("GET", "/", Lines(a=["1"]))


def test_a_header_without_a_criterion_is_an_error_that_names_it() -> None:
    with pytest.raises(EntryError, match=r"'x-probe' has none of Present"):
        parse_values([{"Name": "x-probe"}])


def test_a_bad_regular_expression_is_an_error() -> None:
    with pytest.raises(EntryError):
        RequestTest(PathMatch("regex", "("), frozenset(), ())


@pytest.mark.parametrize(
    ("row", "value", "as_it_came", "denied", "allowed"),
    [
        ({"Regex": ".*evil.*"}, b"an evil one", True, True, True),
        ({"Regex": ".*evil.*"}, "é evil".encode(), True, True, True),
        ({"Regex": ".*evil.*"}, b"\xff evil", False, True, False),
        ({"Regex": ".*evil.*"}, b"\xff good", False, False, False),
        ({"Regex": ".*evil.*", "Invert": True}, b"\xff evil", True, True, False),
        ({"Regex": ".*evil.*", "Invert": True}, b"\xff good", True, True, True),
        ({"Exact": "é"}, "é".encode(), True, True, True),
        ({"Exact": "é"}, b"\xe9", False, True, False),
        ({"Contains": "É", "IgnoreCase": True}, b"a\xc9b", False, True, False),
        ({"Exact": "é", "Invert": True}, b"\xe9", True, True, False),
        ({"Prefix": "a"}, b"a\xff", True, True, True),
    ],
)
def test_a_value_that_is_no_utf_8_passes_no_deny_and_no_allow_by_that(
    row: dict[str, object],
    value: bytes,
    as_it_came: bool,  # noqa: FBT001 - a table
    denied: bool,  # noqa: FBT001
    allowed: bool,  # noqa: FBT001
) -> None:
    headers = parse_values([{"Name": "h", **row}])
    lines = Lines(h=[value.decode("latin-1")])
    tests = [RequestTest(None, frozenset(), headers, denies=denies) for denies in (None, True, False)]
    assert [test("GET", "/", lines) for test in tests] == [as_it_came, denied, allowed]


def test_a_path_that_is_no_utf_8_passes_no_deny_by_that() -> None:
    deny = RequestTest(PathMatch("regex", "/a.*"), frozenset(), (), denies=True)
    assert deny("GET", "/a\xff", Lines())
    assert not deny("GET", "/b\xff", Lines())
