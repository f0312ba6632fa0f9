from __future__ import annotations

from typing import Any

import pytest

from dataplane.hosts import Hosts
from policies.table import VirtualHost


def hosts(**names: str) -> Hosts:
    return Hosts([(VirtualHost(key, tuple(value.split())), key) for key, value in names.items()], 8080)  # type: ignore[misc]


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
    found: Any = hosts(exact="a.example", wide="*.example", narrow="*.wide.example", default="api.ingress.*").find(host)
    assert found == expected


def test_a_star_takes_the_rest() -> None:
    found: Any = hosts(exact="a.example", rest="*")
    assert (found.find("a.example"), found.find("b"), found.find("")) == ("exact", "rest", "rest")
