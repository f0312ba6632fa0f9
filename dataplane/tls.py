"""TLS contexts from a leaf and the trust bundle, and the check of who is at the other end.

A context in use is never changed: a failed change would leave it half done. A new pair is built, tried against itself
in memory, and swapped in as a whole. Sessions are never resumed, since a resumed session outlives its certificate.
The key reaches OpenSSL through an anonymous file in memory and never a disk.
"""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from policies.errors import BadLeaf, IdentityError
from policies.identity import Leaf, Peer, Roots, verify_peer
from policies.mesh import TlsLimits

_VERSIONS = {
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}
_REMEMBERED_PEERS = 4096


@dataclass(frozen=True, slots=True)
class Contexts:
    """Both ends of mTLS with one leaf."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def build_contexts(leaf: Leaf, roots: Roots, incoming: TlsLimits, outgoing: TlsLimits) -> Contexts:
    """Return contexts that have spoken to each other. Raise BadLeaf when key, chain and roots do not fit."""
    try:
        server = _context(ssl.PROTOCOL_TLS_SERVER, leaf, roots, incoming)
        client = _context(ssl.PROTOCOL_TLS_CLIENT, leaf, roots, outgoing)
        server.set_alpn_protocols(["http/1.1"])
        try_handshake(server, client)
    except (ssl.SSLError, ValueError) as error:
        message = f"the leaf of {leaf.spiffe_id} (serial {leaf.serial}) cannot be used: {error}"
        raise BadLeaf(message) from error
    return Contexts(server, client)


def _context(side: int, leaf: Leaf, roots: Roots, limits: TlsLimits) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False  # a SPIFFE ID is no host name: `PeerCheck` compares the URI instead
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    set_versions(context, limits)
    if limits.cipher_suites:
        context.set_ciphers(":".join(openssl_name(suite) for suite in limits.cipher_suites))
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.load_verify_locations(cadata="\n".join(roots.pems))
    with in_memory(leaf.chain_pem.encode() + b"\n" + leaf.key_pem) as path:
        context.load_cert_chain(path)
    return context


def set_versions(context: ssl.SSLContext, limits: TlsLimits) -> None:
    """Let a context that is being made speak the versions of an entry, TLS 1.2 and later by default."""
    with warnings.catch_warnings():  # TLS 1.0 and 1.1 are the user's own choice in the entry
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = _VERSIONS.get(limits.minimum, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = _VERSIONS.get(limits.maximum, ssl.TLSVersion.MAXIMUM_SUPPORTED)


def openssl_name(suite: str) -> str:
    """Return OpenSSL's name of a TLS 1.2 suite that Consul names as IANA does."""
    words = suite.removeprefix("TLS_").replace("_WITH_", "_").split("_")
    joined = "-".join(words)
    for size in ("128", "256"):
        joined = joined.replace(f"AES-{size}", f"AES{size}")
    joined = joined.replace("AES128-CBC-SHA", "AES128-SHA").replace("AES256-CBC-SHA", "AES256-SHA")
    return joined.removesuffix("-SHA256") if "CHACHA20" in joined else joined


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """Give OpenSSL, which reads files, the path of an anonymous one in memory."""
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def try_handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Let the two contexts shake hands in memory. Raise SSLError when they cannot."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(6):  # a full handshake takes three flights
        for end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    if waiting:
        message = "the handshake with itself did not end"
        raise ValueError(message)


class PeerCheck:
    """Who is at the other end, remembered by certificate: the same few peers connect again and again."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._known: dict[bytes, Peer] = {}

    def __call__(self, certificate: bytes | None) -> Peer:
        """Return the peer that a DER certificate proves. Raise IdentityError otherwise."""
        if not certificate:
            raise IdentityError("no_certificate", "the peer sent no certificate")
        now = datetime.now(UTC)
        known = self._known.get(certificate)
        if known is not None and now <= known.not_after:
            return known
        peer = verify_peer(certificate, self._trust_domain, now)
        if len(self._known) >= _REMEMBERED_PEERS:
            self._known.clear()
        self._known[certificate] = peer
        return peer
