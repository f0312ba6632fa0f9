from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from policies.edge.proxy_protocol import (
    MAX_HEADER,
    ProxyHeader,
    _crc32c,
    forbid_proxy_header,
    parse_proxy_header,
    render_proxy_header,
)
from policies.errors import PreambleError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes((192, 0, 2, 1, 198, 51, 100, 9)) + struct.pack("!HH", 56324, 443)
SIX = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + struct.pack("!HH", 1, 65535)


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


FIRST = (("192.0.2.1", 56324), ("198.51.100.9", 443))
SECOND = (("2001:db8::1", 1), ("2001:db8::2", 65535))


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n", FIRST),
        (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 65535\r\n", SECOND),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", (("255.255.255.255", 65535),) * 2),
        (b"PROXY UNKNOWN\r\n", (None, None)),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", (None, None)),
        (binary(0x21, 0x11, FOUR), FIRST),
        (binary(0x21, 0x11, FOUR + tlv(0x02, b"db.example.com") + tlv(0x04, b"") + tlv(0xE0, b"own")), FIRST),
        (binary(0x21, 0x21, SIX), SECOND),
        (binary(0x21, 0x00, b""), (None, None)),
        (binary(0x21, 0x00, b"whatever stands here"), (None, None)),
        (binary(0x20, 0x00, b""), (None, None)),
        (binary(0x20, 0x11, FOUR), (None, None)),
        (binary(0x20, 0x31, bytes(216)), (None, None)),
    ],
)
def test_headers_of_the_specification_are_read(data: bytes, ends: tuple[object, object]) -> None:
    assert parse_proxy_header(data + b"GET / HTTP/1.1\r\n") == ProxyHeader(len(data), *ends)  # type: ignore[arg-type]
    for cut in range(len(data)):
        needed = parse_proxy_header(data[:cut])
        assert isinstance(needed, int)
        assert cut < needed <= len(data)


@pytest.mark.parametrize(
    ("sent", "source", "destination"),
    [
        ("50524f58592054435034203132372e302e302e31203132372e302e302e312033343934382032383930320d0a", 34948, 28902),
        ("0d0a0d0a000d0a515549540a2111000c7f0000017f000001e17a70e7", 57722, 28903),
        ("0d0a0d0a000d0a515549540a211100167f0000017f0000018b3470e803000422cde2a8050000", 35636, 28904),
    ],
)
def test_what_haproxy_sends_is_read(sent: str, source: int, destination: int) -> None:
    """HAProxy 2.6 with send-proxy, send-proxy-v2, and send-proxy-v2 with crc32c and unique-id, as it was heard."""
    data = bytes.fromhex(sent)
    ends = ("127.0.0.1", source), ("127.0.0.1", destination)
    assert parse_proxy_header(data + b"hello") == ProxyHeader(len(data), *ends)


def test_the_checksum_is_that_of_the_specification() -> None:
    body = bytes((127, 0, 0, 1, 127, 0, 0, 1)) + struct.pack("!HH", 1000, 2000)
    bare = binary(0x21, 0x11, body + tlv(0x03, bytes(4)))
    # RFC 3720, section B.4
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(bytes(range(32))) == 0x46DD794E
    good = binary(0x21, 0x11, body + tlv(0x03, _crc32c(bare).to_bytes(4, "big")))
    assert parse_proxy_header(good) == ProxyHeader(len(good), ("127.0.0.1", 1000), ("127.0.0.1", 2000))
    for at in (20, len(good) - 1):
        broken = bytearray(good)
        broken[at] ^= 1
        with pytest.raises(PreambleError, match="checksum"):
            parse_proxy_header(bytes(broken))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no_proxy_header"),
        (b"POST", "no_proxy_header"),
        (b"proxy TCP4 ", "no_proxy_header"),
        (b"\r\nGET", "no_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\n" + bytes(100), "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 \r\n", "bad_proxy_header"),
        (b"PROXY TCP4  192.0.2.1 198.51.100.9 56324 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.01 198.51.100.9 56324 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.256 198.51.100.9 56324 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 ::1 ::1 56324 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP6 192.0.2.1 198.51.100.9 56324 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 65536 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 0443 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.9 +1 443\r\n", "bad_proxy_header"),
        (b"PROXY UDP4 192.0.2.1 198.51.100.9 1 443\r\n", "bad_proxy_header"),
        (b"PROXY TCP4\r\n", "bad_proxy_header"),
        (b"PROXY UNKNOWNS\r\n", "bad_proxy_header"),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "bad_proxy_header"),  # 108 bytes
        (binary(0x11, 0x11, FOUR), "bad_proxy_header"),
        (binary(0x22, 0x11, FOUR), "bad_proxy_header"),
        (binary(0x21, 0x12, FOUR), "bad_proxy_header"),  # UDP
        (binary(0x21, 0x31, bytes(216)), "bad_proxy_header"),  # a Unix socket
        (binary(0x21, 0x41, FOUR), "bad_proxy_header"),
        (binary(0x21, 0x11, FOUR[:-1]), "bad_proxy_header"),
        (binary(0x21, 0x11, FOUR + b"\x02"), "bad_proxy_header"),
        (binary(0x21, 0x11, FOUR + b"\x02\x00\x05four"), "bad_proxy_header"),
        (binary(0x21, 0x11, FOUR + tlv(0x03, b"abc")), "bad_proxy_header"),
        (binary(0x21, 0x11, FOUR + bytes(MAX_HEADER)), "proxy_header_too_large"),
    ],
)
def test_what_is_no_header_is_refused_with_a_word(data: bytes, reason: str) -> None:
    with pytest.raises(PreambleError) as refused:
        parse_proxy_header(data)
    assert refused.value.reason == reason


def test_headers_are_written_as_the_specification_has_them() -> None:
    assert render_proxy_header(1, *FIRST) == b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n"
    assert render_proxy_header(1, *SECOND) == b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
    assert render_proxy_header(2, *FIRST) == binary(0x21, 0x11, FOUR)
    assert render_proxy_header(2, *SECOND) == binary(0x21, 0x21, SIX)
    assert render_proxy_header(2, *FIRST, "db") == binary(0x21, 0x11, FOUR + tlv(0x02, b"db"))
    mixed = parse_proxy_header(render_proxy_header(2, FIRST[0], SECOND[1]))
    assert isinstance(mixed, ProxyHeader)
    mapped = str(ip_address("::ffff:192.0.2.1"))  # Python writes it in one way or the other
    assert (mixed.source, mixed.destination) == ((mapped, 56324), SECOND[1])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", 1),
        (b"P", 2),
        (b"PROXY", 6),
        (b"PRO", 4),
        (b"PROP", None),
        (b"POST", None),
        (b"GET", None),
        (b"\x16\x03\x01", None),
        (SIGNATURE[:11], 12),
    ],
)
def test_what_does_not_begin_like_a_header_passes(data: bytes, found: int | None) -> None:
    assert forbid_proxy_header(data) == found


@pytest.mark.parametrize("data", [b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"x"])
def test_what_begins_like_one_does_not(data: bytes) -> None:
    with pytest.raises(PreambleError) as refused:
        forbid_proxy_header(data)
    assert refused.value.reason == "proxy_untrusted"
