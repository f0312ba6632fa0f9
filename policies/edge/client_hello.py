"""What a TLS client says before anything is encrypted: the server's name and the protocols that it offers.

Only what is needed to choose by is read; whatever else a hello holds (GREASE among it) is passed over. Formats:
RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3 (server_name), RFC 7301 section 3.1 (ALPN).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policies.errors import PreambleError

MAX_HELLO = 16 * 1024  # bytes on the wire; with post-quantum key shares a hello has about 1,800

_RECORD_HEADER = 5  # bytes: type, version, length
_MAX_RECORD = 2**14
_MAJOR_VERSION = 3  # of all TLS
_MESSAGE_HEADER = 4  # bytes: type, length
_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0
_NAME = re.compile(rb"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`sni` is the server's name in lower case, "" where none is sent; `alpn` the protocols, the favourite first."""

    sni: str = ""
    alpn: tuple[str, ...] = ()


def parse_client_hello(data: bytes) -> ClientHello | int:
    """Return the hello that a stream begins with, or how many bytes of it there must be to know more.

    Raise PreambleError with reason `plaintext` (this is no TLS), `bad_client_hello` or `client_hello_too_large`.
    """
    message = b""
    at = 0
    missing = _MESSAGE_HEADER  # of the message, as far as is known
    while missing > 0:
        if len(data) > at and data[at] != _HANDSHAKE:
            raise _bad("something else stands between its fragments") if at else _plaintext()
        if len(data) < at + _RECORD_HEADER:
            # Whatever is missing comes in records: nobody has to look at each of many small ones as it arrives.
            return _bounded(at + _RECORD_HEADER + missing)
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at + 1] != _MAJOR_VERSION or not 0 < size <= _MAX_RECORD:
            raise _bad("its records are not those of TLS")
        start, at = at + _RECORD_HEADER, at + _RECORD_HEADER + size
        if len(data) < _bounded(at):
            return at
        message += data[start:at]
        if message[0] != _CLIENT_HELLO:
            raise _bad("the first message is another one")
        length = int.from_bytes(message[1:_MESSAGE_HEADER], "big") if len(message) >= _MESSAGE_HEADER else 0
        missing = _MESSAGE_HEADER + length - len(message)
    return _read(message[_MESSAGE_HEADER : _MESSAGE_HEADER + length])


def _bounded(size: int) -> int:
    if size > MAX_HELLO:
        raise PreambleError("client_hello_too_large", f"the ClientHello has more than {MAX_HELLO} bytes")
    return size


def _plaintext() -> PreambleError:
    return PreambleError("plaintext", "the peer does not speak TLS on a port that demands it")


def _bad(why: str) -> PreambleError:
    return PreambleError("bad_client_hello", f"the ClientHello cannot be read: {why}")


def _read(body: bytes) -> ClientHello:
    """Return what the body of the message says."""
    if len(body) < 35:  # noqa: PLR2004 - version, random, and the length of a session id
        raise _bad("it is too short")
    _, at = _vector(body, 34, 1)  # session id
    _, at = _vector(body, at, 2)  # cipher suites
    _, at = _vector(body, at, 1)  # compression methods
    sni = ""
    alpn: tuple[str, ...] = ()
    for kind, content in _extensions(body, at):
        if kind == _SERVER_NAME:
            sni = _server_name(content)
        elif kind == _ALPN:
            alpn = _protocols(content)
    return ClientHello(sni, alpn)


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """Return the bytes after a length of `width` bytes, and where they end."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if not start <= end <= len(data):
        raise _bad("a length leads out of it")
    return data[start:end], end


def _extensions(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    if at == len(body):  # TLS 1.2 knows hellos without any
        return
    block, end = _vector(body, at, 2)
    if end != len(body):
        raise _bad("something follows its extensions")
    seen: set[int] = set()
    at = 0
    while at < len(block):
        kind = int.from_bytes(block[at : at + 2], "big")
        content, at = _vector(block, at + 2, 2)
        if kind in seen:
            raise _bad(f"extension {kind} stands there twice")
        seen.add(kind)
        yield kind, content


def _server_name(content: bytes) -> str:
    names, end = _vector(content, 0, 2)
    name, last = _vector(names, 1, 2) if names else (b"", 0)
    if end != len(content) or last != len(names) or names[:1] != bytes((_HOST_NAME,)) or not _NAME.fullmatch(name):
        raise _bad("server_name is not one host name")
    return name.decode().lower()


def _protocols(content: bytes) -> tuple[str, ...]:
    listed, end = _vector(content, 0, 2)
    found: list[str] = []
    at = 0
    while at < len(listed):
        name, at = _vector(listed, at, 1)
        found.append(name.decode("latin-1"))
    if end != len(content) or not all(found) or not found:
        raise _bad("its list of protocols is none")
    return tuple(found)
