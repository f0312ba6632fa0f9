"""Making and taking in authorities: roots, requests for intermediates, their certificates, bundles from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lictor.dev.vault import fields
from lictor.dev.vault.answers import Failed, Internal, Json, Reply, not_so
from lictor.dev.vault.certificates import (
    SUBJECT,
    Plan,
    asked_names,
    key_kind,
    key_pem,
    make,
    names_of,
    new_key,
    pem,
    read_csr,
    serial,
)
from lictor.dev.vault.issuers import Issuers
from lictor.dev.vault.routes import Call, Route
from lictor.dev.vault.tokens import LONGEST_TTL

_NAMES: fields.Kinds = {
    "alt_names": fields.commas,
    "common_name": fields.text,
    "exclude_cn_from_sans": fields.flag,
    "format": fields.text,
    "ip_sans": fields.commas,
    "max_path_length": fields.number,
    "not_after": fields.text,
    "not_before_duration": fields.duration,
    "other_sans": fields.commas,
    "permitted_dns_domains": fields.commas,
    "private_key_format": fields.text,
    "serial_number": fields.text,
    "signature_bits": fields.number,
    "ttl": fields.duration,
    "uri_sans": fields.commas,
    "use_pss": fields.flag,
    **dict.fromkeys(SUBJECT, fields.commas),
}
_GENERATE: fields.Kinds = {
    **_NAMES,
    "add_basic_constraints": fields.flag,
    "issuer_name": fields.text,
    "key_bits": fields.number,
    "key_name": fields.text,
    "key_ref": fields.text,
    "key_type": fields.text,
}
_SIGN: fields.Kinds = {**_NAMES, "csr": fields.text, "issuer_ref": fields.text, "use_csr_values": fields.flag}
_BUNDLE: fields.Kinds = {"certificate": fields.text, "pem_bundle": fields.text}
_NOT_HERE = ("not_after", "other_sans", "permitted_dns_domains", "serial_number", "signature_bits", "use_pss")
_SHORTEST_PEM = 75  # characters: less can only be a slip
_FORMATS = frozenset({"", "pem", "pem_bundle", "der"})


class Authorities:
    """The endpoints that make authorities. `longest` is the mount's longest life, `urls` what it writes into them."""

    def __init__(
        self, issuers: Issuers, longest: Callable[[], float], urls: Callable[[], dict[str, list[str]]]
    ) -> None:
        self._issuers = issuers
        self._longest = longest
        self._urls = urls

    def routes(self) -> tuple[Route, ...]:
        """Return what is answered under the mount."""
        root = {"update": self._generate_root}
        return (
            Route("root/generate/{exported}", root, _GENERATE),
            Route("root/rotate/{exported}", root, _GENERATE),
            Route("issuers/generate/root/{exported}", root, _GENERATE),
            Route("root/sign-intermediate", {"update": self._sign_intermediate}, _SIGN),
            Route("issuer/{issuer_ref}/sign-intermediate", {"update": self._sign_intermediate}, _SIGN),
            Route("intermediate/generate/{exported}", {"update": self._generate_request}, _GENERATE),
            Route("issuers/generate/intermediate/{exported}", {"update": self._generate_request}, _GENERATE),
            Route("intermediate/set-signed", {"update": self._import}, _BUNDLE),
            Route("issuers/import/(cert|bundle)", {"update": self._import}, _BUNDLE),
            Route("config/ca", {"update": self._import}, _BUNDLE),
        )

    # --- making them ---

    def _key(self, call: Call) -> Any:
        kind = call.names["exported"]
        if kind in {"existing", "kms"}:
            raise not_so(f"an authority whose key is {kind}")
        if kind not in {"internal", "exported"}:
            told = 'the "exported" path parameter must be "internal", "existing", exported" or "kms"'
            raise Failed(400, told)
        check_format(call.get("format"))
        for name in _NOT_HERE:
            if call.get(name):
                raise not_so(f"an authority with {name}")
        return new_key(call.get("key_type"), call.get("key_bits") or 0)

    def _shown_key(self, call: Call, key: Any) -> Json:
        if call.names["exported"] != "exported":
            return {}
        pkcs8 = call.get("private_key_format") == "pkcs8"
        return {"private_key": key_pem(key, pkcs8=pkcs8), "private_key_type": key_kind(key)}

    def _generate_root(self, call: Call) -> Reply:
        key, issuers = self._key(call), self._issuers
        rotated = call.ask.path.endswith(f"root/rotate/{call.names['exported']}")
        name = call.get("issuer_name") or ("next" if rotated else "")
        if name and issuers.find(name) is not None:
            raise Failed(400, "issuer name already in use")
        made = make(self._plan(call), key.public_key(), None, key)
        held = issuers.add_key(key, call.get("key_name"))
        issuer, _ = issuers.add(made, name)
        issuers.store(made)
        data = {
            "certificate": pem(made),
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuer_id": issuer.id,
            "issuer_name": issuer.name,
            "issuing_ca": pem(made),
            "key_id": held.id,
            "key_name": held.name,
            "serial_number": serial(made),
        }
        return Reply({**data, **self._shown_key(call, key)})

    def _plan(self, call: Call, csr: x509.CertificateSigningRequest | None = None) -> Plan:
        longest = self._longest()
        given = call.given
        if csr is not None and not call.get("use_csr_values") and not call.get("common_name"):
            given = {**given, "common_name": names_of(csr).common_name}
        names = asked_names(given) if csr is None or not call.get("use_csr_values") else names_of(csr)
        length = call.given.get("max_path_length", -1)
        ttl = min(call.get("ttl") or LONGEST_TTL, longest)
        urls = self._urls()
        return Plan(names, ttl, authority=True, path_length=length if length >= 0 else None, urls=urls)

    def _generate_request(self, call: Call) -> Reply:
        key = self._key(call)
        names = asked_names(call.given)
        builder = x509.CertificateSigningRequestBuilder().subject_name(names.subject())
        alternatives = names.alternatives()
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        if call.get("add_basic_constraints"):
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        csr = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        held = self._issuers.add_key(key, call.get("key_name"))
        text = csr.public_bytes(serialization.Encoding.PEM).decode().strip()
        return Reply({"csr": text, "key_id": held.id, **self._shown_key(call, key)})

    def _sign_intermediate(self, call: Call) -> Reply:
        reference = call.names.get("issuer_ref") or call.get("issuer_ref") or "default"
        issuer, key = self._issuers.signing(reference)
        check_format(call.get("format"))
        csr = read_csr(call.get("csr"))
        for name in _NOT_HERE:
            if call.get(name):
                raise not_so(f"an authority with {name}")
        made = make(self._plan(call, csr), csr.public_key(), issuer.certificate, key)
        self._issuers.store(made)
        chain = [pem(one) for one in self._issuers.chain(issuer)]
        certificate = pem(made)
        data = {
            "ca_chain": [certificate, *chain],
            "certificate": "\n".join([certificate, *chain]) if call.get("format") == "pem_bundle" else certificate,
            "expiration": int(made.not_valid_after_utc.timestamp()),
            "issuing_ca": chain[0],
            "serial_number": serial(made),
        }
        return Reply(data)

    # --- taking them in ---

    def _import(self, call: Call) -> Reply:
        text = str(call.get("pem_bundle") or call.get("certificate"))
        if not text:
            raise Failed(400, "'pem_bundle' and 'certificate' parameters were empty")
        if len(text) < _SHORTEST_PEM:
            told = "perhaps a path was passed to the API rather than the contents of a PEM file"
            raise Failed(400, f"provided data for import was too short; {told}")
        blocks = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", text, re.DOTALL)
        with_keys = call.ask.path.endswith(("/config/ca", "/issuers/import/bundle"))
        if not with_keys and any(label != "CERTIFICATE" for label in blocks):
            told = "private keys found in the PEM bundle but not allowed by the path; use /issuers/import/bundle"
            raise Failed(400, told)
        return Reply(self._imported(text))

    def _imported(self, text: str) -> Json:
        issuers = self._issuers
        keys: dict[bool, list[str]] = {True: [], False: []}  # by whether it is new
        found: dict[bool, list[str]] = {True: [], False: []}
        mapping: dict[str, str] = {}
        try:
            certificates = x509.load_pem_x509_certificates(text.encode()) if "BEGIN CERTIFICATE" in text else []
            for block in re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?KEY-----", text, re.DOTALL):
                known = set(issuers.keys)
                key = issuers.add_key(serialization.load_pem_private_key(block.encode(), None))
                keys[key.id not in known].append(key.id)
        except ValueError as error:
            raise Failed(400, f"unable to parse PEM bundle: {error}") from error
        for one in certificates:
            issuer, new = issuers.add(one)
            found[new].append(issuer.id)
            mapping[issuer.id] = issuer.key_id
        if not certificates and not any(keys.values()):
            raise Internal(500, "unable to parse PEM bundle")
        return {
            "existing_issuers": found[False] or None,
            "existing_keys": keys[False] or None,
            "imported_issuers": found[True] or None,
            "imported_keys": keys[True] or None,
            "mapping": mapping,
        }


def check_format(text: str) -> None:
    """Refuse a format that there is not, and the one that is not done here."""
    if text not in _FORMATS:
        raise Failed(400, 'the "format" path parameter must be "pem", "der", or "pem_bundle"')
    if text == "der":
        raise not_so("certificates in the format der")
