"""Checks of inline-certificate: PEM that parses, a key that fits, host names that can be."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from policies.entries.check_common import check_meta, is_domain_name
from policies.entries.gotext import quote
from policies.errors import EntryError

_SHORTEST_RSA = 2048


def check_inline_certificate(entry: dict[str, Any]) -> None:
    """Refuse a certificate that could not be served. Texts of Go's own parsers are not imitated to the letter."""
    check_meta(entry)
    if "-----BEGIN " not in entry["PrivateKey"]:
        raise EntryError("failed to parse private key PEM")
    if "-----BEGIN " not in entry["Certificate"]:
        key = _key(entry["PrivateKey"])
        _check_length(key)
        raise EntryError("failed to parse certificate PEM")
    key = _key(entry["PrivateKey"])
    _check_length(key)
    try:
        certificate = x509.load_pem_x509_certificate(entry["Certificate"].encode())
    except ValueError as error:
        raise EntryError(f"failed to parse certificate: {error}") from None
    if certificate.public_key() != key.public_key():
        raise EntryError("tls: private key does not match public key")
    for host in _hosts(certificate):
        if not is_domain_name(host):
            raise EntryError(f"host {quote(host)} must be a valid DNS hostname")


def _key(pem: str) -> Any:
    try:
        return serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise EntryError(f"tls: failed to parse private key: {error}") from None


def _check_length(key: Any) -> None:
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _SHORTEST_RSA:
        raise EntryError(f"key length must be at least {_SHORTEST_RSA} bits")


def _hosts(certificate: x509.Certificate) -> list[str]:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    hosts = [str(names[-1].value) if names else ""]
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return hosts
    hosts += alternatives.get_values_for_type(x509.DNSName)
    return hosts + [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
