from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.issuer.csr import new_key, ordered_chain, private_pem, signing_request
from controlplane.issuer.leaf import checked_leaf
from harness.certificates import Authority, Mistakes, spiffe
from policies.errors import BadLeaf

NOW = datetime.now(UTC)


def test_a_request_has_an_empty_subject_and_exactly_our_uri() -> None:
    request = x509.load_pem_x509_csr(signing_request(new_key(), spiffe("web")).encode())
    assert list(request.subject) == []
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(spiffe("web"))]
    assert len(list(names.value)) == 1
    assert isinstance(request.public_key(), ec.EllipticCurvePublicKey)
    assert request.is_signature_valid


def test_keys_are_new_each_time() -> None:
    assert private_pem(new_key()) != private_pem(new_key())


def test_a_good_answer_becomes_a_leaf_without_the_root(authority: Authority) -> None:
    made = authority.leaf("web")
    leaf = checked_leaf(spiffe("web"), ordered_chain([made.chain_pem, authority.pem, authority.pem]), made.key_pem, NOW)
    assert leaf.chain_pem.count("BEGIN CERTIFICATE") == 1
    assert leaf.serial == made.serial
    assert leaf.not_before < NOW < leaf.not_after


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
        checked_leaf(spiffe("web"), ordered_chain([made.chain_pem, authority.pem]), made.key_pem, NOW)


def test_a_certificate_for_another_key_is_refused(authority: Authority) -> None:
    with pytest.raises(BadLeaf, match="another key"):
        checked_leaf(spiffe("web"), authority.leaf("web").chain_pem, private_pem(new_key()), NOW)


def test_a_key_that_is_none_is_refused(authority: Authority) -> None:
    with pytest.raises(BadLeaf, match="key is of no use"):
        checked_leaf(spiffe("web"), authority.leaf("web").chain_pem, b"no key", NOW)


@pytest.mark.parametrize(
    "pems", [[], [""], ["garbage"], ["-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]]
)
def test_what_is_no_certificate_is_refused(pems: list[str]) -> None:
    with pytest.raises(BadLeaf, match="no (readable )?certificate"):
        checked_leaf(spiffe("web"), "".join(pems), private_pem(new_key()), NOW)
    with pytest.raises(BadLeaf, match="no (readable )?certificate"):
        ordered_chain(pems)


def test_a_chain_that_does_not_begin_with_the_signer_is_refused(authority: Authority, stranger: Authority) -> None:
    made = authority.leaf("web")
    with pytest.raises(BadLeaf, match="does not begin with who signed"):
        ordered_chain([made.chain_pem, stranger.pem])
