"""TLS at the edge: where certificates come from, and how a listener speaks it.

`EdgeTls` is what the gateway's YAML says under `tls`; `ListenerTls` is what the table says of one listener, made of a
config entry and of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.edge.acme import AcmeCertificate
from policies.edge.server_certificates import CertificateReference
from policies.mesh import TlsLimits

OWN = "own"
DEFAULT_DOMAIN = "consul"
DEFAULT_LIMITS = TlsLimits()


# --- where certificates come from ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileCertificate:
    """PEM files, read again when they change. The file of the certificate holds its chain, the server's own first."""

    cert_file: str
    key_file: str


@dataclass(frozen=True, slots=True)
class VaultCertificate:
    """A role of a PKI mount of the gateway's Vault: key made here, `<mount>/sign/<role>`. `ttl` "" is the role's.

    Without names of its own it gets those that Consul gives: see `ingress_tls.consul_names`.
    """

    mount: str
    role: str
    names: tuple[str, ...]
    ttl: str = ""


@dataclass(frozen=True, slots=True)
class EntryCertificate:
    """A config entry of Consul, `inline-certificate` or `file-system-certificate`."""

    kind: str
    name: str


CertificateSettings = FileCertificate | VaultCertificate | AcmeCertificate | EntryCertificate


# --- what the operator says ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hsts:
    """`Strict-Transport-Security`, RFC 6797. `max_age` in seconds."""

    max_age: int
    include_subdomains: bool = False
    preload: bool = False

    def __str__(self) -> str:
        """Return the field's value."""
        words = [f"max-age={self.max_age}"]
        words += ["includeSubDomains"] if self.include_subdomains else []
        words += ["preload"] if self.preload else []
        return "; ".join(words)


@dataclass(frozen=True, slots=True)
class RedirectToTls:
    """Plaintext requests go to the same host and path with https. `status` is 301 or 308."""

    port: int
    status: int = 308


@dataclass(frozen=True, slots=True)
class PortWords:
    """What the YAML says of one port, or of all."""

    redirect: RedirectToTls | None = None
    hsts: Hsts | None = None
    client_ca_file: str = ""
    require_client_certificate: bool = False
    strict_sni: bool = False


NO_WORDS = PortWords()


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """The YAML's `tls`. `certificates` by name, in the order written: the first is the default one.

    `domain` is Consul's, of which a certificate without names of its own has some.
    """

    certificates: Mapping[str, CertificateSettings] = field(default_factory=dict)
    everywhere: PortWords = NO_WORDS
    ports: Mapping[int, PortWords] = field(default_factory=dict)
    domain: str = DEFAULT_DOMAIN

    def words(self, port: int) -> PortWords:
        """Return what holds for a port: its own words, else those for all."""
        return self.ports.get(port, self.everywhere)

    def own_references(self) -> tuple[CertificateReference, ...]:
        """Return what the YAML's certificates are called by listeners."""
        return tuple(CertificateReference(OWN, name) for name in self.certificates)


NO_TLS = EdgeTls()


# --- what a listener does ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """How one listener speaks TLS. The first certificate answers what none of the others is for, unless `strict_sni`.

    `pinned` are hosts (plain or `*.suffix`) whose certificate the entry names itself. `limits` "" are our defaults:
    TLS 1.2 and later, of 1.2 only ECDHE with AEAD; `limits_by_host` are in their place for hosts (also `*`, and
    `*.suffix` has the suffix too). `client_ca_file` "" asks callers for no certificate.
    """

    certificates: tuple[CertificateReference, ...]
    pinned: Mapping[str, CertificateReference] = field(default_factory=dict)
    limits: TlsLimits = DEFAULT_LIMITS
    client_ca_file: str = ""
    require_client_certificate: bool = False
    strict_sni: bool = False
    limits_by_host: Mapping[str, TlsLimits] = field(default_factory=dict)

    def references(self) -> tuple[CertificateReference, ...]:
        """Return every certificate that it calls for, each once."""
        return tuple(dict.fromkeys((*self.certificates, *self.pinned.values())))


def settings_of(reference: CertificateReference, edge: EdgeTls) -> CertificateSettings | None:
    """Return where a certificate comes from; None when the YAML has none of this name."""
    if reference.kind == OWN:
        return edge.certificates.get(reference.name)
    return EntryCertificate(reference.kind, reference.name)
