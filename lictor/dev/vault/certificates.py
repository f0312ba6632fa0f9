"""Making certificates: what Vault's PKI engine puts into them. Source: Vault's HTTP API, "PKI secrets engine"."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from lictor.dev.vault.answers import Failed, not_so

_SHORTEST_RSA = 2048
_RSA_BITS = (2048, 3072, 4096, 8192)
_HOSTNAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?\.?", re.IGNORECASE)
SUBJECT = {  # in the order in which they are written
    "country": NameOID.COUNTRY_NAME,
    "province": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "street_address": NameOID.STREET_ADDRESS,
    "postal_code": NameOID.POSTAL_CODE,
    "organization": NameOID.ORGANIZATION_NAME,
    "ou": NameOID.ORGANIZATIONAL_UNIT_NAME,
}
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
    emails: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()  # of the subject besides the common name, such as ("country", "DE")

    def subject(self) -> x509.Name:
        """Return the subject. Raise Failed for what the library in use does not write, such as a country of a word."""
        given = [*self.fields, *([("common_name", self.common_name)] if self.common_name else [])]
        parts = []
        with _written("a subject"):
            for name, oid in {**SUBJECT, "common_name": NameOID.COMMON_NAME}.items():
                values = [x509.NameAttribute(oid, value) for key, value in given if key == name]
                parts += [x509.RelativeDistinguishedName(values)] if values else []
        return x509.Name(parts)

    def alternatives(self) -> list[x509.GeneralName]:
        """Return the alternative names. Raise Failed for what the library in use does not write, such as an umlaut."""
        with _written("an alternative name"):
            return [
                *(x509.DNSName(name) for name in self.dns),
                *(x509.RFC822Name(address) for address in self.emails),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in self.ips),
                *(x509.UniformResourceIdentifier(uri) for uri in self.uris),
            ]


@contextlib.contextmanager
def _written(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise not_so(f"{what} ({error})") from error


@dataclass(frozen=True, slots=True)
class Plan:
    """A certificate to be made. Times in seconds; `path_length` None is no limit, and only of an authority."""

    names: Names
    ttl: float
    authority: bool = False
    path_length: int | None = None
    usages: frozenset[str] = field(default_factory=frozenset)
    extended: tuple[x509.ObjectIdentifier, ...] = ()
    backdated: timedelta = BACKDATED
    plain_constraints: bool = True  # CA:FALSE is written
    not_after: datetime | None = None
    urls: Mapping[str, Sequence[str]] = field(default_factory=dict)  # where issuer and list of the revoked are found

    def ends(self) -> datetime:
        """Return when it ends."""
        return self.not_after or datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=self.ttl)


def new_key(kind: str, bits: int) -> Any:
    """Return a private key. Raise Failed for a kind that is not made here."""
    check_kind(kind or "rsa", bits)
    if kind in {"", "rsa"}:
        return rsa.generate_private_key(65537, bits or 2048)
    if kind == "ec":
        return ec.generate_private_key(_CURVES[bits or 256])
    return ed25519.Ed25519PrivateKey.generate()


def check_kind(kind: str, bits: int) -> None:
    """Refuse a kind of key that Vault does not make, or a size."""
    if kind not in {"rsa", "ec", "ed25519"}:
        raise Failed(400, f"unknown key type {kind}")
    if kind == "ec" and (bits or 256) not in _CURVES:
        raise Failed(400, f"unsupported bit length for EC key: {bits}")
    if kind == "rsa" and (bits or 2048) < _SHORTEST_RSA:
        raise Failed(400, f"RSA keys < {_SHORTEST_RSA} bits are unsafe and not supported: got {bits}")
    if kind == "rsa" and (bits or 2048) not in _RSA_BITS:
        raise Failed(400, f"unsupported bit length for RSA key: {bits}")


def make(plan: Plan, public: Any, issuer: x509.Certificate | None, key: Any) -> x509.Certificate:
    """Return a certificate, signed by a key whose certificate is `issuer`; None is a root that signs itself."""
    now = datetime.now(UTC).replace(microsecond=0)
    if plan.ends() < now - plan.backdated:
        raise not_so("a certificate that ends before it begins")
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(plan.names.subject())
        .issuer_name(issuer.subject if issuer is not None else plan.names.subject())
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - plan.backdated)
        .not_valid_after(plan.ends())
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
    if plan.extended and not plan.authority:
        yield x509.ExtendedKeyUsage(plan.extended), False
    yield from _places(plan.urls)
    names = plan.names.alternatives()
    if names:
        yield x509.SubjectAlternativeName(names), not plan.names.common_name


def _places(urls: Mapping[str, Sequence[str]]) -> Iterable[tuple[x509.ExtensionType, bool]]:
    kinds = (
        ("ocsp_servers", AuthorityInformationAccessOID.OCSP),
        ("issuing_certificates", AuthorityInformationAccessOID.CA_ISSUERS),
    )
    found = [
        x509.AccessDescription(oid, x509.UniformResourceIdentifier(url))
        for name, oid in kinds
        for url in urls.get(name, ())
    ]
    if found:
        yield x509.AuthorityInformationAccess(found), False
    lists = [x509.UniformResourceIdentifier(url) for url in urls.get("crl_distribution_points", ())]
    if lists:
        yield x509.CRLDistributionPoints([x509.DistributionPoint([one], None, None, None) for one in lists]), False


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
    """Return what a request names. Raise Failed for kinds of names that are not understood here."""
    try:
        found: Sequence[x509.GeneralName] = list(
            csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        found = []
    known = (x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress, x509.RFC822Name)
    if any(not isinstance(name, known) for name in found):
        raise not_so("requests with alternative names other than DNS, URI, IP and email")
    common = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    fields = [
        (name, str(one.value)) for name, oid in SUBJECT.items() for one in csr.subject.get_attributes_for_oid(oid)
    ]
    return Names(
        str(common[0].value) if common else "",
        tuple(name.value for name in found if isinstance(name, x509.DNSName)),
        tuple(name.value for name in found if isinstance(name, x509.UniformResourceIdentifier)),
        tuple(str(name.value) for name in found if isinstance(name, x509.IPAddress)),
        tuple(name.value for name in found if isinstance(name, x509.RFC822Name)),
        tuple(fields),
    )


def asked_names(given: Mapping[str, Any]) -> Names:
    """Return what the parameters of a request name. Raise Failed for an address that is none."""
    common = str(given.get("common_name") or "")
    names = list(given.get("alt_names") or ())
    if common and not given.get("exclude_cn_from_sans") and common not in names and (is_host(common) or "@" in common):
        names.insert(0, common)
    ips = tuple(given.get("ip_sans") or ())
    for address in ips:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise Failed(400, f'the value "{address}" is not a valid IP address') from error
    fields = [(name, one) for name in SUBJECT for one in given.get(name) or ()]
    hosts = tuple(dict.fromkeys(name for name in names if "@" not in name))
    emails = tuple(dict.fromkeys(name for name in names if "@" in name))
    return Names(common, hosts, tuple(given.get("uri_sans") or ()), ips, emails, tuple(fields))


def is_host(name: str) -> bool:
    """Return whether a name may be one of a host, with a wildcard or without."""
    return _HOSTNAME.fullmatch(name) is not None


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate as Vault writes it: without a newline at the end."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode().strip()


def key_kind(key: Any) -> str:
    """Return the kind of a key, private or public, by Vault's word."""
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return "rsa"
    return "ec" if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) else "ed25519"


def key_pem(key: Any, *, pkcs8: bool = False) -> str:
    """Return a private key as PEM."""
    form = serialization.PrivateFormat.PKCS8 if pkcs8 else serialization.PrivateFormat.TraditionalOpenSSL
    if isinstance(key, ed25519.Ed25519PrivateKey):
        form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode().strip())


def serial(certificate: x509.Certificate) -> str:
    """Return a serial number as Vault writes it."""
    return in_pairs(f"{certificate.serial_number:x}")


def in_pairs(digits: str) -> str:
    """Return hexadecimal digits as `0a:1b`."""
    digits = digits if len(digits) % 2 == 0 else f"0{digits}"
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
