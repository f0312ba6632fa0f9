"""ClientHellos, as clients make them and as nobody should: built field by field, cut into records of any size."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

GREASE = 0x0A0A  # RFC 8701: values that a client sends so that servers stay used to unknown ones


def vector(content: bytes, width: int) -> bytes:
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(content, 2)


def server_name(name: bytes) -> bytes:
    return extension(0, vector(b"\x00" + vector(name, 2), 2))


def protocols(names: Iterable[bytes]) -> bytes:
    return extension(16, vector(b"".join(vector(name, 1) for name in names), 2))


def message(*extensions: bytes, session: bytes = b"", ciphers: bytes = b"\x13\x01") -> bytes:
    """Return a ClientHello without its records; without extensions it has no block of them."""
    block = vector(b"".join(extensions), 2) if extensions else b""
    body = b"\x03\x03" + bytes(32) + vector(session, 1) + vector(ciphers, 2) + vector(b"\x00", 1) + block
    return b"\x01" + vector(body, 3)


def records(content: bytes, size: int = 2**14) -> bytes:
    """Return handshake records of `size` bytes each."""
    return b"".join(b"\x16\x03\x01" + vector(content[at : at + size], 2) for at in range(0, len(content), size))


def of_python(sni: str | None, alpn: list[str]) -> bytes:
    """Return what Python's ssl sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=sni).do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError


# `openssl s_client -servername db.example.com -alpn h2,http/1.1`, OpenSSL 3.0.19.
OF_OPENSSL = bytes.fromhex(
    "160301014d010001490303eb4f03babc3ca6cd840a021f43a2c4f874ae6c81d642f759788685e3c8cbfa6020cfdca5a48d8b45f64c8ea8ac"
    "0df3f15db49a377d754fe1104e6510b640e79a0c003e130213031301c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c027"
    "0067c00ac0140039c009c0130033009d009c003d003c0035002f00ff010000c200000013001100000e64622e6578616d706c652e636f6d00"
    "0b000403000102000a00160014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f312e3100"
    "16000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b00"
    "09080304030303020301002d00020101003300260024001d0020284aff4f3d5ed80b9eeb7a8e97523f0872aaf2478487601a31a9623b4b0c"
    "c223"
)
# `openssl s_client -noservername -tls1_2`.
OF_OPENSSL_WITHOUT_NAME = bytes.fromhex(
    "16030100b7010000b3030369750aab0ed8b9a733cf57de52ebb293948f8f66e1306741c973292e12bf7bba000038c02cc030009fcca9cca8"
    "ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff01000052000b00040300"
    "0102000a000c000a001d0017001e00190018002300000016000000170000000d002a0028040305030603080708080809080a080b08040805"
    "0806040105010601030303010302040205020602"
)
# `curl https://db.example.com/`, 7.88 with OpenSSL: padded to 517 bytes.
OF_CURL = bytes.fromhex(
    "1603010200010001fc03038ed6f0242abdec4c041d6031822a041c43b6de1c7f45d95e0a11bc89719fcdab200a6ce9c59cda8df4cb00299a"
    "61ccba809b582ccb5e81f8000de6430955b48dc7003e130213031301c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c027"
    "0067c00ac0140039c009c0130033009d009c003d003c0035002f00ff0100017500000013001100000e64622e6578616d706c652e636f6d00"
    "0b000403000102000a00160014001d0017001e00190018010001010102010301040010000e000c02683208687474702f312e310016000000"
    "17000000310000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602002b00"
    "09080304030303020301002d00020101003300260024001d0020b296d315e06f34acd7951a246deb69c98a2bf72eb7176bccd0a75878b577"
    "447d001500af"
) + bytes(175)
