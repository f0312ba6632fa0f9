from __future__ import annotations

import pytest

from policies.edge.wildcards import longest_suffix

PATTERNS = {"*.example.com": "wide", "*.shop.example.com": "narrow", "example.com": "exact", "*": "any"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.example.com", "wide"),
        ("a.b.example.com", "wide"),
        ("a.shop.example.com", "narrow"),
        ("shop.example.com", "wide"),
        ("example.com", None),
        ("badexample.com", None),
        ("com", None),
        ("", None),
    ],
)
def test_the_longest_suffix_before_a_label_wins(name: str, found: str | None) -> None:
    assert longest_suffix(name, PATTERNS) == found
