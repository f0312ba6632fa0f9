from __future__ import annotations

import pytest

from policies.paths import PathNormalization, must_redirect, normalize

PLAIN = PathNormalization()


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/adm", "/adm"),
        ("/x/../adm", "/adm"),
        ("/x/./adm", "/x/adm"),
        ("/../../adm", "/adm"),
        ("/%2e%2e/adm", "/adm"),
        ("/%2E/adm", "/adm"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/x\\adm", "/x/adm"),
        ("/%41dm", "/Adm"),
        ("/%61dm", "/adm"),
        ("/a|b", "/a%7Cb"),
        ('/{}^"<>', "/%7B%7D%5E%22%3C%3E"),
        ("//adm", "//adm"),
        ("/ADM", "/ADM"),
        ("/x//../adm", "/x/adm"),
        ("/..%2fadm", "/..%2fadm"),
        ("/adm;x=1", "/adm;x=1"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%zz", "/a%zz"),
        ("/[::1]", "/[::1]"),
        ("/caf\xe9", "/caf%E9"),
    ],
)
def test_a_path_is_brought_to_one_form_as_envoy_does(path: str, normal: str) -> None:
    assert normalize(path, PLAIN) == normal


@pytest.mark.parametrize("path", ["/a%00b", "/a#b", "/a\x00b", "adm", ""])
def test_a_path_that_cannot_be_judged_is_refused(path: str) -> None:
    assert normalize(path, PLAIN) is None


def test_without_normalisation_nothing_is_touched() -> None:
    off = PathNormalization(enabled=False)
    assert normalize("/x/../a%00b", off) == "/x/../a%00b"
    assert not must_redirect("/a%2fb", PathNormalization(enabled=False, escaped_slashes="UNESCAPE_AND_REDIRECT"))


def test_slashes_are_merged_when_the_mesh_says_so() -> None:
    assert normalize("//a///b", PathNormalization(merge_slashes=True)) == "/a/b"


@pytest.mark.parametrize(
    ("action", "normal", "redirect"),
    [
        ("KEEP_UNCHANGED", "/a%2Fb", False),
        ("REJECT_REQUEST", None, False),
        ("UNESCAPE_AND_FORWARD", "/a/b", False),
        ("UNESCAPE_AND_REDIRECT", "/a/b", True),
    ],
)
def test_escaped_slashes_follow_the_mesh_entry(action: str, normal: str | None, redirect: bool) -> None:  # noqa: FBT001
    rules = PathNormalization(escaped_slashes=action)
    assert normalize("/a%2Fb", rules) == normal
    assert must_redirect("/a%2Fb", rules) is redirect
    assert not must_redirect("/ab", rules)


def test_an_escaped_backslash_counts_as_an_escaped_slash() -> None:
    assert normalize("/a%5cb", PathNormalization(escaped_slashes="UNESCAPE_AND_FORWARD")) == "/a/b"
    assert normalize("/a%5Cb", PathNormalization(escaped_slashes="REJECT_REQUEST")) is None
