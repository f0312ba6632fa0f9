from __future__ import annotations

import pytest

from policies.prefixes import Prefixes

SOME = Prefixes({text: text.upper() for text in ("/a", "/a/b", "/a/b/c", "/a/bb", "/b", "/ab")})


def chain(text: str) -> list[str]:
    found, node = [], SOME.longest(text)
    while node is not None:
        found.append(node.value)
        node = node.above
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b/c/d", ["/A/B/C", "/A/B", "/A"]),
        ("/a/b/d", ["/A/B", "/A"]),
        ("/a/bb", ["/A/BB", "/A/B", "/A"]),
        ("/a/b", ["/A/B", "/A"]),
        ("/az", ["/A"]),
        ("/b", ["/B"]),
        ("/", []),
        ("", []),
        ("/z", []),
    ],
)
def test_the_longest_prefix_leads_to_all_others(text: str, expected: list[str]) -> None:
    assert chain(text) == expected


def test_the_empty_prefix_begins_everything() -> None:
    node = Prefixes({"": 1, "x": 2}).longest("abc")
    assert node is not None
    assert (node.prefix, node.value, node.above) == ("", 1, None)


def test_no_prefixes_are_false() -> None:
    assert not Prefixes({})
    assert Prefixes({"a": 1})
