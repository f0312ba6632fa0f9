"""Certificates that a gateway shows to the outside, and which of them answers a name.

Where they come from is named by a `CertificateReference`; whoever fetches them sends each next one as a
`CertificateUpdate`. The table holds references alone, so that no dump of it can hold a key.
Source: RFC 6125, section 6.4 (a wildcard stands for one label), RFC 6066, section 3 (SNI).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from policies.certificates import read_certificate
from policies.edge.wildcards import longest_suffix
from policies.errors import BadServerCertificate

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, order=True)
class CertificateReference:
    """What a listener calls a certificate. Kinds: `inline-certificate`, `file-system-certificate` (Consul's), `own`.

    `own` are those of the gateway's YAML, by their `name` there.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        """Return both, for logs and problems."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate with its chain and key. `names` are its DNS names, lower case; the key is never shown."""

    names: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    chain_pem: str
    key_pem: bytes = field(repr=False)
    source: str = ""  # where it comes from, in words


@dataclass(frozen=True, slots=True)
class EdgeMaterial:
    """What the listeners at the edge are made with: certificates, and by file the PEM text of who signs callers'."""

    certificates: Mapping[CertificateReference, ServerCertificate] = field(default_factory=dict)
    client_cas: Mapping[str, str] = field(default_factory=dict)

    def updated(self, update: CertificateUpdate | ClientCaUpdate) -> EdgeMaterial:
        """Return the same with what an update brings, or without what it takes away."""
        match update:
            case CertificateUpdate(reference, certificate):
                return replace(self, certificates=_put(self.certificates, reference, certificate))
            case ClientCaUpdate(file, pem):
                return replace(self, client_cas=_put(self.client_cas, file, pem))


NO_MATERIAL = EdgeMaterial()


def _put(values: Mapping[_K, _T], key: _K, value: _T | None) -> Mapping[_K, _T]:
    others = {known: one for known, one in values.items() if known != key}
    return others if value is None else {**others, key: value}


@dataclass(frozen=True, slots=True)
class CertificateUpdate:
    """A source gave the next certificate; None: nobody asks for this one any more."""

    reference: CertificateReference
    certificate: ServerCertificate | None


@dataclass(frozen=True, slots=True)
class ClientCaUpdate:
    """A file of those who may sign callers' certificates was read; None: nobody asks for it any more."""

    file: str
    pem: str | None


def read_server_certificate(chain_pem: str, key_pem: bytes, source: str) -> ServerCertificate:
    """Return what a chain (the server's own first) says of itself. Raise BadServerCertificate when it is none.

    Whether the key belongs to it is for the TLS library to say; see `controlplane.certificates.checked_pair`.
    """
    found = _PEM.search(chain_pem)
    if found is None:
        message = f"{source}: holds no PEM certificate"
        raise BadServerCertificate(message)
    try:
        certificate = read_certificate(base64.b64decode("".join(found[1].split()), validate=True))
    except (ValueError, binascii.Error) as error:
        message = f"{source}: holds no readable certificate: {error}"
        raise BadServerCertificate(message) from error
    return ServerCertificate(
        names=tuple(dict.fromkeys(canonical_name(name) for name in certificate.dns_names)),
        serial=f"{certificate.serial:x}",
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        chain_pem=chain_pem,
        key_pem=key_pem,
        source=source,
    )


def canonical_name(name: str) -> str:
    """Return a DNS name as names are compared: lower case, without the dot of the root."""
    return name.lower().removesuffix(".")


# --- which one answers ---------------------------------------------------------------------------------------------


def by_name(certificates: Iterable[ServerCertificate]) -> dict[str, tuple[ServerCertificate, ...]]:
    """Return the certificates of each name and wildcard, in the order given: one of RSA and one of ECDSA may share."""
    found: dict[str, tuple[ServerCertificate, ...]] = {}
    for certificate in certificates:
        for name in certificate.names:
            found[name] = (*found.get(name, ()), certificate)
    return found


def find(name: str, named: Mapping[str, _T], pinned: Mapping[str, _T]) -> _T | None:
    """Return what answers a name (canonical), None if nothing does. What is pinned to it wins, exact before wildcard.

    `named` goes by the names in certificates, where a wildcard stands for one label; `pinned` by the hosts of services,
    where it stands for any number of them and the longest wins.
    """
    exact = pinned.get(name) or named.get(name)
    if exact is not None:
        return exact
    found = longest_suffix(name, pinned)
    if found is not None:
        return found
    return named.get("*." + name.partition(".")[2]) if "." in name else None
