"""Our reader of certificates against `cryptography`: on good ones of all shapes, and on the same with bytes changed."""

from __future__ import annotations

from datetime import UTC, datetime
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
    lambda flags: x509.KeyUsage(*flags, encipher_only=flags[4] and flags[0], decipher_only=flags[4] and flags[1]),
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


# --- by hand -------------------------------------------------------------------------------------------------------


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    octets = length.to_bytes((length.bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (octets if length < 128 else bytes([0x80 | len(octets)]) + octets) + content


OID = {"names": "551d11", "basic": "551d13", "usage": "551d0f", "purposes": "551d25"}
TIMES = tlv(0x30, tlv(0x17, b"240101000000Z"), tlv(0x18, b"20500101000000Z"))
EMPTY = tlv(0x30)


def extension(name: str, value: bytes, *between: bytes) -> bytes:
    return tlv(0x30, tlv(0x06, bytes.fromhex(OID[name])), *between, tlv(0x04, value))


def certificate(
    *extensions: bytes,
    version: bytes = tlv(0xA0, tlv(2, b"\x02")),
    serial: bytes = b"\x01",
    times: bytes = TIMES,
    more: bytes = b"",
) -> bytes:
    listed = tlv(0xA3, tlv(0x30, *extensions)) if extensions else b""
    body = tlv(0x30, version, tlv(2, serial), EMPTY, EMPTY, times, EMPTY, EMPTY, more, listed)
    return tlv(0x30, body, EMPTY, tlv(3, b"\x00"))


def test_the_plainest_certificate_is_read() -> None:
    found = read_certificate(certificate(extension("names", tlv(0x30, tlv(0x86, b"spiffe://a/b")))))
    assert found.uris == ("spiffe://a/b",)
    assert (found.not_before, found.not_after) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC))
    assert (found.signs, found.for_tls) == (False, True)
    assert read_certificate(certificate(version=b"")).uris == ()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30\x80\x00\x00", id="a length that is told by an end"),
        pytest.param(b"\x30\x81\x00", id="a length in two octets for one"),
        pytest.param(b"\x3f\x1f\x00", id="a tag of several octets"),
        pytest.param(certificate(serial=b"\x00\x01"), id="a serial with a zero in front"),
        pytest.param(certificate(serial=b""), id="no serial"),
        pytest.param(certificate(times=tlv(0x30, tlv(0x17, b"240101000000Z"))), id="one time"),
        pytest.param(certificate(times=tlv(0x30, *[tlv(0x17, b"2401010000Z")] * 2)), id="no seconds"),
        pytest.param(certificate(times=tlv(0x30, *[tlv(0x17, b"240101000000+0100")] * 2)), id="a zone"),
        pytest.param(certificate(times=tlv(0x30, *[tlv(0x17, b"240230000000Z")] * 2)), id="a day that is none"),
        pytest.param(certificate(extension("names", EMPTY), version=b""), id="extensions of version 1"),
        pytest.param(certificate(more=tlv(0x84)), id="a field that X.509 has not"),
        pytest.param(certificate(more=tlv(0x81) * 2), id="a field twice"),
        pytest.param(certificate(*[extension("names", EMPTY)] * 2), id="an extension twice"),
        pytest.param(certificate(extension("names", EMPTY, tlv(1, b"\x00"))), id="not critical, spelled out"),
        pytest.param(certificate(extension("names", tlv(0x30, tlv(0x8F)))), id="a name of no kind"),
        pytest.param(certificate(extension("names", tlv(0x30, tlv(0x86, b"\xe9")))), id="a URI beyond ASCII"),
        pytest.param(certificate(extension("names", EMPTY + EMPTY)), id="two lists of names"),
        pytest.param(certificate(extension("basic", tlv(0x30, tlv(1, b"\x01")))), id="a truth that is not ff"),
        pytest.param(certificate(extension("basic", tlv(0x30, tlv(4)))), id="constraints of another type"),
        pytest.param(certificate(extension("usage", tlv(3))), id="no bits at all"),
        pytest.param(certificate(extension("usage", tlv(3, b"\x08\x00"))), id="eight unused bits"),
        pytest.param(certificate(extension("usage", tlv(3, b"\x01\x81"))), id="an unused bit that is set"),
        pytest.param(certificate(extension("purposes", EMPTY)), id="no purpose"),
        pytest.param(certificate(extension("purposes", tlv(0x30, tlv(4)))), id="a purpose of another type"),
    ],
)
def test_what_is_not_der_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_certificate(wrong)
