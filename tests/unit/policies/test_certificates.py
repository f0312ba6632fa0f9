"""Certificates written by hand, octet by octet; tests/property holds the reader against a library."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from policies.certificates import read_certificate


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
