from __future__ import annotations

import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dataplane.tls import PeerCheck, build_contexts, openssl_name
from harness.certificates import TRUST_DOMAIN, Authority, Mistakes, spiffe
from policies.errors import BadLeaf, IdentityError
from policies.mesh import TlsLimits


def der(authority: Authority, mistakes: Mistakes = Mistakes()) -> bytes:
    certificate = x509.load_pem_x509_certificate(authority.leaf("web", mistakes).chain_pem.encode())
    return certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("iana", "openssl"),
    [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"),
        ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"),
    ],
)
def test_suites_are_known_to_openssl_by_another_name(iana: str, openssl: str) -> None:
    assert openssl_name(iana) == openssl
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(openssl)


def test_limits_of_the_mesh_are_kept(authority: Authority) -> None:
    limits = TlsLimits("TLSv1_2", "TLSv1_2", ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",))
    contexts = build_contexts(authority.leaf("web"), authority.roots(), limits, limits)
    assert contexts.server.maximum_version is ssl.TLSVersion.TLSv1_2
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in {cipher["name"] for cipher in contexts.server.get_ciphers()}
    assert contexts.server.num_tickets == 0


def test_a_suite_that_openssl_does_not_know_is_a_bad_leaf_error_and_not_a_crash(authority: Authority) -> None:
    with pytest.raises(BadLeaf):
        build_contexts(
            authority.leaf("web"), authority.roots(), TlsLimits("", "TLSv1_2", ("TLS_NO_SUCH",)), TlsLimits()
        )


def test_limits_that_exclude_each_other_are_refused_before_they_are_in_force(authority: Authority) -> None:
    with pytest.raises(BadLeaf, match="cannot be used"):
        build_contexts(authority.leaf("web"), authority.roots(), TlsLimits("TLSv1_3"), TlsLimits("", "TLSv1_2"))


def test_a_peer_is_remembered_by_its_certificate(authority: Authority) -> None:
    check = PeerCheck(TRUST_DOMAIN)
    certificate = der(authority)
    assert check(certificate).spiffe_id == spiffe("web")
    assert check(certificate) is check(certificate)


def test_no_certificate_proves_nothing() -> None:
    for nothing in (None, b""):
        with pytest.raises(IdentityError) as caught:
            PeerCheck(TRUST_DOMAIN)(nothing)
        assert caught.value.reason == "no_certificate"


def test_memory_of_peers_is_bounded(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.tls._REMEMBERED_PEERS", 2)
    check = PeerCheck(TRUST_DOMAIN)
    for _ in range(5):
        check(der(authority))
    assert len(check._known) <= 2
