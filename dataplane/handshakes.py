"""Handshakes of both ends, on descriptors, and the check of the peer between handshake and `connection_made`.

A protocol never sees a byte of a peer that failed. Every failure has a short fixed word for counters.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dataplane.peek import ready
from dataplane.tls import PeerCheck
from dataplane.tls_transport import TlsTransport
from policies.errors import ConnectFailed, ConnectTimedOut, IdentityError
from policies.identity import Peer, SpiffeId

HANDSHAKE_TIMEOUT = 10.0  # seconds, for a caller
_HANDSHAKE_RECORD = 0x16  # the first byte of TLS

# X509_V_ERR_* of OpenSSL's x509_vfy.h that an operator can act upon.
_VERIFY_REASONS = {9: "not_yet_valid", 10: "expired", 26: "wrong_usage", 79: "ca_certificate"}
_FOREIGN = frozenset({2, 7, 18, 19, 20, 21, 24, 30})  # no chain to one of our roots

_Address = tuple[int, int, int, Any]  # family, type, protocol, socket address


async def accept_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    check: PeerCheck,
    protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
) -> TlsTransport:
    """Return the transport of an accepted socket once its peer is known. The socket is closed on any error.

    Raise IdentityError; besides the reasons of `verify_peer` these are `plaintext` (no TLS on this port), `closed`,
    `handshake_timeout`, and of the handshake `no_certificate`, `foreign_ca`, `refused_by_peer` (an alert: the peer
    does not like our leaf), `protocol_version`, `handshake` (anything else).
    """
    shaken = await _shaken(sock, context)
    return _made(shaken, lambda: check(shaken.getpeercert(True)), protocol_factory)


async def accept_outside_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
) -> TlsTransport:
    """Return the transport of a caller from outside the mesh: the context alone says what it must prove.

    The socket is closed on any error. Raise IdentityError as `accept_tls` for the handshake.
    """
    return _made(await _shaken(sock, context), lambda: None, protocol_factory)


async def _shaken(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return an accepted socket after its handshake. It is closed on any error."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            await ready(loop.add_reader, loop.remove_reader, sock.fileno())
            _check_first_byte(sock)
            sock = shaken = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            await _shake_hands(loop, shaken)
            return shaken
    except TimeoutError as error:
        sock.close()
        raise IdentityError("handshake_timeout", "the handshake took too long") from error
    except OSError as error:
        sock.close()
        raise IdentityError(reason_of(error), f"the handshake failed: {error}") from error
    except BaseException:
        sock.close()
        raise


def _made(
    sock: ssl.SSLSocket,
    check: Callable[[], Peer | None],
    protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
) -> TlsTransport:
    try:
        return TlsTransport(asyncio.get_running_loop(), sock, check(), protocol_factory)
    except OSError as error:
        sock.close()
        raise IdentityError(reason_of(error), f"the connection broke: {error}") from error
    except BaseException:
        sock.close()
        raise


def _check_first_byte(sock: socket.socket) -> None:
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        raise IdentityError("closed", "the peer left before a handshake")
    if first[0] != _HANDSHAKE_RECORD:
        raise IdentityError("plaintext", "the peer does not speak TLS on a port that demands it")


async def connect_tls(
    address: tuple[str, int],
    context: ssl.SSLContext,
    check: PeerCheck,
    target: tuple[str, SpiffeId],
    timeout: float,
    protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
) -> TlsTransport:
    """Dial, shake hands, and check that the other end is the SPIFFE ID of `target`, a pair of SNI and ID.

    `timeout` in seconds covers all of it. Raise ConnectTimedOut or ConnectFailed. Under TLS 1.3 success does not mean
    that the other end likes our leaf: a refusal is seen at the first read, as the end of the connection.
    """
    host, port = address
    sni, expected = target
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout):
            sock = await _dial(host, port)
            sock = context.wrap_socket(sock, server_hostname=sni or None, do_handshake_on_connect=False)
            await _shake_hands(asyncio.get_running_loop(), sock)
        peer = check(sock.getpeercert(True))
        _expect(peer, expected)
        return TlsTransport(asyncio.get_running_loop(), sock, peer, protocol_factory)
    except TimeoutError as error:
        _close(sock)
        message = f"{host}:{port}: no connection within {timeout:g} s"
        raise ConnectTimedOut(message) from error
    except (OSError, UnicodeError, IdentityError) as error:  # UnicodeError: an SNI that is no host name
        _close(sock)
        message = f"{host}:{port}: {error}"
        raise ConnectFailed(message) from error
    except BaseException:
        _close(sock)
        raise


async def originate_tls(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_name: str,
    check: Callable[[Mapping[str, Any] | None], None],
    protocol_factory: Callable[[TlsTransport], asyncio.Protocol],
) -> None:
    """Speak TLS on a connected socket to a server that is none of the mesh. The socket is closed on any error.

    `server_name` is what is sent, "" nothing; `check` gets the certificate as `getpeercert` gives it and raises
    IdentityError. Raise that or OSError.
    """
    try:
        sock = context.wrap_socket(sock, server_hostname=server_name or None, do_handshake_on_connect=False)
        await _shake_hands(asyncio.get_running_loop(), sock)
        check(sock.getpeercert())
        TlsTransport(asyncio.get_running_loop(), sock, None, protocol_factory)
    except BaseException:
        sock.close()
        raise


def _expect(peer: Peer, expected: SpiffeId) -> None:
    if peer.spiffe_id != expected:
        raise IdentityError("wrong_service", f"it is {peer.spiffe_id}, expected {expected}")


def reason_of(error: Exception) -> str:
    """Return the word that stands for a failed handshake or identity in counters."""
    match error:
        case IdentityError():
            return error.reason
        case ssl.SSLCertVerificationError():
            code = error.verify_code
            return "foreign_ca" if code in _FOREIGN else _VERIFY_REASONS.get(code, "bad_certificate")
        case ssl.SSLError():
            return _of_library(error.reason or "")
        case TimeoutError():
            return "timeout"
        case ConnectionError():
            return "broken"
        case _:
            return "handshake"


def _of_library(name: str) -> str:
    """Return the word for a reason of OpenSSL, as `SSLError.reason` spells it."""
    if name == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    if "ALERT" in name and "VERSION" not in name:
        return "refused_by_peer"
    if name in {"UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER"} or "VERSION" in name:
        return "protocol_version"
    return "handshake"


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


async def _dial(host: str, port: int) -> socket.socket:
    """Return a connected socket: the first of the host's addresses that answers."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, protocol, address in await _resolve(loop, host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Iterable[_Address]:
    """Return the addresses of a host. Literal ones cost no look-up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port))]
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


async def _shake_hands(loop: asyncio.AbstractEventLoop, sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await ready(loop.add_reader, loop.remove_reader, sock.fileno())
        except ssl.SSLWantWriteError:
            await ready(loop.add_writer, loop.remove_writer, sock.fileno())
        else:
            return
