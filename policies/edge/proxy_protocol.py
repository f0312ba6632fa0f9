"""The PROXY protocol: what a load balancer says in front of a connection about whom it is for.

Read strictly, since whoever is believed here is believed about addresses: of version 1 only TCP4, TCP6 and UNKNOWN, of
version 2 only streams over IP, UNSPEC and LOCAL, with sound TLVs and checksum.
Source: HAProxy's proxy-protocol.txt, versions 1 and 2 of 2020/03/05.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from policies.errors import PreambleError

MAX_HEADER = 4096  # bytes; an IPv6 header without TLVs has 52, one with a client certificate's names some hundreds
Address = tuple[str, int]

_V1 = b"PROXY "
_V1_MAX = 107  # bytes with the line's end
_V1_MIN = len(b"PROXY UNKNOWN\r\n")
_V1_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?")
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = 16  # bytes: signature, version and command, family, length
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESSES = {_UNSPEC: "", _TCP4: "!4s4sHH", _TCP6: "!16s16sHH"}
_AUTHORITY, _CRC32C = 0x02, 0x03
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """`size` in bytes. `source` and `destination` None: the balancer speaks for itself, or does not know."""

    size: int
    source: Address | None = None
    destination: Address | None = None


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """What the YAML says. On `ports` those of `accept_from` must send a header; `send_to` are services, by name.

    `version` is that of the headers sent.
    """

    accept_from: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    ports: tuple[int, ...] = ()
    send_to: tuple[str, ...] = ()
    version: int = 2


NO_PROXY_PROTOCOL = ProxyProtocol()


def forbid_proxy_header(data: bytes) -> int | None:
    """Return None when a stream does not begin with a header, or how many bytes there must be to know.

    Raise PreambleError with reason `proxy_untrusted` when it does.
    """
    for beginning in (_V1, _V2):
        if data.startswith(beginning):
            raise PreambleError("proxy_untrusted", "an address that is not trusted sends a PROXY header")
        if beginning.startswith(data):
            return len(data) + 1
    return None


def parse_proxy_header(data: bytes) -> ProxyHeader | int:
    """Return the header that a stream begins with, or how many bytes of it there must be to know more.

    Raise PreambleError with reason `no_proxy_header`, `bad_proxy_header` or `proxy_header_too_large`.
    """
    if data.startswith(_V1):
        return _parse_line(data)
    if data.startswith(_V2):
        return _parse_binary(data)
    if _V1.startswith(data):
        return _V1_MIN
    if _V2.startswith(data):
        return _V2_FIXED
    raise PreambleError("no_proxy_header", "an address that must send a PROXY header begins with something else")


def _bad(why: str) -> PreambleError:
    return PreambleError("bad_proxy_header", f"the PROXY header cannot be read: {why}")


# --- version 1 -----------------------------------------------------------------------------------------------------


def _parse_line(data: bytes) -> ProxyHeader | int:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise _bad(f"no line ends within {_V1_MAX} bytes")
        return max(len(data) + 1, _V1_MIN)
    line = data[:end]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(end + 2)
    found = _V1_LINE.fullmatch(line)
    if found is None:
        raise _bad("the line is not one of version 1")
    family, source, destination, source_port, destination_port = found.groups()
    kind = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        addresses = [str(kind(text.decode())) for text in (source, destination)]
    except ValueError as error:
        raise _bad(str(error)) from error
    ports = int(source_port), int(destination_port)
    if max(ports) > _MAX_PORT:
        raise _bad("a port is none")
    return ProxyHeader(end + 2, (addresses[0], ports[0]), (addresses[1], ports[1]))


# --- version 2 -----------------------------------------------------------------------------------------------------


def _parse_binary(data: bytes) -> ProxyHeader | int:
    if len(data) < _V2_FIXED:
        return _V2_FIXED
    command, family, length = struct.unpack_from("!BBH", data, len(_V2))
    size = _V2_FIXED + int(length)
    if command not in {_LOCAL, _PROXY}:
        raise _bad(f"{command:#04x} is no version and command of version 2")
    if size > MAX_HEADER:
        raise PreambleError("proxy_header_too_large", f"the PROXY header has {size} bytes, more than {MAX_HEADER}")
    if len(data) < size:
        return size
    header = data[:size]
    if command == _LOCAL:  # nothing but the checksum concerns us
        _check_tlvs(header, _V2_FIXED + struct.calcsize(_ADDRESSES.get(family, "")), lenient=True)
        return ProxyHeader(size)
    if family not in _ADDRESSES:
        raise _bad(f"{family:#04x} is no family and protocol of TCP over IP")
    addresses = _ADDRESSES[family]
    if length < struct.calcsize(addresses):
        raise _bad("it is too short for its addresses")
    _check_tlvs(header, _V2_FIXED + struct.calcsize(addresses), lenient=family == _UNSPEC)
    if family == _UNSPEC:
        return ProxyHeader(size)
    found = struct.unpack_from(addresses, header, _V2_FIXED)
    hosts = [str(ipaddress.ip_address(end)) for end in found[:2]]
    return ProxyHeader(size, (hosts[0], int(found[2])), (hosts[1], int(found[3])))


def _check_tlvs(header: bytes, at: int, *, lenient: bool) -> None:
    """Walk over the TLVs. `lenient`: what follows the fixed part need not be any, as no address is taken from it."""
    while at < len(header):
        start = at + 3
        end = start + int.from_bytes(header[at + 1 : start], "big")
        if end > len(header) or start > len(header):
            if lenient:
                return
            raise _bad("a TLV leads out of it")
        if header[at] == _CRC32C:
            told = header[start:end]
            if told != _crc32c(header[:start] + bytes(len(told)) + header[end:]).to_bytes(4, "big"):
                raise _bad("its checksum is wrong")
        at = end


def _crc32c(data: bytes) -> int:
    """Return the checksum of RFC 3720 section B.4 (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# --- sending -------------------------------------------------------------------------------------------------------


def render_proxy_header(version: int, source: Address, destination: Address, authority: str = "") -> bytes:
    """Return a header of version 1 or 2; `authority` is the SNI, which only version 2 can say.

    Where one end has an IPv4 and the other an IPv6 address, the former is written as the latter.
    """
    ends = [ipaddress.ip_address(address) for address, _ in (source, destination)]
    if len({end.version for end in ends}) > 1:
        ends = [ipaddress.ip_address(f"::ffff:{end}") if end.version == 4 else end for end in ends]  # noqa: PLR2004
    four = ends[0].version == 4  # noqa: PLR2004
    if version == 1:
        words = ("PROXY", "TCP4" if four else "TCP6", *map(str, ends), str(source[1]), str(destination[1]))
        return " ".join(words).encode() + b"\r\n"
    body = struct.pack(_ADDRESSES[_TCP4 if four else _TCP6], ends[0].packed, ends[1].packed, source[1], destination[1])
    name = authority.encode("latin-1")
    if name:
        body += struct.pack("!BH", _AUTHORITY, len(name)) + name
    return _V2 + struct.pack("!BBH", _PROXY, _TCP4 if four else _TCP6, len(body)) + body
