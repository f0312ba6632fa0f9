from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from harness.certificates import TRUST_DOMAIN, Authority, Mistakes, spiffe
from policies.errors import IdentityError
from policies.identity import SpiffeId, parse_service_name, verify_peer


def now() -> datetime:
    """Of the test, not of its collection: in a long run that is minutes before its leaf is valid."""
    return datetime.now(UTC)


def der(authority: Authority, mistakes: Mistakes, service: str = "web") -> bytes:
    certificate = x509.load_pem_x509_certificate(authority.leaf(service, mistakes).chain_pem.encode())
    return certificate.public_bytes(serialization.Encoding.DER)


def reason(certificate: bytes) -> str:
    with pytest.raises(IdentityError) as caught:
        verify_peer(certificate, TRUST_DOMAIN, now())
    return caught.value.reason


def test_a_spiffe_id_is_written_as_consul_writes_it() -> None:
    assert str(SpiffeId("abc.consul", "dc1", "web")) == "spiffe://abc.consul/ns/default/dc/dc1/svc/web"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/web", SpiffeId("abc.consul", "dc1", "web")),
        ("SPIFFE://ABC.Consul/ns/default/dc/dc1/svc/Web", SpiffeId("abc.consul", "dc1", "Web")),
        ("spiffe://abc.consul/ap/default/ns/default/dc/dc1/svc/web", SpiffeId("abc.consul", "dc1", "web")),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/a%2Bb", SpiffeId("abc.consul", "dc1", "a+b")),
    ],
)
def test_ids_of_services_are_understood(uri: str, expected: SpiffeId) -> None:
    assert SpiffeId.parse(uri) == expected
    assert SpiffeId.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("https://abc.consul/ns/default/dc/dc1/svc/web", "not_spiffe"),
        ("spiffe://abc.consul:443/ns/default/dc/dc1/svc/web", "not_spiffe"),
        ("spiffe://user@abc.consul/ns/default/dc/dc1/svc/web", "not_spiffe"),
        ("spiffe:///ns/default/dc/dc1/svc/web", "not_spiffe"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/web?x=1", "not_spiffe"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/web#x", "not_spiffe"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/" + "w" * 2048, "not_spiffe"),
        ("spiffe://abc.consul", "not_a_service"),
        ("spiffe://abc.consul/agent/client/dc/dc1/id/n1", "not_a_service"),
        ("spiffe://abc.consul/gateway/mesh/dc/dc1", "not_a_service"),
        ("spiffe://abc.consul/ns/other/dc/dc1/svc/web", "not_a_service"),
        ("spiffe://abc.consul/ap/other/ns/default/dc/dc1/svc/web", "not_a_service"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/web/", "not_a_service"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/%2e%2e", "not_a_service"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/a%2fb", "not_a_service"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/a%00b", "not_a_service"),
        ("spiffe://abc.consul/ns/default/dc/dc1/svc/%ff", "not_a_service"),
    ],
)
def test_what_names_no_service_of_this_mesh_is_refused(uri: str, word: str) -> None:
    with pytest.raises(IdentityError) as caught:
        SpiffeId.parse(uri)
    assert caught.value.reason == word


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a\\b", "a?b", "a#b", "a\x00b", "a\x7fb"])
def test_names_that_cannot_stand_in_a_path_are_refused(name: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_service_name(name)
    assert caught.value.reason == "bad_name"


def test_a_good_leaf_proves_its_service_until_it_ends(authority: Authority) -> None:
    peer = verify_peer(der(authority, Mistakes()), TRUST_DOMAIN.upper(), now())
    assert peer.spiffe_id == spiffe("web")
    assert timedelta(minutes=59) < peer.not_after - now() <= timedelta(minutes=61)


@pytest.mark.parametrize(
    ("mistakes", "word"),
    [
        (Mistakes(uris=()), "no_san"),
        (Mistakes(uris=(), dns=("web.example.com",)), "no_san"),
        (Mistakes(uris=(str(spiffe("web")), str(spiffe("api")))), "two_uris"),
        (Mistakes(uris=("https://web",)), "not_spiffe"),
        (Mistakes(uris=(f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/n1",)), "not_a_service"),
        (Mistakes(uris=("spiffe://other.consul/ns/default/dc/dc1/svc/web",)), "wrong_trust_domain"),
        (Mistakes(ca=True), "ca_certificate"),
        (Mistakes(starts=timedelta(minutes=5)), "not_yet_valid"),
        (Mistakes(starts=-timedelta(hours=2), ends=-timedelta(hours=1)), "expired"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused_for_its_reason(
    authority: Authority, mistakes: Mistakes, word: str
) -> None:
    assert reason(der(authority, mistakes)) == word


def test_bytes_that_are_no_certificate_are_refused() -> None:
    assert reason(b"\x30\x03abc") == "unreadable"


def test_a_dns_name_beside_the_uri_does_no_harm(authority: Authority) -> None:
    assert verify_peer(der(authority, Mistakes(dns=("web.svc",))), TRUST_DOMAIN, now()).spiffe_id == spiffe("web")


def test_either_purpose_of_tls_will_do(authority: Authority) -> None:
    assert verify_peer(der(authority, Mistakes(client_only=True)), TRUST_DOMAIN, now())
    assert verify_peer(der(authority, Mistakes(server_only=True)), TRUST_DOMAIN, now())


def bare(purposes: Sequence[x509.ObjectIdentifier], *, usage: bool) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe("web")))]), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if usage:
        flags = dict.fromkeys(
            (
                *("digital_signature", "key_encipherment", "data_encipherment", "key_agreement"),
                *("key_cert_sign", "content_commitment", "encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(crl_sign=True, **flags), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_a_certificate_for_another_purpose_is_refused() -> None:
    assert reason(bare([ExtendedKeyUsageOID.CODE_SIGNING], usage=False)) == "wrong_usage"


def test_who_may_sign_revocation_lists_is_no_leaf() -> None:
    assert reason(bare([], usage=True)) == "ca_certificate"


def test_a_certificate_that_says_nothing_of_its_purpose_will_do() -> None:
    assert verify_peer(bare([], usage=False), TRUST_DOMAIN, now()).spiffe_id == spiffe("web")


def test_a_leaf_never_shows_its_key(authority: Authority) -> None:
    leaf = authority.leaf("web")
    assert b"PRIVATE KEY" in leaf.key_pem
    assert "PRIVATE" not in repr(leaf)
