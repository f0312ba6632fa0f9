"""The Connect CA: roots, leaves, their renewal; by a CA of its own, or by Vault as Consul's provider does.

Source: Consul's HTTP API, "Connect CA" and `GET /v1/agent/connect/ca/leaf/:service`.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lictor.dev.consul.ca_config import KeySettings, leaf_seconds
from lictor.dev.consul.state import DATACENTER, Json, State
from lictor.dev.consul.vault_ca import VaultCa

DEFAULT_CONFIG = {"IntermediateCertTTL": "8760h", "LeafCertTTL": "72h", "RootCertTTL": "87600h"}
ROOT_LIFE = timedelta(days=3650)
BACKDATED = timedelta(minutes=1)
FIRST_SERIAL = 7
RENEW_AT = (0.6, 0.9)  # of a leaf's life; the agent picks a point between


class Provider(Protocol):
    """Who holds the signing key."""

    name: str
    config: Json
    roots: list[Json]

    async def sign(self, csr: x509.CertificateSigningRequest, uri: str) -> str:
        """Return the certificate and its intermediates as PEM."""
        ...

    def kept(self) -> Json:
        """Return what it needs to be the same after a restart."""
        ...


@dataclass(slots=True)
class Leaf:
    """A leaf that the agent holds."""

    row: Json
    renew: datetime


class Connect:
    """The CA of the mesh."""

    def __init__(self, state: State, cluster_id: str = "") -> None:
        self._state = state
        self.cluster_id = cluster_id or str(uuid.uuid4())
        self.old_roots: list[Json] = []
        self.provider: Provider = BuiltIn(self)
        self.leaves: dict[str, Leaf] = {}
        self.config_indexes = (5, state.touch(("roots",)))

    @property
    def trust_domain(self) -> str:
        """Return the trust domain."""
        return f"{self.cluster_id}.consul"

    def roots(self) -> Json:
        """Return the answer of `GET /v1/agent/connect/ca/roots`."""
        rows = [*self.provider.roots, *self.old_roots]
        return {"ActiveRootID": self.provider.roots[0]["ID"], "TrustDomain": self.trust_domain, "Roots": rows}

    def use(self, provider: Provider) -> None:
        """Sign by another provider from now on; the old roots stay trusted, and every leaf is renewed."""
        before = {row["ID"] for row in provider.roots}
        gone = [{**row, "Active": False} for row in self.provider.roots if row["ID"] not in before]
        self.old_roots = [row for row in (*gone, *self.old_roots) if row["ID"] not in before]
        self.provider = provider
        index = self._state.touch(("roots",))
        self.config_indexes = (self.config_indexes[0], index)
        self.leaves.clear()
        self._state.touch(("leaves",))

    def uri(self, service: str) -> str:
        """Return the SPIFFE ID of a service."""
        return f"spiffe://{self.trust_domain}/ns/default/dc/{DATACENTER}/svc/{service}"

    async def leaf(self, service: str) -> Json:
        """Return a leaf of a service, a new one when the one that is held is due."""
        held = self.leaves.get(service)
        if held is None or datetime.now(UTC) >= held.renew:
            held = await self._issue(service)
            self.leaves[service] = held
        return held.row

    async def _issue(self, service: str) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        uri = self.uri(service)
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = request.add_extension(name, critical=True).sign(key, hashes.SHA256())
        pem = await self.provider.sign(csr, uri)
        certificate = x509.load_pem_x509_certificate(pem.encode())
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        index = self._state.touch(("leaf", service))
        part = RENEW_AT[0] + (RENEW_AT[1] - RENEW_AT[0]) * secrets.randbelow(1000) / 1000
        row = {
            "SerialNumber": _colons(certificate.serial_number),
            "CertPEM": pem,
            "PrivateKeyPEM": _key_pem(key),
            "Service": service,
            "ServiceURI": uri,
            "ValidAfter": _time(begin),
            "ValidBefore": _time(end),
            "CreateIndex": index,
            "ModifyIndex": index,
        }
        return Leaf(row, begin + (end - begin) * part)

    def dump(self) -> Json:
        """Return what has to be the same after a restart: the trust domain, and who signs, with its secrets."""
        provider = self.provider
        kept = {"name": provider.name, "config": provider.config, "kept": provider.kept()}
        return {"cluster_id": self.cluster_id, "provider": kept, "old_roots": self.old_roots}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.cluster_id, self.old_roots = str(kept["cluster_id"]), list(kept["old_roots"])
        provider = kept["provider"]
        if provider["name"] == VaultCa.name:
            self.provider = VaultCa(provider["config"], provider["kept"]["roots"])
        else:
            self.provider = BuiltIn(self, provider["kept"], provider["config"])
        self.leaves.clear()


class BuiltIn:
    """A CA whose key is in this process's memory."""

    name = "consul"

    def __init__(self, connect: Connect, kept: Mapping[str, Any] | None = None, config: Json | None = None) -> None:
        self.config: Json = dict(config if config is not None else DEFAULT_CONFIG)
        self._serial = FIRST_SERIAL + len(connect.old_roots)
        if kept:
            self._key: Any = serialization.load_pem_private_key(kept["key"].encode(), None)
            self._root = x509.load_pem_x509_certificate(kept["root"].encode())
        else:
            settings = KeySettings.of(self.config)
            self._key = settings.key()
            given = settings.certificate.encode()
            self._root = x509.load_pem_x509_certificate(given) if given else self._make_root(connect)
        self.roots = [root_row(_pem(self._root), connect.cluster_id, self._serial)]

    def kept(self) -> Json:
        """Return the key and the root as PEM."""
        return {"key": _key_pem(self._key), "root": _pem(self._root)}

    def _make_root(self, connect: Connect) -> x509.Certificate:
        short = connect.cluster_id.partition("-")[0]
        common = f"pri-{secrets.token_hex(4)[:7]}.consul.ca.{short}.consul"
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        public = self._key.public_key()
        uri = x509.UniformResourceIdentifier(f"spiffe://{connect.trust_domain}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(self._serial)
            .not_valid_before(now)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    async def sign(self, csr: x509.CertificateSigningRequest, uri: str) -> str:
        """Return a leaf for a request."""
        now = datetime.now(UTC)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._root.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now - BACKDATED + timedelta(seconds=leaf_seconds(self.config)))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )
        return _pem(builder.sign(self._key, hashes.SHA256()))


def root_row(pem: str, cluster_id: str, serial: int | None = None) -> Json:
    """Return a root in the shape of `GET /v1/agent/connect/ca/roots`."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    fingerprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - Consul's ID of a root
    signer = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
    rsa = not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    return {
        "ID": _pairs(fingerprint),
        "Name": "Consul CA Primary Cert" if serial else "Vault CA Primary Cert",
        "SerialNumber": serial or certificate.serial_number & ((1 << 64) - 1),
        "SigningKeyID": _pairs(signer),
        "ExternalTrustDomain": cluster_id,
        "NotBefore": _time(certificate.not_valid_before_utc),
        "NotAfter": _time(certificate.not_valid_after_utc),
        "RootCert": pem,
        "IntermediateCerts": None,
        "Active": True,
        "PrivateKeyType": "rsa" if rsa else "ec",
        "PrivateKeyBits": certificate.public_key().key_size,  # type: ignore[union-attr]
        "CreateIndex": 9,
        "ModifyIndex": 9,
    }


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=not ca,
        key_agreement=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return str(key.private_bytes(encoding, form, serialization.NoEncryption()).decode())


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _colons(number: int) -> str:
    digits = f"{number:x}"
    return _pairs(digits if len(digits) % 2 == 0 else f"0{digits}")


def _pairs(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
