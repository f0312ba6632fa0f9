"""What a PKI mount holds: keys, issuers and their chains, the certificates it gave, and those that it revoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.dev.vault.answers import Failed, Internal, Json
from lictor.dev.vault.certificates import in_pairs, key_pem, pem, serial
from lictor.dev.vault.tokens import new_id

CRL_LIFE = timedelta(hours=72)
NO_DEFAULT = "no default issuer currently configured"


@dataclass(slots=True)
class Issuer:
    """A certificate that this mount may sign with, or only knows (`key_id` "")."""

    id: str
    key_id: str
    certificate: x509.Certificate
    name: str = ""
    late_leaves: str = "err"  # what of a leaf that would outlive the issuer: err, truncate, permit
    algorithm_shown: bool = True  # until it is written to
    revoked: dict[int, float] = field(default_factory=dict)  # serial number: when, seconds since 1970
    lists: int = 0  # how many lists of the revoked were made


@dataclass(slots=True)
class Key:
    """A private key, made here or imported."""

    id: str
    key: Any = field(repr=False)
    name: str = ""


class Issuers:
    """The keys and certificates of one mount. The first of each is the default until told otherwise."""

    def __init__(self) -> None:
        self.by_id: dict[str, Issuer] = {}
        self.keys: dict[str, Key] = {}
        self.default = self.default_key = ""
        self.stored: dict[str, str] = {}  # certificates given, as PEM, by serial number

    # --- keys and issuers ---

    def add_key(self, key: Any, name: str = "") -> Key:
        """Keep a key; return it, or the one that is the same."""
        public = key.public_key()
        for held in self.keys.values():
            if held.key.public_key() == public:
                return held
        found = Key(new_id(), key, name)
        self.keys[found.id] = found
        self.default_key = self.default_key or found.id
        return found

    def add(self, certificate: x509.Certificate, name: str = "") -> tuple[Issuer, bool]:
        """Keep an issuer with the key that fits. Return it, and whether it is new."""
        for held in self.by_id.values():
            if held.certificate == certificate:
                return held, False
        public = certificate.public_key()
        key_id = next((one.id for one in self.keys.values() if one.key.public_key() == public), "")
        issuer = Issuer(new_id(), key_id, certificate, name)
        self.by_id[issuer.id] = issuer
        if key_id and not self.default:
            self.default = issuer.id
        return issuer, True

    def find(self, reference: str) -> Issuer | None:
        """Return an issuer by its ID, its name, or `default`."""
        if reference == "default":
            return self.by_id.get(self.default)
        named = next((one for one in self.by_id.values() if one.name and one.name == reference), None)
        return self.by_id.get(reference) or named

    def get(self, reference: str) -> Issuer:
        """Return an issuer. Raise Internal (500)."""
        found = self.find(reference)
        if found is None:
            raise Internal(500, self.missing(reference))
        return found

    def missing(self, reference: str) -> str:
        """Return what is told about an issuer that is not there."""
        return NO_DEFAULT if reference == "default" else f"unable to find PKI issuer for reference: {reference}"

    def signing(self, reference: str = "default") -> tuple[Issuer, Any]:
        """Return an issuer and its key. Raise Failed."""
        issuer = self.find(reference)
        if issuer is None:
            raise Internal(500, f"could not fetch the CA certificate (was one set?): {self.missing(reference)}")
        if not issuer.key_id:
            raise Failed(400, "error fetching CA certificate: unable to fetch corresponding key for issuer")
        return issuer, self.keys[issuer.key_id].key

    def remove(self, issuer: Issuer) -> None:
        """Forget an issuer; its key stays."""
        del self.by_id[issuer.id]
        if self.default == issuer.id:
            self.default = ""

    def clear(self) -> None:
        """Forget all issuers and keys."""
        self.by_id.clear()
        self.keys.clear()
        self.default = self.default_key = ""

    def chain(self, issuer: Issuer) -> list[x509.Certificate]:
        """Return a certificate and those above it that the mount knows."""
        found = [issuer.certificate]
        while found[-1].issuer != found[-1].subject:
            above = next((one.certificate for one in self.by_id.values() if _signed(found[-1], one.certificate)), None)
            if above is None or above in found:
                break
            found.append(above)
        return found

    # --- certificates given, and revoked ---

    def store(self, certificate: x509.Certificate) -> None:
        """Remember a certificate that was given."""
        self.stored[serial(certificate)] = pem(certificate)

    def issuer_of(self, certificate: x509.Certificate) -> Issuer | None:
        """Return which issuer of this mount signed a certificate."""
        return next((one for one in self.by_id.values() if _signed(certificate, one.certificate)), None)

    def revoked_at(self, certificate: x509.Certificate) -> float:
        """Return when a certificate was revoked, in seconds since 1970, or 0."""
        issuer = self.issuer_of(certificate)
        return issuer.revoked.get(certificate.serial_number, 0.0) if issuer is not None else 0.0

    def revoked(self) -> list[str]:
        """Return the serial numbers of all that is revoked."""
        return [in_pairs(f"{number:x}") for one in self.by_id.values() for number in one.revoked]

    def crl(self, issuer: Issuer, life: timedelta = CRL_LIFE) -> x509.CertificateRevocationList:
        """Return an issuer's list of the revoked, as of now."""
        key, now = self.signing(issuer.id)[1], datetime.now(UTC)
        issuer.lists += 1
        own = x509.SubjectKeyIdentifier.from_public_key(issuer.certificate.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(now)
            .next_update(now + life)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
            .add_extension(x509.CRLNumber(issuer.lists), critical=False)
        )
        for number, when in issuer.revoked.items():
            row = x509.RevokedCertificateBuilder().serial_number(number)
            builder = builder.add_revoked_certificate(row.revocation_date(datetime.fromtimestamp(when, UTC)).build())
        return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, private keys included."""
        rows = [
            {
                "id": one.id,
                "key_id": one.key_id,
                "certificate": pem(one.certificate),
                "name": one.name,
                "late_leaves": one.late_leaves,
                "algorithm_shown": one.algorithm_shown,
                "revoked": {str(number): when for number, when in one.revoked.items()},
                "lists": one.lists,
            }
            for one in self.by_id.values()
        ]
        return {
            "issuers": rows,
            "keys": [[one.id, key_pem(one.key), one.name] for one in self.keys.values()],
            "default": self.default,
            "default_key": self.default_key,
            "stored": self.stored,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        for identifier, text, name in kept["keys"]:
            self.keys[identifier] = Key(identifier, serialization.load_pem_private_key(text.encode(), None), name)
        for row in kept["issuers"]:
            certificate = x509.load_pem_x509_certificate(row["certificate"].encode())
            revoked = {int(number): float(when) for number, when in row["revoked"].items()}
            self.by_id[row["id"]] = Issuer(**{**row, "certificate": certificate, "revoked": revoked})
        self.default, self.default_key = str(kept["default"]), str(kept["default_key"])
        self.stored = dict(kept["stored"])


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
