"""A certificate authority for tests: good leaves, and every bad one that a peer might come with."""

from __future__ import annotations

import functools
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dataplane.tls import build_contexts
from policies.edge.server_certificates import ServerCertificate, read_server_certificate
from policies.identity import Leaf, Roots, SpiffeId
from policies.mesh import TlsLimits

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
HOUR = timedelta(hours=1)


def spiffe(service: str, datacenter: str = "dc1") -> SpiffeId:
    """Return the ID of a service of the test mesh."""
    return SpiffeId(TRUST_DOMAIN, datacenter, service)


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What to get wrong about a leaf. The defaults get nothing wrong."""

    uris: Sequence[str] | None = None  # instead of the service's own
    dns: Sequence[str] = ()
    ips: Sequence[str] = ()
    common_name: str = ""
    ca: bool = False
    starts: timedelta = -timedelta(minutes=1)  # from now
    ends: timedelta = HOUR
    client_only: bool = False
    server_only: bool = False


@dataclass(slots=True)
class Authority:
    """A root with its key."""

    name: str = "test root"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        """Sign the root with itself."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - HOUR)
            .not_valid_after(now + 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Return the root as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def roots(self, *others: Authority) -> Roots:
        """Return a trust bundle of this root and others."""
        return Roots(TRUST_DOMAIN, self.name, tuple(sorted(one.pem for one in (self, *others))))

    def leaf(self, service: str, mistakes: Mistakes = Mistakes()) -> Leaf:
        """Return a leaf of a service, with mistakes."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        starts, ends = now + mistakes.starts, now + mistakes.ends
        certificate = self._sign(key, service, mistakes, (starts, ends))
        return Leaf(
            spiffe_id=spiffe(service),
            serial=f"{certificate.serial_number:x}",
            not_before=starts,
            not_after=ends,
            chain_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def server(self, *names: str, mistakes: Mistakes = Mistakes(), rsa_key: bool = False) -> ServerCertificate:
        """Return a certificate for the edge with these DNS names."""
        key = _rsa_key() if rsa_key else ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        asked = replace(mistakes, uris=(), dns=names)
        certificate = self._sign(key, "edge", asked, (now + mistakes.starts, now + mistakes.ends))
        chain = certificate.public_bytes(serialization.Encoding.PEM).decode()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return read_server_certificate(chain, private, "test")

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        service: str,
        mistakes: Mistakes,
        validity: tuple[datetime, datetime],
    ) -> x509.Certificate:
        uris = [str(spiffe(service))] if mistakes.uris is None else mistakes.uris
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in mistakes.dns]
        names += [x509.IPAddress(ip_address(ip)) for ip in mistakes.ips]
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, mistakes.common_name)] if mistakes.common_name else []
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        if mistakes.client_only or mistakes.server_only:
            purposes = purposes[:1] if mistakes.client_only else purposes[1:]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(validity[0])
            .not_valid_after(validity[1])
            .add_extension(x509.BasicConstraints(ca=mistakes.ca, path_length=None), critical=True)
            .add_extension(_usage(signs=mistakes.ca), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self.key, hashes.SHA256())


@functools.cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)  # which takes a moment


def client_context(authority: Authority, service: str) -> ssl.SSLContext:
    """Return the context of a mesh client with a good leaf."""
    return build_contexts(authority.leaf(service), authority.roots(), TlsLimits(), TlsLimits()).client


def bad_client_context(authority: Authority, service: str, mistakes: Mistakes) -> ssl.SSLContext:
    """Return the context of a client whose leaf has mistakes that a sidecar would never load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    leaf = authority.leaf(service, mistakes)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(leaf.chain_pem + leaf.key_pem.decode())
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        encipher_only=False,
        decipher_only=False,
    )
