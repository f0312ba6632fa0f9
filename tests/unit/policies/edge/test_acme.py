from __future__ import annotations

import pytest

from policies.edge.acme import TlsChallenge, wrong_name


@pytest.mark.parametrize("name", ["example.com", "a-b.example.com", "xn--bcher-kva.example", "localhost", "_a.b"])
def test_names_that_can_be_proved(name: str) -> None:
    assert wrong_name(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("*.example.com", "wildcard"),
        ("192.0.2.1", "IP address"),
        ("2001:db8::1", "IP address"),
        ("", "no"),
        ("a..b", "no"),
        ("-a.com", "no"),
        ("b\u00fccher.example", "no"),
        ("a b", "no"),
        ("x" * 64 + ".com", "no"),
        (".".join(["x" * 60] * 5), "no"),
    ],
)
def test_names_that_cannot(name: str, words: str) -> None:
    assert words in wrong_name(name)


def test_a_key_is_never_shown() -> None:
    assert "SECRET" not in repr(TlsChallenge("a.com", "chain", b"SECRET"))
