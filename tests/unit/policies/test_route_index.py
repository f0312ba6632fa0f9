"""The index of routes: what it finds, and how much work that is. `property/test_routes.py` holds it against a scan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest

from policies.regexes import SET_SIZE
from policies.route_index import RouteIndex
from policies.routes import parse_match

Row = dict[str, Any]


class Fields:
    """Headers of a request, for tests."""

    def __init__(self, **values: str) -> None:
        self._values = {name.replace("_", "-"): (value,) for name, value in values.items()}

    def get_all(self, name: str) -> Sequence[str]:
        return self._values.get(name, ())


def index(*rows: Row) -> RouteIndex:
    return RouteIndex([parse_match(row) for row in rows])


def find(made: RouteIndex, path: str, method: str = "GET", query: str = "", **headers: str) -> int | None:
    return made.find(method, path, query, Fields(**headers))


def test_the_first_of_all_that_match_wins_whatever_it_asks() -> None:
    rows: list[Row] = [
        {"PathPrefix": "/api/v2", "Methods": ["PUT"]},
        {"PathRegex": "/api/v[0-9]"},
        {"PathExact": "/api/v2"},
        {"PathPrefix": "/API", "CaseInsensitive": True},
        {"Header": [{"Name": "X-A", "Exact": "1"}]},
        {"PathPrefix": "/"},
        {"PathExact": "/never"},
    ]
    made = index(*rows)
    assert find(made, "/api/v2", "PUT") == 0
    assert find(made, "/api/v2") == 1
    assert find(made, "/api/v2/x", x_a="1") == 3
    assert find(made, "/web", x_a="1") == 4
    assert find(made, "/never") == 5
    assert find(index(*rows[1:]), "/api/v2") == 0
    assert find(index(*rows[2:]), "/api/v2") == 0
    assert find(index(*rows[2:5]), "/web") is None


def test_without_routes_nothing_is_found() -> None:
    assert find(index(), "/") is None


def test_routes_of_one_path_are_told_apart_by_method_header_or_parameter() -> None:
    headers: list[Row] = [{"PathPrefix": "/a", "Header": [{"Name": "X-U", "Exact": f"u{n}"}]} for n in range(20)]
    parameters: list[Row] = [{"PathPrefix": "/a", "QueryParam": [{"Name": "q", "Exact": str(n)}]} for n in range(20)]
    methods: list[Row] = [{"PathPrefix": "/a", "Methods": ["GET", "PUT"]}, {"PathPrefix": "/a", "Methods": ["POST"]}]
    made = index(*headers, *parameters, *methods, {"PathExact": "/a"})
    assert find(made, "/a", query="q=3", x_u="u7") == 7
    assert find(made, "/a", query="q=3&q=4", x_u="none") == 23
    assert find(made, "/a") == 40
    assert find(made, "/a", "POST") == 41
    assert find(made, "/a", "PATCH") == 42
    assert find(made, "/b", x_u="u7") is None


def test_paths_that_differ_in_case_alone_are_one_where_case_does_not_count() -> None:
    made = index(
        {"PathExact": "/A", "CaseInsensitive": True, "Methods": ["PUT"]},
        {"PathExact": "/a", "CaseInsensitive": True, "Methods": ["GET"]},
        {"PathPrefix": "/B", "CaseInsensitive": True, "Methods": ["PUT"]},
        {"PathPrefix": "/b", "CaseInsensitive": True, "Methods": ["GET"]},
    )
    assert [find(made, path, method) for path in ("/a", "/bc") for method in ("PUT", "GET")] == [0, 1, 2, 3]


# --- how much work -------------------------------------------------------------------------------------------------


def steps(work: Callable[[], object]) -> int:
    """Return how many instructions of Python a piece of work takes: a measure that no busy machine changes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    for _ in range(2):  # Python 3.12 tells of instructions only when tracing begins after a frame has asked for them
        count = 0
        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(before)
    return count


SHAPES: dict[str, Callable[[int], Row]] = {
    "exact": lambda n: {"PathExact": f"/service-{n}/things"},
    "exact-any-case": lambda n: {"PathExact": f"/Service-{n}/things", "CaseInsensitive": True},
    "prefix": lambda n: {"PathPrefix": f"/service-{n}/"},
    "prefix-any-case": lambda n: {"PathPrefix": f"/Service-{n}/", "CaseInsensitive": True},
    "regex": lambda n: {"PathRegex": f"/[a-z]+-{n}/.*"},
    "header": lambda n: {"PathPrefix": "/service", "Header": [{"Name": "X-User", "Exact": f"u{n}"}]},
    "header-without-a-path": lambda n: {"Header": [{"Name": "X-User", "Exact": f"u{n}"}]},
    "parameter": lambda n: {"PathPrefix": "/service", "QueryParam": [{"Name": "user", "Exact": f"u{n}"}]},
    "one-regex-and-a-header": lambda n: {"PathRegex": "/s.*", "Header": [{"Name": "X-User", "Exact": f"u{n}"}]},
    "mixed": lambda n: list(SHAPES.values())[n % 9](n),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_of_a_lookup_does_not_grow_with_routes_that_cannot_match(shape: str) -> None:
    def work(size: int, wanted: int | None) -> int:
        made = index(*(SHAPES[shape](number) for number in range(size)))
        name = size if wanted is None else wanted
        fields = Fields(x_user=f"u{name}")
        expected = find(made, f"/service-{name}/things", query=f"user=u{name}", x_user=f"u{name}")
        if shape != "mixed":
            assert expected == wanted
        return steps(lambda: made.find("GET", f"/service-{name}/things", f"user=u{name}", fields))

    sets = 2000 // SET_SIZE - 1 if shape == "regex" else 0  # expressions are matched some hundreds at a time
    for wanted in (9, None):
        few, many = work(10, wanted), work(2000, wanted)
        assert many <= 1.3 * few + 20 + 60 * sets, (shape, wanted, few, many)
