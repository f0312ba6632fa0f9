"""How one speaks with a Vault in a dialogue, and what of its answers differs by nature from server to server.

What a step kept is written <name> wherever it comes back, so that an accessor has to be that of the very token.
Certificates, requests, revocation lists and keys are told in words: two are equal when they say the same.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from harness.dialogues import Manner, mask_text

HEADERS = ("Content-Type", "Allow", "Cache-Control")
_SECRETS = frozenset({"accessor", "client_token", "cluster_id", "cluster_name", "commit_date", "version"})
_VERSIONS = frozenset({"build_date", "running_plugin_version", "running_sha256"})
_COUNTING = frozenset({"ttl", "lease_duration"})  # goes down from answer to answer: compared in steps of twenty seconds
_MOMENTS = frozenset(
    {"expiration", "creation_time", "server_time_utc", "revocation_time", "not_before", "last_renewal_time"}
)
_TOKEN = re.compile(r"\b(?:hv)?[sbr]\.[A-Za-z0-9_-]{20,}")
_ACCESSOR = re.compile(r"\b[A-Za-z0-9]{24}\b")
_MOUNT = re.compile(r"\b([a-z]+(?:_[a-z]+)?)_[0-9a-f]{8}\b")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n.*?-----END \1-----", re.DOTALL)
_SHORT_SECONDS, _COARSE = 120, 20
_LONG_ENOUGH = 8  # of a kept value: "a" would be found everywhere


def masked(raw: bytes, kept: Mapping[str, str]) -> Any:
    """Return an answer without what differs from server to server."""
    try:
        return _masked(json.loads(raw), kept)
    except ValueError:
        pass
    for load in (x509.load_der_x509_certificate, x509.load_der_x509_crl):
        try:
            return f"DER {_told(load(raw))}"
        except ValueError:
            continue
    return _text(raw.decode("utf-8", "replace"), kept)


def _masked(value: Any, kept: Mapping[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return _object(value, kept)
    if isinstance(value, list):
        found = [_masked(one, kept, key) for one in value]
        return sorted(found) if key == "keys" and any("<" in str(one) for one in found) else found
    if isinstance(value, str):
        return (
            f"<{key}>" if value and key in _SECRETS | _VERSIONS and value not in kept.values() else _text(value, kept)
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return _number(value, key)
    return value


def _object(value: Mapping[str, Any], kept: Mapping[str, str]) -> dict[str, Any]:
    """Return an object; where masked names become equal, their values in an order of their own."""
    found: dict[str, list[Any]] = {}
    for name, one in value.items():
        found.setdefault(_text(name, kept), []).append(_masked(one, kept, name))
    return {name: ones[0] if len(ones) == 1 else sorted(ones, key=repr) for name, ones in found.items()}


def _number(value: int, key: str) -> Any:
    if key in _MOMENTS and value:
        return f"in {_coarse(value - time.time())} s"
    return f"about {_coarse(value)} s" if key in _COUNTING and value else value


def _coarse(seconds: float) -> int | str:
    """Return seconds so that an answer a moment later says the same."""
    # Round times, and those with the thirty seconds that certificates begin early, are far from where steps meet.
    return int((seconds + _COARSE - 5) // _COARSE) * _COARSE if abs(seconds) > _SHORT_SECONDS else "few"


def _text(text: str, kept: Mapping[str, str]) -> str:
    text = _PEM.sub(lambda found: _told_pem(found[1], found[0]), text)
    for name, value in kept.items():
        if len(value) >= _LONG_ENOUGH and not value.startswith("-----"):
            text = text.replace(value, f"<{name}>")
    text = _ACCESSOR.sub("<accessor>", _MOUNT.sub(r"\1_<n>", _TOKEN.sub("<token>", text)))
    # An answer that comes a moment after what it tells of.
    return mask_text(re.sub(r'"(\d+)m5\ds"', lambda found: f'"{int(found[1]) + 1}m"'.replace('"60m"', '"1h"'), text))


# --- certificates in words -------------------------------------------------------------------------------------------


def _told_pem(label: str, text: str) -> str:
    data = text.encode()
    if label == "CERTIFICATE":
        return _told(x509.load_pem_x509_certificate(data))
    if label == "X509 CRL":
        return _told(x509.load_pem_x509_crl(data))
    if label == "CERTIFICATE REQUEST":
        csr = x509.load_pem_x509_csr(data)
        return f"<request {_name(csr.subject)}, {_key(csr.public_key())}, {_extensions(csr.extensions)}>"
    if label.endswith("PRIVATE KEY"):
        return f"<{label}: {_key(serialization.load_pem_private_key(data, None).public_key())}>"
    return f"<{label}>"


def _told(what: x509.Certificate | x509.CertificateRevocationList) -> str:
    algorithm = _oid(what.signature_algorithm_oid)
    if isinstance(what, x509.Certificate):
        now = datetime.now(UTC)
        begins = _coarse((what.not_valid_before_utc - now).total_seconds())
        ends = _coarse((what.not_valid_after_utc - now).total_seconds())
        whole = _coarse((what.not_valid_after_utc - what.not_valid_before_utc).total_seconds())
        life = f"from {begins} to {ends} s, life {whole}"
        names = f"{_name(what.subject)} by {_name(what.issuer)}"
        return f"<certificate {names}, {life}, {_key(what.public_key())}, {algorithm}, {_extensions(what.extensions)}>"
    last = what.last_update_utc
    life = f"life {_coarse(((what.next_update_utc or last) - last).total_seconds())}"
    return f"<list by {_name(what.issuer)}, {len(what)} revoked, {life}, {algorithm}, {_extensions(what.extensions)}>"


def _oid(oid: x509.ObjectIdentifier) -> str:
    return oid._name  # noqa: SLF001 - cryptography has no other way from an identifier to its name


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "nobody"


def _key(key: Any) -> str:
    kind = (
        "ec" if isinstance(key, ec.EllipticCurvePublicKey) else "rsa" if isinstance(key, rsa.RSAPublicKey) else "other"
    )
    return f"{kind} {getattr(key, 'key_size', '')}"


def _extensions(extensions: x509.Extensions) -> str:
    return "; ".join(sorted(f"{'!' if one.critical else ''}{_extension(one)}" for one in extensions))


def _extension(extension: x509.Extension[Any]) -> str:
    value, name = extension.value, _oid(extension.oid)
    match value:
        case x509.SubjectKeyIdentifier() | x509.AuthorityKeyIdentifier() | x509.CRLNumber():
            return name
        case x509.KeyUsage():
            found = [word for word in dir(value) if word.islower() and not word.startswith("_") and _usage(value, word)]
            return f"{name} {' '.join(found)}"
        case x509.ExtendedKeyUsage():
            return f"{name} {' '.join(map(_oid, value))}"
        case x509.SubjectAlternativeName():
            return f"{name} {' '.join(f'{type(one).__name__}:{one.value}' for one in value)}"
        case x509.BasicConstraints():
            return f"{name} {value.ca} {value.path_length}"
    if extension.oid in {ExtensionOID.CRL_DISTRIBUTION_POINTS, ExtensionOID.AUTHORITY_INFORMATION_ACCESS}:
        return f"{name} {' '.join(re.findall(r'value=.([^<>)]+?).[)>]', repr(value)))}"
    return f"{name} {value!r}"


def _usage(value: x509.KeyUsage, word: str) -> bool:
    try:
        return getattr(value, word) is True
    except ValueError:  # encipher_only and decipher_only mean nothing without key_agreement
        return False


VAULT = Manner(
    "X-Vault-Token",
    HEADERS,
    (),
    masked,
    lambda found: str(found["data"]["id"]),
    {"Content-Type": "application/json"},
    patience=0.0,
)
