"""The first route that matches wins: matches against a naive reading of them, the index against a scan of matches."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.heads import RequestHead, parse_request
from policies.route_index import RouteIndex
from policies.routes import RouteMatch, parse_match

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


def scan(matches: list[RouteMatch | None], head: RequestHead) -> int | None:
    """Return the position of the first match that takes the request, asking one after the other."""
    for number, match in enumerate(matches):
        if match is None or match.matches(head.method, head.path, head.query, head):
            return number
    return None


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
    found = scan([parse_match(http) for http in routes], head)
    expected = next(
        (
            number
            for number, http in enumerate(routes)
            if naive(http, method, path, {"x-a": header} if header else {}, {"q": parameter} if parameter else {})
        ),
        None,
    )
    assert found == expected


# --- the index -----------------------------------------------------------------------------------------------------

SOME_PATHS = st.sampled_from(["/", "/a", "/A", "/a/", "/a/b", "/a/B/c", "/ab", "/abc", "/b", "/\xc3\xa9", "/\xc3\x89"])
WRITTEN_PATHS = st.sampled_from(["/", "/a", "/A", "/a/", "/a/b", "/A/b", "/ab", "/abc", "/b/c", "/é", "/É"])
VALUES = st.sampled_from(["1", "2", "3", "é", "A", "a"])
METHODS = st.sampled_from(["GET", "PUT", "POST"])
HEADER_TESTS = st.fixed_dictionaries(
    {"Name": st.sampled_from(["X-A", "x-b"])},
    optional={"Invert": st.booleans(), "IgnoreCase": st.booleans()},
).flatmap(
    lambda row: st.sampled_from(["Exact", "Prefix", "Suffix", "Regex", "Present"]).flatmap(
        lambda kind: (st.just(True) if kind == "Present" else VALUES).map(lambda value: {**row, kind: value})
    )
)
QUERY_TESTS = st.builds(
    lambda name, kind, value: {"Name": name, kind: True if kind == "Present" else value},
    st.sampled_from(["q", "r"]),
    st.sampled_from(["Exact", "Regex", "Present"]),
    VALUES,
)
CRITERIA = st.fixed_dictionaries(
    {},
    optional={
        "CaseInsensitive": st.booleans(),
        "Methods": st.lists(METHODS, max_size=2),
        "Header": st.lists(HEADER_TESTS, max_size=2),
        "QueryParam": st.lists(QUERY_TESTS, max_size=2),
    },
)
PATH_TESTS = st.one_of(
    st.builds(lambda path: {"PathExact": path}, WRITTEN_PATHS),
    st.builds(lambda path: {"PathPrefix": path}, WRITTEN_PATHS),
    st.builds(lambda regex: {"PathRegex": regex}, st.sampled_from(["/.*", "/a.*", "/[ab]", "/(a|b)/.*", "/.", "/..?"])),
    st.just({}),
)
# Many routes of one path or of none, and routes of all kinds mixed; up to a size at which groups are divided.
ROUTES = st.one_of(
    st.lists(st.builds(lambda path, rest: {**path, **rest}, PATH_TESTS, CRITERIA), max_size=25),
    st.builds(
        lambda path, rests: [{**path, **rest} for rest in rests],
        PATH_TESTS,
        st.lists(CRITERIA, min_size=5, max_size=25),
    ),
)


@settings(max_examples=500)
@given(
    ROUTES,
    METHODS,
    SOME_PATHS,
    st.lists(st.tuples(st.sampled_from(["q", "r"]), VALUES), max_size=3),
    st.lists(st.tuples(st.sampled_from(["x-a", "X-B"]), VALUES), max_size=3),
)
def test_the_index_finds_what_a_scan_finds(
    routes: list[dict[str, Any]],
    method: str,
    path: str,
    query: list[tuple[str, str]],
    fields: list[tuple[str, str]],
) -> None:
    target = path + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = parse_request(
        f"{method} / HTTP/1.1\r\nHost: a\r\n".encode() + lines.encode() + b"\r\n",
    )
    head.target = target.encode("latin-1")
    matches = [parse_match(http) for http in routes]
    assert RouteIndex(matches).find(method, head.path, head.query, head) == scan(matches, head)
