"""A PKI mount: its issuers, its roles, what it signs. Source: Vault's HTTP API, "PKI secrets engine"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lictor.dev.vault.answers import NOTHING, Ask, Failed, Json, Reply, not_here
from lictor.dev.vault.certificates import (
    Plan,
    asked_names,
    key_pem,
    make,
    names_of,
    new_key,
    pem,
    read_csr,
    serial,
)
from lictor.dev.vault.roles import check_key, plan_for, role_of
from lictor.dev.vault.tokens import new_id

CRL_LIFE = timedelta(hours=72)
OPEN = ("ca", "ca/pem", "ca_chain", "crl", "crl/pem", "cert/")  # anybody may read these
Metadata = Mapping[str, Mapping[str, str]]


@dataclass(slots=True)
class Issuer:
    """A certificate that this mount may sign with, or only knows (`key` None)."""

    id: str
    key_id: str
    certificate: x509.Certificate
    key: Any = field(default=None, repr=False)
    chain: list[str] = field(default_factory=list)  # certificates above it, as PEM


class Pki:
    """One mount."""

    def __init__(self, longest: Callable[[], float]) -> None:
        self._longest = longest
        self.roles: dict[str, Json] = {}
        self.issuers: dict[str, Issuer] = {}
        self.default = ""
        self.keys: dict[str, Any] = {}  # made here, without a certificate yet
        self.revoked: dict[str, float] = {}  # serial number: when
        self.urls: Json = {}

    def answer(self, ask: Ask, path: str, metadata: Metadata) -> Reply:  # noqa: C901, PLR0912 - a table of paths
        """Answer a request; `path` is that below the mount."""
        word, _, rest = path.partition("/")
        match ask.operation, word:
            case (("read" | "list" | "update" | "delete"), "roles"):
                return self._role(ask, rest)
            case "update", "sign" | "issue" | "sign-verbatim" if rest and word != "sign-verbatim":
                return self._sign(ask, rest, metadata, with_key=word == "issue")
            case "update", "root" | "issuers" if rest in {
                "generate/internal",
                "generate/exported",
                "generate/root/internal",
            }:
                return self._generate_root(ask, show_key=rest.endswith("exported"))
            case "update", "root" if rest == "sign-intermediate":
                return self._sign_intermediate(ask)
            case "update", "intermediate" if rest in {"generate/internal", "generate/exported"}:
                return self._generate_intermediate(ask, show_key=rest.endswith("exported"))
            case "update", "intermediate" if rest == "set-signed":
                return self._set_signed(ask)
            case "update", "config" if rest == "ca":
                return self._set_signed(ask, bundle=ask.text("pem_bundle"))
            case (("read" | "update"), "config"):
                return self._config(ask, rest)
            case "read", "cert" | "ca" | "ca_chain" | "crl":
                return self._certificate(path)
            case "list", "issuers" | "keys":
                return self._list(word)
            case (("read" | "update"), "issuer"):
                return self._issuer(rest)
            case "update", "revoke":
                return self._revoke(ask)
            case "list", "certs":
                raise Failed(404)
        raise not_here(ask)

    # --- roles ---

    def _role(self, ask: Ask, name: str) -> Reply:
        if not name:
            if not self.roles:
                raise Failed(404)
            return Reply({"keys": sorted(self.roles)})
        if ask.operation == "update":
            self.roles[name] = role_of(ask, self.roles.get(name) if ask.flag("patch") else None)
            return Reply(self.roles[name])
        if ask.operation == "delete":
            self.roles.pop(name, None)
            return NOTHING
        if name not in self.roles:
            raise Failed(404)
        return Reply(self.roles[name])

    def _sign(self, ask: Ask, name: str, metadata: Metadata, *, with_key: bool) -> Reply:
        role = self.roles.get(name)
        if role is None:
            raise Failed(400, f"unknown role: {name}")
        key: Any = None
        if with_key:
            key = new_key(role["key_type"] if role["key_type"] != "any" else "rsa", int(role["key_bits"]))
            public, of_csr = key.public_key(), None
        else:
            csr = read_csr(ask.text("csr"))
            public, of_csr = csr.public_key(), names_of(csr)
            check_key(role, public)
        plan = plan_for(role, ask, of_csr, metadata, self._longest())
        issuer = self._signing()
        end = issuer.certificate.not_valid_after_utc
        if (plan.not_after or datetime.now(UTC) + timedelta(seconds=plan.ttl)) > end:
            wanted = plan.not_after or "now + ttl"
            said = f"cannot satisfy request, as TTL would result in notAfter of {wanted} that is beyond"
            raise Failed(400, f"{said} the expiration of the CA certificate at {end.isoformat()}")
        made = make(plan, public, issuer.certificate, issuer.key)
        data: Json = {
            "ca_chain": [pem(issuer.certificate), *issuer.chain],
            "certificate": pem(made),
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuing_ca": pem(issuer.certificate),
            "serial_number": serial(made),
        }
        if key is not None:
            kind = "ec" if role["key_type"] == "ec" else "rsa"
            data |= {"private_key": key_pem(key), "private_key_type": kind}
        return Reply(data)

    def _signing(self) -> Issuer:
        issuer = self.issuers.get(self.default)
        if issuer is None:
            raise Failed(400, "error fetching CA certificate: no default issuer currently configured")
        if issuer.key is None:
            raise Failed(400, "error fetching CA certificate: unable to fetch corresponding key for issuer")
        return issuer

    # --- authorities ---

    def _generate_root(self, ask: Ask, *, show_key: bool) -> Reply:
        key = new_key(ask.text("key_type"), int(ask.data.get("key_bits") or 0))
        names = asked_names(ask)
        if not names.common_name:
            raise Failed(400, '"common_name" is required')  # fmt: skip
        ttl = min(ask.seconds("ttl") or self._longest(), self._longest())
        length = ask.data.get("max_path_length")
        plan = Plan(
            names, ttl, authority=True, path_length=int(length) if length is not None and int(length) >= 0 else None
        )
        made = make(plan, key.public_key(), None, key)
        issuer = self._add(made, key)
        data = {
            "certificate": pem(made),
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuer_id": issuer.id,
            "issuer_name": "",
            "issuing_ca": pem(made),
            "key_id": issuer.key_id,
            "key_name": "",
            "serial_number": serial(made),
        }
        return Reply({**data, **({"private_key": key_pem(key)} if show_key else {})})

    def _generate_intermediate(self, ask: Ask, *, show_key: bool) -> Reply:
        key = new_key(ask.text("key_type"), int(ask.data.get("key_bits") or 0))
        names = asked_names(ask)
        builder = x509.CertificateSigningRequestBuilder().subject_name(names.subject())
        alternatives = names.alternatives()
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        csr = builder.sign(key, hashes.SHA256())
        identifier = new_id()
        self.keys[identifier] = key
        text = csr.public_bytes(serialization.Encoding.PEM).decode().strip()
        return Reply({"csr": text, "key_id": identifier, **({"private_key": key_pem(key)} if show_key else {})})

    def _sign_intermediate(self, ask: Ask) -> Reply:
        csr, issuer = read_csr(ask.text("csr")), self._signing()
        names = names_of(csr) if ask.flag("use_csr_values") else asked_names(ask)
        ttl = min(ask.seconds("ttl") or self._longest(), self._longest())
        left = (issuer.certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds()
        length = ask.data.get("max_path_length")
        limit = int(length) if length is not None and int(length) >= 0 else None
        plan = Plan(names, min(ttl, left), authority=True, path_length=limit)
        made = make(plan, csr.public_key(), issuer.certificate, issuer.key)
        certificate = pem(made)
        if ask.text("format") == "pem_bundle":
            certificate = "\n".join((certificate, pem(issuer.certificate)))
        data = {
            "ca_chain": [pem(issuer.certificate), *issuer.chain],
            "certificate": certificate,
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuing_ca": pem(issuer.certificate),
            "serial_number": serial(made),
        }
        return Reply(data)

    def _set_signed(self, ask: Ask, bundle: str = "") -> Reply:
        text = bundle or ask.text("certificate")
        try:
            certificates = x509.load_pem_x509_certificates(text.encode())
        except ValueError as error:
            raise Failed(400, "unable to parse PEM bundle" if text else "no certificate in the request") from error
        chain = [pem(one) for one in certificates[1:]]
        added = [self._import(one, chain if number == 0 else [], text) for number, one in enumerate(certificates)]
        self.default = added[0].id
        data = {"existing_issuers": None, "existing_keys": None, "imported_issuers": [one.id for one in added]}
        mapping = {one.id: one.key_id for one in added}
        return Reply({**data, "imported_keys": [one.key_id for one in added if one.key_id] or None, "mapping": mapping})

    def _import(self, certificate: x509.Certificate, chain: list[str], text: str) -> Issuer:
        own = certificate.public_key()
        candidates = dict(self.keys)
        if "PRIVATE KEY-----" in text:
            begin = text.index("-----BEGIN", max(0, text.index("PRIVATE KEY") - 20))
            candidates[new_id()] = serialization.load_pem_private_key(text[begin:].encode(), None)
        for identifier, key in candidates.items():
            if key.public_key() == own:
                return self._add(certificate, key, chain, identifier)
        return self._add(certificate, None, chain, "")

    def _add(
        self, certificate: x509.Certificate, key: Any, chain: list[str] | None = None, key_id: str | None = None
    ) -> Issuer:
        issuer = Issuer(new_id(), new_id() if key_id is None else key_id, certificate, key, chain or [])
        self.issuers[issuer.id] = issuer
        self.default = self.default or issuer.id
        return issuer

    # --- reads ---

    def _certificate(self, path: str) -> Reply:
        if path == "cert/crl":
            return Reply(
                {"certificate": self._crl().decode().strip(), "revocation_time": 0, "revocation_time_rfc3339": ""}
            )
        if path in {"crl", "crl/pem"}:
            return Reply(raw=(self._crl(), "application/pkix-crl"))
        if path.startswith("cert/") and path not in {"cert/ca", "cert/ca_chain"}:
            raise Failed(404, "unsupported path")
        issuer = self.issuers.get(self.default)
        if path in {"ca", "ca/pem", "ca_chain"}:
            if issuer is None:
                return Reply(status=204)
            parts = [pem(issuer.certificate), *(issuer.chain if path == "ca_chain" else [])]
            return Reply(raw=("\n".join(parts).encode(), "application/pem-certificate-chain"))
        if issuer is None:
            raise Failed(400, "no default issuer currently configured")
        whole = "\n".join([pem(issuer.certificate), *issuer.chain])
        data: Json = {"certificate": whole if path == "cert/ca_chain" else pem(issuer.certificate)}
        if path == "cert/ca_chain":
            data["ca_chain"] = whole
        return Reply({**data, "revocation_time": 0, "revocation_time_rfc3339": ""})

    def _crl(self) -> bytes:
        issuer, now = self._signing(), datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
        builder = builder.last_update(now).next_update(now + CRL_LIFE)
        for number, when in self.revoked.items():
            row = x509.RevokedCertificateBuilder().serial_number(int(number.replace(":", ""), 16))
            builder = builder.add_revoked_certificate(row.revocation_date(datetime.fromtimestamp(when, UTC)).build())
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _revoke(self, ask: Ask) -> Reply:
        number = ask.text("serial_number").replace("-", ":")
        if not number:
            raise Failed(400, "The serial number or certificate to revoke must be provided.")
        now = datetime.now(UTC)
        self.revoked.setdefault(number, now.timestamp())
        return Reply(
            {"revocation_time": int(now.timestamp()), "revocation_time_rfc3339": now.isoformat(), "state": "revoked"}
        )

    def _list(self, word: str) -> Reply:
        if word == "keys":
            found = {issuer.key_id for issuer in self.issuers.values() if issuer.key_id} | set(self.keys)
            return Reply(
                {"keys": sorted(found), "key_info": {one: {"is_default": False, "key_name": ""} for one in found}}
            )
        if not self.issuers:
            raise Failed(404)
        info = {
            issuer.id: {
                "is_default": issuer.id == self.default,
                "issuer_name": "",
                "key_id": issuer.key_id,
                "serial_number": serial(issuer.certificate),
            }
            for issuer in self.issuers.values()
        }
        return Reply({"keys": list(info), "key_info": info})

    def _issuer(self, reference: str) -> Reply:
        identifier = self.default if reference.partition("/")[0] == "default" else reference.partition("/")[0]
        issuer = self.issuers.get(identifier)
        if issuer is None:
            raise Failed(500, f"unable to find issuer for reference: {reference}")
        if reference.endswith("/pem"):
            return Reply(raw=(pem(issuer.certificate).encode(), "application/pem-certificate-chain"))
        data = {
            "ca_chain": [pem(issuer.certificate) + "\n", *(one + "\n" for one in issuer.chain)],
            "certificate": pem(issuer.certificate) + "\n",
            "issuer_id": issuer.id,
            "issuer_name": "",
            "key_id": issuer.key_id,
            "leaf_not_after_behavior": "err",
            "manual_chain": None,
            "revoked": False,
            "usage": "crl-signing,issuing-certificates,ocsp-signing,read-only",
        }
        return Reply(data)

    def _config(self, ask: Ask, what: str) -> Reply:
        if what == "issuers":
            if ask.operation == "update":
                if ask.text("default") not in self.issuers:
                    raise Failed(400, f"unable to find issuer for reference: {ask.text('default')}")
                self.default = ask.text("default")
            return Reply({"default": self.default, "default_follows_latest_issuer": False})
        if what == "urls":
            if ask.operation == "update":
                self.urls = {name: ask.words(name) for name in ask.data}
            return Reply({"crl_distribution_points": [], "issuing_certificates": [], "ocsp_servers": [], **self.urls})
        raise not_here(ask)

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, private keys included."""
        issuers = [
            [one.id, one.key_id, pem(one.certificate), key_pem(one.key) if one.key else "", one.chain]
            for one in self.issuers.values()
        ]
        keys = {identifier: key_pem(key) for identifier, key in self.keys.items()}
        return {
            "roles": self.roles,
            "issuers": issuers,
            "default": self.default,
            "keys": keys,
            "revoked": self.revoked,
            "urls": self.urls,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.roles, self.default = dict(kept["roles"]), str(kept["default"])
        self.revoked, self.urls = dict(kept["revoked"]), dict(kept["urls"])
        self.keys = {identifier: _key(text) for identifier, text in kept["keys"].items()}
        for identifier, key_id, text, key, chain in kept["issuers"]:
            certificate = x509.load_pem_x509_certificate(text.encode())
            self.issuers[identifier] = Issuer(identifier, key_id, certificate, _key(key) if key else None, list(chain))


def _key(text: str) -> Any:
    return serialization.load_pem_private_key(text.encode(), None)
