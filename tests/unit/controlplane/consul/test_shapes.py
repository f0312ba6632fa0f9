from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.consul.shapes import (
    checked_entry,
    checked_instances,
    checked_match,
    checked_object,
    checked_roots,
    checked_rows,
    checked_service,
    checked_services,
)
from policies.errors import CatalogBadAnswer

ROW = {"Node": {"Node": "n1"}, "Service": {"ID": "a"}}
GOOD: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (lambda data: checked_roots("x", data), {"TrustDomain": "t", "Roots": [{"RootCert": "pem"}]}, ...),
    (lambda data: checked_roots("x", data), {"TrustDomain": "", "Roots": None}, ...),
    (lambda data: checked_service("x", data), {"ID": "web-1", "Kind": "connect-proxy"}, ...),
    (lambda data: checked_services("x", data), {"web-1": {"ID": "web-1"}}, ...),
    (lambda data: checked_services("x", data), {}, ...),
    (lambda data: checked_match("x", data, "api"), {"api": None}, []),
    (lambda data: checked_match("x", data, "api"), {"api": [{"SourceName": "*"}]}, [{"SourceName": "*"}]),
    (lambda data: checked_entry("x", data, "mesh"), {"Kind": "mesh"}, ...),
    (lambda data: checked_instances("x", data), [ROW], ...),
    (lambda data: checked_instances("x", data), [], ...),
    (lambda data: checked_rows("x", data, "Service"), [{"Service": 1}], ...),
    (lambda data: checked_object("x", data, "a"), {"a": None}, ...),
]


@pytest.mark.parametrize(("check", "data", "taken"), GOOD)
def test_what_consul_sends_passes(check: Callable[[Any], Any], data: Any, taken: Any) -> None:
    assert check(data) == (data if taken is ... else taken)


@pytest.mark.parametrize("data", [None, [], "text", 5, True, [None], {"x": 1}])
def test_an_object_of_another_shape_is_a_bad_answer(data: object) -> None:
    for check in (
        lambda data: checked_roots("x", data),
        lambda data: checked_service("x", data),
        lambda data: checked_services("x", data),
        lambda data: checked_match("x", data, "api"),
        lambda data: checked_entry("x", data, "mesh"),
    ):
        with pytest.raises(CatalogBadAnswer):
            check(data)


@pytest.mark.parametrize(
    "data", [None, {}, "text", 5, [None], [[]], [{}], [{"Service": None}], [{"Service": {}, "Node": 1}]]
)
def test_a_list_of_another_shape_is_a_bad_answer(data: object) -> None:
    with pytest.raises(CatalogBadAnswer):
        checked_instances("x", data)


@pytest.mark.parametrize(
    "rows", ["text", {}, 0, False, [None], [1], [{}], [{"SourceName": None}], [{"SourceName": "web"}, "web"]]
)
def test_intentions_of_another_shape_are_never_no_intentions(rows: object) -> None:
    with pytest.raises(CatalogBadAnswer):
        checked_match("x", {"api": rows}, "api")


def test_the_error_says_what_came() -> None:
    with pytest.raises(CatalogBadAnswer, match="y: expected an object with api, got one without"):
        checked_match("y", {}, "api")
    with pytest.raises(CatalogBadAnswer, match="expected a list, got null"):
        checked_rows("y", None, "Service")
    with pytest.raises(CatalogBadAnswer, match="kind mesh, got 'other'"):
        checked_entry("y", {"Kind": "other"}, "mesh")
    with pytest.raises(CatalogBadAnswer, match="ID is no text"):
        checked_service("y", {"ID": 5})
