"""A TLS server outside the mesh, and the files with which it is reached."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.certificates import Authority, Mistakes


def write_leaf(folder: Path, authority: Authority, name: str, **certificate: Any) -> tuple[str, str]:
    """Write certificate and key of somebody outside; return both paths. `dns`, `ips`, `uris` are its names."""
    leaf = authority.leaf(name, Mistakes(**{"uris": (), **certificate}))
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_text(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    return str(cert), str(key)


def write_root(folder: Path, authority: Authority, name: str = "ca") -> str:
    """Write a root certificate; return its path."""
    path = folder / f"{name}.pem"
    path.write_text(authority.pem)
    return str(path)


@dataclass(slots=True)
class Seen:
    """What a server saw of its callers' hellos: the server name, or None."""

    names: list[str | None] = field(default_factory=list)


def server_context(
    files: tuple[str, str], *, clients: str = "", alpn: Sequence[str] = ()
) -> tuple[ssl.SSLContext, Seen]:
    """Return the context of a TLS server, and what it will have seen. `clients` is the CA that callers must show."""
    context, seen = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Seen()
    context.load_cert_chain(*files)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    if alpn:
        context.set_alpn_protocols(list(alpn))

    def note(_socket: object, name: str | None, _context: object) -> None:
        seen.names.append(name)

    context.sni_callback = note
    return context, seen
