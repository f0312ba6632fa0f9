"""The first route that matches wins: the prepared routes of the data path against a naive scan."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataplane.heads import parse_request
from policies.routes import parse_match

PATHS = st.sampled_from(["/", "/a", "/a/b", "/b", "/A", "/abc"])
MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "PathPrefix": PATHS,
        "Methods": st.lists(st.sampled_from(["GET", "PUT"]), max_size=1),
        "Header": st.lists(
            st.fixed_dictionaries({"Name": st.just("X-A"), "Exact": st.sampled_from(["1", "2"])}), max_size=1
        ),
        "QueryParam": st.lists(
            st.fixed_dictionaries({"Name": st.just("q"), "Exact": st.sampled_from(["1", "2"])}), max_size=1
        ),
    },
)


def naive(http: dict[str, Any], method: str, path: str, headers: dict[str, str], query: dict[str, str]) -> bool:
    return (
        path.startswith(http.get("PathPrefix", "/"))
        and (not http.get("Methods") or method in http["Methods"])
        and all(headers.get("x-a") == row["Exact"] for row in http.get("Header", ()))
        and all(query.get("q") == row["Exact"] for row in http.get("QueryParam", ()))
    )


@given(
    st.lists(MATCHES, max_size=5),
    st.sampled_from(["GET", "PUT"]),
    PATHS,
    st.sampled_from(["", "1", "2"]),
    st.sampled_from(["", "1", "2"]),
)
def test_lookup_equals_a_naive_scan(
    routes: list[dict[str, Any]], method: str, path: str, header: str, parameter: str
) -> None:
    target = path + (f"?q={parameter}" if parameter else "")
    lines = f"{method} {target} HTTP/1.1\r\nHost: a\r\n" + (f"X-A: {header}\r\n" if header else "") + "\r\n"
    head = parse_request(lines.encode())
    matches = [parse_match(http) for http in routes]
    found = next(
        (
            number
            for number, match in enumerate(matches)
            if match is None or match.matches(head.method, head.path, head.query, head)
        ),
        None,
    )
    expected = next(
        (
            number
            for number, http in enumerate(routes)
            if naive(http, method, path, {"x-a": header} if header else {}, {"q": parameter} if parameter else {})
        ),
        None,
    )
    assert found == expected
