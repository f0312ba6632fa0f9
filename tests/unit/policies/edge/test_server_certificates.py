from __future__ import annotations

import pytest

from harness.certificates import Authority
from policies.canonical import plain
from policies.edge.server_certificates import by_name, canonical_name, find, read_server_certificate
from policies.errors import BadServerCertificate

AUTHORITY = Authority()


def test_a_certificate_says_its_names_and_never_its_key() -> None:
    found = AUTHORITY.server("Web.Example.com", "*.ingress.consul.")
    assert found.names == ("web.example.com", "*.ingress.consul")
    assert b"PRIVATE" in found.key_pem
    assert "PRIVATE" not in repr(found)
    assert "PRIVATE" not in str(plain(found))


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "PRIVATE"])
def test_what_is_no_certificate_is_refused_by_its_source(text: str) -> None:
    with pytest.raises(BadServerCertificate, match="file web.pem"):
        read_server_certificate(text, b"", "file web.pem")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("a.example.com", "exact"),
        ("b.example.com", "wildcard"),
        ("c.b.example.com", None),  # a wildcard of a certificate stands for one label
        ("example.com", None),
        ("com", None),
        ("x.pinned.org", "pin"),
        ("y.x.pinned.org", "pin"),  # one of a service's hosts for any number
        ("z.deep.pinned.org", "deeper pin"),
        ("pinned.org", None),
        ("both.org", "pinned both"),
    ],
)
def test_the_closest_name_answers(name: str, answer: str | None) -> None:
    named = {"a.example.com": "exact", "*.example.com": "wildcard", "both.org": "named both"}
    pinned = {"*.pinned.org": "pin", "*.deep.pinned.org": "deeper pin", "both.org": "pinned both"}
    assert find(name, named, pinned) == answer


def test_certificates_of_one_name_stand_together_in_their_order() -> None:
    first, second = AUTHORITY.server("a.com", "b.com"), AUTHORITY.server("b.com")
    assert by_name([first, second]) == {"a.com": (first,), "b.com": (first, second)}


def test_names_are_compared_without_case_and_root() -> None:
    assert canonical_name("WEB.Example.COM.") == "web.example.com"
