from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.issuer.csr import new_key, private_pem
from controlplane.issuer.leaf import checked_leaf
from harness.certificates import Authority, Mistakes, spiffe
from policies.errors import BadLeaf


def now() -> datetime:
    """Of the test, not of its collection: in a long run that is minutes before its leaf is valid."""
    return datetime.now(UTC)


def test_a_good_answer_becomes_a_leaf_with_the_chain_as_it_came(authority: Authority) -> None:
    made = authority.leaf("web")
    chain = f"subject=web\n{made.chain_pem}{authority.pem}"
    leaf = checked_leaf(spiffe("web"), chain, made.key_pem, now())
    assert leaf.chain_pem == chain
    assert leaf.key_pem == made.key_pem
    assert leaf.serial == made.serial
    assert leaf.not_before < now() < leaf.not_after


@pytest.mark.parametrize(
    ("mistakes", "message"),
    [
        (Mistakes(uris=(str(spiffe("db")),)), "is for .*svc/db, asked for was .*svc/web"),
        (Mistakes(uris=()), "no leaf of ours"),
        (Mistakes(uris=(str(spiffe("web")), str(spiffe("web")))), "names 2 URIs"),
        (Mistakes(ca=True), "may sign others"),
        (Mistakes(starts=-timedelta(hours=2), ends=-timedelta(hours=1)), "ended at"),
        (Mistakes(starts=timedelta(hours=1), ends=timedelta(hours=2)), "starts at"),
    ],
)
def test_what_was_not_asked_for_is_refused(authority: Authority, mistakes: Mistakes, message: str) -> None:
    made = authority.leaf("web", mistakes)
    with pytest.raises(BadLeaf, match=message):
        checked_leaf(spiffe("web"), made.chain_pem, made.key_pem, now())


def test_a_certificate_for_another_key_is_refused(authority: Authority) -> None:
    with pytest.raises(BadLeaf, match="another key"):
        checked_leaf(spiffe("web"), authority.leaf("web").chain_pem, private_pem(new_key()), now())


def test_a_key_that_is_none_is_refused(authority: Authority) -> None:
    with pytest.raises(BadLeaf, match="key is of no use"):
        checked_leaf(spiffe("web"), authority.leaf("web").chain_pem, b"no key", now())


@pytest.mark.parametrize("pem", ["", "garbage", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(pem: str) -> None:
    with pytest.raises(BadLeaf, match="no (readable )?certificate"):
        checked_leaf(spiffe("web"), pem, private_pem(new_key()), now())


def test_a_chain_that_goes_on_with_garbage_is_refused(authority: Authority) -> None:
    made = authority.leaf("web")
    broken = authority.pem.replace("M", "?", 3)
    with pytest.raises(BadLeaf, match="is of no use"):
        checked_leaf(spiffe("web"), made.chain_pem + broken, made.key_pem, now())
