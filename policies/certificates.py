"""The few facts of an X.509 certificate that decide who a peer is, read from its DER.

OpenSSL has checked the signatures over these very bytes before anybody reads them here; what it lets through is a CA in
the place of a leaf, and several URIs. The reader takes DER alone, not the looser BER: what has a second spelling, is
cut short, goes on after its end or appears twice is unreadable, and unreadable is refused. The library `cryptography`
would do this too, for 10 MB in every sidecar; the tests hold this reader against it.
Source: RFC 5280, sections 4.1 and 4.2.1; X.690, sections 8 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_BOOLEAN, _INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_AFTER_THE_KEY = frozenset({0x81, 0x82, _EXTENSIONS})  # unique IDs of issuer and subject, which nobody uses, come first
_V3 = b"\x02"
_DNS, _URI = 0x82, 0x86
_NAMES = frozenset({0xA0, 0x81, _DNS, 0xA3, 0xA4, 0xA5, _URI, 0x87, 0x88})  # every kind of GeneralName
_TRUE = b"\xff"

_KEY_USAGE = bytes.fromhex("551d0f")  # 2.5.29.15
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")  # 2.5.29.17
_CONSTRAINTS = bytes.fromhex("551d13")  # 2.5.29.19
_PURPOSES = bytes.fromhex("551d25")  # 2.5.29.37
_TLS = frozenset({bytes.fromhex("2b06010505070301"), bytes.fromhex("2b06010505070302")})  # server, client
_SIGNS = 0x04 | 0x02  # keyCertSign and cRLSign in the first octet of a KeyUsage


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself."""

    serial: int
    not_before: datetime
    not_after: datetime
    uris: tuple[str, ...]
    signs: bool  # a CA, or somebody who may sign certificates or revocation lists
    for_tls: bool  # no purposes are named, or one of TLS is among them
    dns_names: tuple[str, ...] = ()


def read_certificate(der: bytes) -> Certificate:
    """Return what a certificate says. Raise ValueError for anything but the DER of one."""
    (outer,) = _all(der, _SEQUENCE)
    body, _, _ = _all(outer, _SEQUENCE, _SEQUENCE, _BITS)
    fields = _values(body)
    version = b""
    if fields and fields[0][0] == _VERSION:
        (version,) = _all(fields.pop(0)[1], _INTEGER)
    if [tag for tag, _ in fields[:6]] != [_INTEGER, *[_SEQUENCE] * 5]:
        raise ValueError("the certificate's fields are not those of X.509")
    serial, _, _, validity, _, _ = (content for _, content in fields[:6])
    extensions = _extensions(fields[6:], version)
    times, names = _values(validity), _alternative_names(extensions.get(_ALTERNATIVE_NAMES))
    if len(times) != 2:  # noqa: PLR2004 - from and until
        raise ValueError("the certificate's validity is not two times")
    return Certificate(
        serial=_integer(serial),
        not_before=_time(*times[0]),
        not_after=_time(*times[1]),
        uris=tuple(content.decode("ascii") for tag, content in names if tag == _URI),
        signs=_is_ca(extensions.get(_CONSTRAINTS)) or _may_sign(extensions.get(_KEY_USAGE)),
        for_tls=_for_tls(extensions.get(_PURPOSES)),
        dns_names=tuple(content.decode("ascii") for tag, content in names if tag == _DNS),
    )


# --- DER -----------------------------------------------------------------------------------------------------------


def _values(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of every value, one after the other until the end."""
    found, at = [], 0
    while at < len(data):
        tag, content, at = _value(data, at)
        found.append((tag, content))
    return found


def _value(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return tag and content of the value at a place, and the place after it."""
    if len(data) - at < 2 or data[at] & 0x1F == 0x1F:  # noqa: PLR2004 - a tag of one octet, and a length
        raise ValueError("a value is cut short, or its tag is none of X.509")
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:  # noqa: PLR2004 - the length of the length
        size = length & 0x7F
        octets = data[start : start + size]
        length, start = int.from_bytes(octets, "big"), start + size
        if not 1 <= size <= 4 or len(octets) != size or length < 0x80 or octets[0] == 0:  # noqa: PLR2004
            raise ValueError("a length is not the shortest one")
    if start + length > len(data):
        raise ValueError("a value is longer than what holds it")
    return tag, data[start : start + length], start + length


def _all(data: bytes, *tags: int) -> list[bytes]:
    """Return the contents of exactly these values."""
    values = _values(data)
    if [tag for tag, _ in values] != [*tags]:
        raise ValueError("a value is not of its type")
    return [content for _, content in values]


def _integer(content: bytes) -> int:
    if not content or (len(content) > 1 and content[:1] in b"\x00\xff" and (content[0] ^ content[1]) < 0x80):  # noqa: PLR2004
        raise ValueError("an integer is not the shortest one")
    return int.from_bytes(content, "big", signed=True)


def _time(tag: int, content: bytes) -> datetime:
    text = content[:-1]
    lengths = {_UTC_TIME: 12, _GENERALIZED_TIME: 14}
    if len(text) != lengths.get(tag) or content[-1:] != b"Z" or not text.isdigit():
        raise ValueError("a time is not written as X.509 has it")
    if tag == _UTC_TIME:
        text = (b"20" if text < b"5" else b"19") + text
    year, rest = int(text[:4]), text[4:]
    month, day, hour, minute, second = (int(rest[place : place + 2]) for place in range(0, 10, 2))
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


# --- extensions ----------------------------------------------------------------------------------------------------


def _extensions(fields: list[tuple[int, bytes]], version: bytes) -> Mapping[bytes, bytes]:
    """Return the extensions by OID."""
    tags = [tag for tag, _ in fields]
    if tags != sorted(set(tags)) or not _AFTER_THE_KEY.issuperset(tags):
        raise ValueError("what follows the key is not what X.509 has there")
    if _EXTENSIONS not in tags:
        return {}
    if version != _V3:
        raise ValueError("only version 3 has extensions")
    (listed,) = _all(fields[-1][1], _SEQUENCE)
    found: dict[bytes, bytes] = {}
    for tag, extension in _values(listed):
        parts = _values(extension)
        kinds = [kind for kind, _ in parts]
        if tag != _SEQUENCE or kinds not in ([_OID, _OCTETS], [_OID, _BOOLEAN, _OCTETS]):
            raise ValueError("an extension is not one")
        if parts[0][1] in found or (len(parts) == 3 and parts[1][1] != _TRUE):  # noqa: PLR2004 - with `critical`
            raise ValueError("an extension appears twice, or spells out that it is not critical")
        found[parts[0][1]] = parts[-1][1]
    return found


def _alternative_names(extension: bytes | None) -> list[tuple[int, bytes]]:
    if extension is None:
        return []
    (listed,) = _all(extension, _SEQUENCE)
    names = _values(listed)
    if any(tag not in _NAMES for tag, _ in names):
        raise ValueError("an alternative name is of no kind")
    return names


def _is_ca(extension: bytes | None) -> bool:
    if extension is None:
        return False
    (constraints,) = _all(extension, _SEQUENCE)
    parts = _values(constraints)
    if [tag for tag, _ in parts] not in ([], [_BOOLEAN], [_BOOLEAN, _INTEGER], [_INTEGER]):
        raise ValueError("the basic constraints are none")
    if not parts or parts[0][0] != _BOOLEAN:
        return False
    if parts[0][1] != _TRUE:
        raise ValueError("the basic constraints spell out that this is no CA")
    return True


def _may_sign(extension: bytes | None) -> bool:
    if extension is None:
        return False
    (bits,) = _all(extension, _BITS)
    unused = bits[0] if bits else 8
    if unused > 7 or (unused and (len(bits) == 1 or bits[-1] & ((1 << unused) - 1))):  # noqa: PLR2004 - of 8 bits
        raise ValueError("the key's usage is no string of bits")
    return len(bits) > 1 and bits[1] & _SIGNS != 0


def _for_tls(extension: bytes | None) -> bool:
    if extension is None:
        return True
    (listed,) = _all(extension, _SEQUENCE)
    purposes = _values(listed)
    if not purposes or any(tag != _OID for tag, _ in purposes):
        raise ValueError("the purposes are none")
    return not _TLS.isdisjoint(purpose for _, purpose in purposes)
