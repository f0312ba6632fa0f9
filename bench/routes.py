"""`python -m bench.routes`: what it costs to find a route, for tables of 10, 100 and 2,000 of several shapes."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from dataplane.heads import RequestHead, parse_request
from policies.route_index import RouteIndex
from policies.routes import RouteMatch, parse_match

SIZES = (10, 100, 2000)
SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "exact paths": lambda n: {"PathExact": f"/service-{n}/things"},
    "prefixes": lambda n: {"PathPrefix": f"/service-{n}/"},
    "prefixes, any case": lambda n: {"PathPrefix": f"/Service-{n}/", "CaseInsensitive": True},
    "regular expressions": lambda n: {"PathRegex": f"/[a-z]+-{n}/.*"},
    "one prefix, a header each": lambda n: {"PathPrefix": "/s", "Header": [{"Name": "X-User", "Exact": f"u{n}"}]},
    "one prefix, a parameter each": lambda n: {"PathPrefix": "/s", "QueryParam": [{"Name": "user", "Exact": f"u{n}"}]},
    "all of these in turn": lambda n: list(SHAPES.values())[n % 6](n),
}


def request(number: int) -> bytes:
    return (
        f"GET /service-{number}/things?user=u{number} HTTP/1.1\r\nHost: api.example\r\nUser-Agent: bench\r\n"
        f"Accept: */*\r\nX-User: u{number}\r\n\r\n"
    ).encode()


def find(index: RouteIndex, head: RequestHead) -> int | None:
    path, _, query = head.target.decode("latin-1").partition("?")
    return index.find(head.method, path, query, head)


def scan(matches: list[RouteMatch | None], head: RequestHead) -> int | None:
    path, query = head.path, head.query
    for position, match in enumerate(matches):
        if match is None or match.matches(head.method, path, query, head):
            return position
    return None


def microseconds(work: Callable[[RequestHead], object], text: bytes, rounds: int) -> float:
    """Return the median time of one lookup. Every one gets a head of its own, as no request has two."""
    found = []
    for _ in range(5):
        heads = [parse_request(text) for _ in range(rounds)]
        began = time.process_time()
        for head in heads:
            work(head)
        found.append((time.process_time() - began) / rounds * 1e6)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000, help="lookups a measurement")
    rounds = parser.parse_args().rounds
    print("| microseconds of CPU a lookup | " + " | ".join(f"{size:,}" for size in SIZES) + " | one by one, 2,000 |")
    print("|---|" + "---:|" * (len(SIZES) + 1))
    for shape, row in SHAPES.items():
        cells, missed = [], 0.0
        for size in SIZES:
            matches = [*(parse_match(row(number)) for number in range(size)), None]
            index, last = RouteIndex(matches), request(size - 1)
            cells.append(f"{microseconds(partial(find, index), last, rounds):.1f}")
            missed = microseconds(partial(scan, matches), last, max(1, rounds // 100))
        print(f"| {shape} | {' | '.join(cells)} | {missed:,.0f} |")


if __name__ == "__main__":
    main()
