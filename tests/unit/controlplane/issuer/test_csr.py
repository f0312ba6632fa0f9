from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.issuer.csr import new_key, ordered_chain, private_pem, signing_request
from harness.certificates import Authority, spiffe
from policies.errors import BadLeaf


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


def test_roots_are_left_out_of_the_chain(authority: Authority) -> None:
    made = authority.leaf("web")
    assert ordered_chain([made.chain_pem, authority.pem, authority.pem]) == made.chain_pem


@pytest.mark.parametrize(
    "pems", [[], [""], ["garbage"], ["-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]]
)
def test_what_is_no_certificate_is_refused(pems: list[str]) -> None:
    with pytest.raises(BadLeaf, match="no (readable )?certificate"):
        ordered_chain(pems)


def test_a_chain_that_does_not_begin_with_the_signer_is_refused(authority: Authority, stranger: Authority) -> None:
    made = authority.leaf("web")
    with pytest.raises(BadLeaf, match="does not begin with who signed"):
        ordered_chain([made.chain_pem, stranger.pem])
