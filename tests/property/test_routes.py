"""The first route that matches wins: matches against a naive reading of them, the index against a scan of matches."""

from __future__ import annotations

from random import Random
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

ASKED_PATHS = ["/", "/a", "/A", "/a/", "/a/b", "/a/B/c", "/ab", "/ac", "/abd", "/b", "/é", "/É"]
WRITTEN_PATHS = ["/", "/a", "/A", "/a/", "/a/b", "/A/b", "/ab", "/abc", "/b/c", "/é", "/É"]
PATTERNS = ["/.*", "/a.*", "/[ab]", "/(a|b)/.*", "/.", "/..?", "/b.*", "/é"]
VALUES = ["1", "2", "3", "é", "A", "a"]
METHODS = ["GET", "PUT", "POST"]


def some_path(random: Random) -> dict[str, Any]:
    kind = random.choice(["PathExact", "PathPrefix", "PathRegex", ""])
    if not kind:
        return {}
    paths = PATTERNS if kind == "PathRegex" else WRITTEN_PATHS
    return {kind: random.choice(paths), "CaseInsensitive": random.random() < 0.3}


def some_value(random: Random, *kinds: str) -> dict[str, Any]:
    kind = random.choice(kinds)
    return {kind: True if kind == "Present" else random.choice(VALUES)}


def some_criteria(random: Random) -> dict[str, Any]:
    """Return what a route asks besides the path: mostly nothing or one thing, so that routes take something."""
    found: dict[str, Any] = {}
    if random.random() < 0.3:
        found["Methods"] = random.sample(METHODS, random.randint(1, 2))
    if random.random() < 0.4:
        kinds = ("Exact", "Exact", "Exact", "Prefix", "Suffix", "Regex", "Present")
        row = {"Name": random.choice(["X-A", "x-a", "X-B"]), **some_value(random, *kinds)}
        found["Header"] = [{**row, "Invert": random.random() < 0.2, "IgnoreCase": random.random() < 0.2}]
    if random.random() < 0.3:
        row = {"Name": random.choice("qqr"), **some_value(random, "Exact", "Exact", "Regex", "Present")}
        found["QueryParam"] = [row]
    return found


def some_routes(random: Random) -> list[dict[str, Any]]:
    """Return routes of all kinds, or many of one path: in sizes at which groups are divided."""
    path = some_path(random) if random.random() < 0.5 else None
    rows = [
        {**(some_path(random) if path is None or random.random() < 0.1 else path), **some_criteria(random)}
        for _ in range(random.choice([3, 12, 25]))
    ]
    if random.random() < 0.5:  # routes that ask nothing take all, so that what stands behind them is never reached
        rows = [row for row in rows if parse_match(row) is not None]
    return rows


def some_head(random: Random) -> RequestHead:
    lines = "".join(
        f"{random.choice(['x-a', 'X-B'])}: {random.choice(VALUES)}\r\n" for _ in range(random.choice([0, 1, 3]))
    )
    head = parse_request(f"{random.choice(METHODS)} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
    query = "&".join(f"{random.choice('qr')}={random.choice(VALUES)}" for _ in range(random.choice([0, 1, 3])))
    head.target = f"{random.choice(ASKED_PATHS)}?{query}".encode()
    return head


@settings(max_examples=500)
@given(st.integers(0, (1 << 32) - 1))
def test_the_index_finds_what_a_scan_finds(seed: int) -> None:
    random = Random(seed)
    matches = [parse_match(http) for http in some_routes(random)]
    index = RouteIndex(matches)
    for _ in range(20):  # one request alone seldom gets as far as where a mistake would be
        head = some_head(random)
        assert index.find(head.method, head.path, head.query, head) == scan(matches, head)
