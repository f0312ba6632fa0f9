"""Our reader of certificates against `cryptography`: on good ones of all shapes, and on the same with bytes changed."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from policies.certificates import Certificate, read_certificate

KEY = ec.derive_private_key(7, ec.SECP256R1())  # not a random one: what fails must fail again
TLS = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
PURPOSES = [*TLS, ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
Extension = TypeVar("Extension", bound=x509.ExtensionType)

texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=300)
names = st.lists(
    st.one_of(
        st.builds(x509.UniformResourceIdentifier, texts),
        st.builds(x509.DNSName, texts),
        st.just(x509.DirectoryName(x509.Name([]))),
        st.just(x509.RegisteredID(NameOID.COMMON_NAME)),
        st.just(x509.OtherName(NameOID.COMMON_NAME, b"\x86\x01a")),
    ),
    max_size=4,
)
constraints = st.one_of(
    st.just(x509.BasicConstraints(ca=False, path_length=None)),
    st.builds(x509.BasicConstraints, st.just(True), st.one_of(st.none(), st.integers(0, 300))),
)
usages = st.builds(
    lambda flags: x509.KeyUsage(*flags, *(flags[4] and flag for flag in flags[:2])),
    st.lists(st.booleans(), min_size=7, max_size=7),
)
dates = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)).map(lambda date: date.replace(microsecond=0))  # noqa: DTZ001


@st.composite
def certificates(draw: st.DrawFn) -> bytes:
    first, last = sorted((draw(dates), draw(dates)))
    builder = (
        x509.CertificateBuilder(not_valid_before=first, not_valid_after=last)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")] if draw(st.booleans()) else []))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(KEY.public_key())
        .serial_number(draw(st.integers(1, 2**158)))
    )
    alternatives = draw(names)
    drawn = [
        x509.SubjectAlternativeName(alternatives) if alternatives else None,
        draw(st.one_of(st.none(), constraints)),
        draw(st.one_of(st.none(), usages)),
        draw(st.one_of(st.none(), st.lists(st.sampled_from(PURPOSES), min_size=1).map(x509.ExtendedKeyUsage))),
    ]
    for extension in draw(st.permutations([one for one in drawn if one is not None])):
        builder = builder.add_extension(extension, critical=draw(st.booleans()))
    return builder.sign(KEY, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(serialization.Encoding.DER)


def oracle(der: bytes) -> Certificate:
    read = x509.load_der_x509_certificate(der)

    def extension(kind: type[Extension]) -> Extension | None:
        try:
            return read.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None

    alternatives, basic = extension(x509.SubjectAlternativeName), extension(x509.BasicConstraints)
    usage, purposes = extension(x509.KeyUsage), extension(x509.ExtendedKeyUsage)
    return Certificate(
        serial=read.serial_number,
        not_before=read.not_valid_before_utc,
        not_after=read.not_valid_after_utc,
        uris=tuple(alternatives.get_values_for_type(x509.UniformResourceIdentifier)) if alternatives else (),
        signs=bool((basic and basic.ca) or (usage and (usage.key_cert_sign or usage.crl_sign))),
        for_tls=purposes is None or not TLS.isdisjoint(purposes),
        dns_names=tuple(alternatives.get_values_for_type(x509.DNSName)) if alternatives else (),
    )


@given(certificates())
def test_a_certificate_is_read_as_the_library_reads_it(der: bytes) -> None:
    assert read_certificate(der) == oracle(der)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(certificates(), st.data())
def test_changed_bytes_are_refused_or_read_as_the_library_reads_them(der: bytes, data: st.DataObject) -> None:
    changed = bytearray(der)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=1))
    try:
        expected = oracle(bytes(changed))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # The library also reads what decides nothing here. What it refuses, OpenSSL or one of our own rules may take.
        return
    assert read_certificate(bytes(changed)) == expected


@given(certificates(), st.integers(0), st.binary(min_size=1, max_size=3))
def test_what_is_cut_short_or_goes_on_is_refused(der: bytes, length: int, more: bytes) -> None:
    for wrong in (der[: length % len(der)], der + more):
        with pytest.raises(ValueError, match=r"."):
            read_certificate(wrong)
