from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.edge.hosts import Hosts
from policies.table import VirtualHost


def hosts(**names: str) -> Hosts[str]:
    return Hosts([(VirtualHost(key, tuple(value.split())), key) for key, value in names.items()], 8080)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", "exact"),
        ("a.example:8080", "exact"),
        ("a.example:9", None),
        ("x.wide.example", "narrow"),
        ("x.y.wide.example", "narrow"),
        ("x.example", "wide"),
        ("x.example:8080", "wide"),
        ("example", None),
        (".example", None),
        ("api.ingress.consul", "default"),
        ("api.ingress.consul:1", "default"),
        ("api.ingress.", None),
        ("", None),
    ],
)
def test_the_closest_host_wins(host: str, expected: str | None) -> None:
    found = hosts(exact="a.example", wide="*.example", narrow="*.wide.example", default="api.ingress.*").find(host)
    assert found == expected


def test_a_star_takes_the_rest() -> None:
    found = hosts(exact="a.example", rest="*")
    assert (found.find("a.example"), found.find("b"), found.find("")) == ("exact", "rest", "rest")


def scanned(names: list[str], host: str) -> str | None:
    """Return the host entry that takes a Host, by asking all of them."""
    exact = [name for name in names if "*" not in name and host in {name, f"{name}:8080"}]
    suffixes = [name for name in names if name.startswith("*.") and host.endswith((name[1:], f"{name[1:]}:8080"))]
    prefixes = [name for name in names if name.endswith(".*") and host.startswith(name[:-1])]
    ends = [name for name in suffixes if host not in {name[1:], f"{name[1:]}:8080"}]
    starts = [name for name in prefixes if host != name[:-1]]
    found = exact or sorted(ends, key=len)[-1:] or sorted(starts, key=len)[-1:] or (["*"] if "*" in names else [])
    return found[0] if found else None


LABELS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3).map(".".join)
NAMES = st.one_of(LABELS, LABELS.map("*.{}".format), LABELS.map("{}.*".format), st.just("*"))


@given(
    st.lists(NAMES, max_size=12, unique=True),
    st.builds("{}{}".format, LABELS, st.sampled_from(["", ".", ":8080", ":9", ".a"])),
)
def test_lookups_find_what_a_scan_finds(names: list[str], host: str) -> None:
    made = Hosts([(VirtualHost(name, (name,)), name) for name in names], 8080)
    assert made.find(host) == scanned(names, host)
