from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from policies.errors import EntryError
from policies.route_index import RouteIndex
from policies.routes import HeaderModifiers, parse_match, parse_modifiers, parse_route_match


class NoHeaders:
    def get_all(self, name: str) -> Sequence[str]:
        del name
        return ()


def takes(http: dict[str, object], target: str, method: str = "GET") -> bool:
    match = parse_match(http)
    path, _, query = target.partition("?")
    return match is None or match.matches(method, path, query, NoHeaders())


@pytest.mark.parametrize("http", [{}, {"PathPrefix": "/"}, {"PathPrefix": "/", "Methods": []}])
def test_a_route_without_criteria_takes_everything(http: dict[str, object]) -> None:
    assert parse_match(http) is None


@pytest.mark.parametrize(
    ("http", "target", "taken"),
    [
        ({"PathPrefix": "/api"}, "/api/x?y", True),
        ({"PathPrefix": "/api"}, "/web", False),
        ({"Methods": ["POST"]}, "/", False),
        ({"QueryParam": [{"Name": "q", "Exact": "one"}]}, "/?q=one", True),
        ({"QueryParam": [{"Name": "q", "Exact": "one"}]}, "/?a=b&q=one", True),
        ({"QueryParam": [{"Name": "q", "Exact": "one"}]}, "/?q=two&q=one", False),
        ({"QueryParam": [{"Name": "q", "Exact": "one"}]}, "/?%71=one", False),
        ({"QueryParam": [{"Name": "q", "Exact": "one"}]}, "/", False),
        ({"QueryParam": [{"Name": "q", "Present": True}]}, "/?q", True),
        ({"QueryParam": [{"Name": "q", "Regex": "[0-9]+"}]}, "/?q=12", True),
        ({"QueryParam": [{"Name": "q", "Regex": "[0-9]+"}]}, "/?q=x12", False),
    ],
)
def test_a_route_takes_what_meets_all_its_criteria(http: dict[str, object], target: str, taken: bool) -> None:  # noqa: FBT001
    assert takes(http, target) is taken


@pytest.mark.parametrize(
    "row",
    [
        {"HTTP": {"PathPrefix": "/api", "Cookie": [{"Name": "a"}]}},
        {"HTTP": {"PathPrefix": "/", "Header": [{"Name": "h", "Present": True, "OneOf": ["x"]}]}},
        {"HTTP": {"PathPrefix": "/", "Header": [{"Name": "h", "OneOf": ["x"]}]}},
        {"HTTP": {"QueryParam": [{"Name": "q", "Present": True, "Invert": True}]}},
        {"HTTP": {"PathPrefix": "/"}, "GRPC": {"Service": "x"}},
        {"GRPC": {"Service": "x"}},
    ],
)
def test_a_route_with_a_criterion_that_is_not_known_takes_nothing(row: dict[str, Any]) -> None:
    match = parse_route_match(row)
    assert match is not None
    assert match.broken.endswith(" is not understood")
    assert not match.matches("GET", "/api", "q=1", NoHeaders())
    assert RouteIndex([match, None]).find("GET", "/api", "q=1", NoHeaders()) == 1


@pytest.mark.parametrize("row", [None, {}, {"HTTP": None}, {"HTTP": {"PathPrefix": "/", "Cookie": []}, "GRPC": None}])
def test_a_criterion_that_is_not_known_and_asks_for_nothing_changes_nothing(row: object) -> None:
    assert parse_route_match(row) is None


def test_routes_are_equal_by_what_was_written() -> None:
    assert parse_match({"PathRegex": "/a"}) == parse_match({"PathRegex": "/a"})
    assert parse_match({"PathRegex": "/a"}) != parse_match({"PathRegex": "/b"})


def test_a_bad_regular_expression_is_an_error() -> None:
    with pytest.raises(EntryError):
        parse_match({"PathRegex": "("})


def test_modifiers_are_read_in_lower_case_and_in_order_of_name() -> None:
    modifiers = parse_modifiers({"Add": {"X-B": "2", "X-A": "1"}, "Set": {"Y": "3"}, "Remove": ["Z"]})
    assert modifiers == HeaderModifiers((("x-a", "1"), ("x-b", "2")), (("y", "3"),), ("z",))
    assert parse_modifiers(None) is None
    assert parse_modifiers({"Add": {}}) is None
