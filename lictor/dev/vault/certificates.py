"""Making certificates: what Vault's PKI engine puts into them. Source: Vault's HTTP API, "PKI secrets engine"."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lictor.dev.vault.answers import Ask, Failed

BACKDATED = timedelta(seconds=30)
_CURVES: dict[int, ec.EllipticCurve] = {
    224: ec.SECP224R1(),
    256: ec.SECP256R1(),
    384: ec.SECP384R1(),
    521: ec.SECP521R1(),
}
_USAGES = {
    "digitalsignature": "digital_signature",
    "contentcommitment": "content_commitment",
    "keyencipherment": "key_encipherment",
    "dataencipherment": "data_encipherment",
    "keyagreement": "key_agreement",
    "certsign": "key_cert_sign",
    "crlsign": "crl_sign",
    "encipheronly": "encipher_only",
    "decipheronly": "decipher_only",
}


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate is to name."""

    common_name: str = ""
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    def subject(self) -> x509.Name:
        """Return the subject."""
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)] if self.common_name else [])

    def alternatives(self) -> list[x509.GeneralName]:
        """Return the alternative names."""
        return [
            *(x509.DNSName(name) for name in self.dns),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in self.ips),
            *(x509.UniformResourceIdentifier(uri) for uri in self.uris),
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """A certificate to be made. Times in seconds; `path_length` None is no limit, and only of an authority."""

    names: Names
    ttl: float
    authority: bool = False
    path_length: int | None = None
    usages: frozenset[str] = field(default_factory=frozenset)
    server: bool = False
    client: bool = False
    backdated: timedelta = BACKDATED
    plain_constraints: bool = True  # CA:FALSE is written
    not_after: datetime | None = None


def new_key(kind: str, bits: int) -> Any:
    """Return a private key. Raise Failed for a kind that is not made here."""
    if kind in {"", "rsa"}:
        return rsa.generate_private_key(65537, bits or 2048)
    if kind == "ec":
        if (bits or 256) not in _CURVES:
            raise Failed(400, f"unsupported bit length for EC key: {bits}")
        return ec.generate_private_key(_CURVES[bits or 256])
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise Failed(400, f"unknown key type: {kind}")


def make(plan: Plan, public: Any, issuer: x509.Certificate | None, key: Any) -> x509.Certificate:
    """Return a certificate, signed by a key whose certificate is `issuer`; None is a root that signs itself."""
    now = datetime.now(UTC).replace(microsecond=0)
    end = plan.not_after or now + timedelta(seconds=plan.ttl)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(plan.names.subject())
        .issuer_name(issuer.subject if issuer is not None else plan.names.subject())
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - plan.backdated)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    )
    for extension, critical in _extensions(plan):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _extensions(plan: Plan) -> Iterable[tuple[x509.ExtensionType, bool]]:
    usages = frozenset({"certsign", "crlsign"}) if plan.authority else plan.usages
    if usages:
        yield x509.KeyUsage(**{name: word in usages for word, name in _USAGES.items()}), True
    if plan.authority or plan.plain_constraints:
        yield x509.BasicConstraints(ca=plan.authority, path_length=plan.path_length if plan.authority else None), True
    extended = [
        oid
        for flag, oid in (
            (plan.server, ExtendedKeyUsageOID.SERVER_AUTH),
            (plan.client, ExtendedKeyUsageOID.CLIENT_AUTH),
        )
        if flag
    ]
    if extended and not plan.authority:
        yield x509.ExtendedKeyUsage(extended), False
    names = plan.names.alternatives()
    if names:
        yield x509.SubjectAlternativeName(names), not plan.names.common_name


def read_csr(text: str) -> x509.CertificateSigningRequest:
    """Return a request. Raise Failed as Vault does."""
    if not text:
        raise Failed(400, '"csr" is empty')
    if "-----BEGIN" not in text:
        raise Failed(400, "csr contains no data")
    try:
        csr = x509.load_pem_x509_csr(text.encode())
        good = csr.is_signature_valid
        csr.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Failed(400, f"certificate request could not be parsed: {error}") from error
    if not good:
        raise Failed(400, "request signature invalid")
    return csr


def names_of(csr: x509.CertificateSigningRequest) -> Names:
    """Return what a request names."""
    try:
        found: Sequence[x509.GeneralName] = list(
            csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        found = []
    common = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Names(
        str(common[0].value) if common else "",
        tuple(name.value for name in found if isinstance(name, x509.DNSName)),
        tuple(name.value for name in found if isinstance(name, x509.UniformResourceIdentifier)),
        tuple(str(name.value) for name in found if isinstance(name, x509.IPAddress)),
    )


def asked_names(ask: Ask) -> Names:
    """Return what the parameters of a request name."""
    return Names(
        ask.text("common_name"),
        tuple(ask.words("alt_names")),
        tuple(ask.words("uri_sans")),
        tuple(ask.words("ip_sans")),
    )


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate as Vault writes it: without a newline at the end."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode().strip()


def key_pem(key: Any) -> str:
    """Return a private key as PEM."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    if isinstance(key, ed25519.Ed25519PrivateKey):
        form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode().strip())


def serial(certificate: x509.Certificate) -> str:
    """Return a serial number as Vault writes it."""
    digits = f"{certificate.serial_number:x}"
    digits = digits if len(digits) % 2 == 0 else f"0{digits}"
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
