"""What the CA's configuration may be, and what it means: kind of key, times of certificates.

Source: Consul's HTTP API, `PUT /v1/connect/ca/configuration`; the texts of refusal are those of the real server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lictor.dev.consul.refusals import Refused
from policies.durations import format_duration, parse_duration, parse_nanoseconds
from policies.errors import EntryError

HOUR = 3600.0
SHORTEST_LEAF, SHORTEST_INTERMEDIATE = HOUR, 3 * HOUR
_DEFAULTS = {"LeafCertTTL": 72 * HOUR, "IntermediateCertTTL": 8760 * HOUR, "RootCertTTL": 87600 * HOUR}
_CURVES: dict[int, type[ec.EllipticCurve]] = {
    224: ec.SECP224R1,
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
_RSA_BITS = (2048, 4096)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class KeySettings:
    """Which key a root has: given, or made of a kind and size. Another one is another root."""

    given: str = ""
    certificate: str = ""
    kind: str = "ec"
    bits: int = 256

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> KeySettings:
        """Return the settings of a configuration. Raise Refused."""
        folded = {name.lower(): value for name, value in config.items()}
        kind = str(folded.get("privatekeytype") or "ec")
        if kind not in {"ec", "rsa"}:
            raise _refused("private key type must be either 'ec' or 'rsa'")
        bits = int(folded.get("privatekeybits") or (256 if kind == "ec" else 2048))
        if kind == "ec" and bits not in _CURVES:
            raise _refused("EC key length must be one of (224, 256, 384, 521) bits")
        if kind == "rsa" and bits not in _RSA_BITS:
            raise _refused("RSA key length must be 2048 or 4096 bits")
        return cls(str(folded.get("privatekey") or ""), str(folded.get("rootcert") or ""), kind, bits)

    def key(self) -> Key:
        """Return the key: the one that is given, or a new one. Raise Refused."""
        if not self.given:
            if self.kind == "ec":
                return ec.generate_private_key(_CURVES[self.bits]())
            return rsa.generate_private_key(65537, self.bits)
        try:
            key = serialization.load_pem_private_key(self.given.encode(), None)
        except ValueError as error:
            said = f'error generating CA: error parsing private key "{self.given}": no PEM-encoded data found'
            raise Refused(500, f"error generating CA root certificate: {said}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise _refused("private key type must be either 'ec' or 'rsa'")
        return key


def check_times(config: Mapping[str, Any]) -> None:
    """Refuse times that do not fit each other (500)."""
    leaf, intermediate, root = (_seconds(config, name) for name in _DEFAULTS)
    if leaf < SHORTEST_LEAF:
        raise _refused("leaf cert TTL must be greater or equal than 1h0m0s")
    if intermediate < SHORTEST_INTERMEDIATE:
        raise _refused("Intermediate Cert TTL must be greater or equal than 3h")
    if leaf >= _DEFAULTS["IntermediateCertTTL"]:
        raise _refused("leaf cert TTL must be less than 8760h0m0s")
    if intermediate < 3 * leaf:
        least = format_duration(round(3 * leaf * 1e9))
        raise _refused(f"Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>={least}).")
    if root <= intermediate:
        told = [format_duration(round(seconds * 1e9)) for seconds in (root, intermediate)]
        raise _refused(
            "root cert TTL is set and is not greater than intermediate cert ttl."
            f" root cert ttl: {told[0]}, intermediate cert ttl: {told[1]}"
        )


def check_vault(config: Mapping[str, Any]) -> None:
    """Refuse settings with which Vault cannot be asked (500)."""
    if not config.get("Token") and not config.get("AuthMethod"):
        raise _refused("must provide a Vault token or configure a Vault auth method")
    if not config.get("IntermediatePKIPath"):
        raise _refused("must provide a valid path for the intermediate PKI backend")
    if not config.get("RootPKIPath"):
        raise _refused("must provide a valid path to a root PKI backend")
    if not config.get("Address"):
        raise _refused("must provide a valid Vault address")


def leaf_seconds(config: Mapping[str, Any]) -> float:
    """Return how long leaves live."""
    return _seconds(config, "LeafCertTTL")


def _seconds(config: Mapping[str, Any], name: str) -> float:
    value = next((value for key, value in config.items() if key.lower() == name.lower()), None)
    if not value:
        return _DEFAULTS[name]
    try:
        return parse_nanoseconds(value) / 1e9 if isinstance(value, str) else parse_duration(value, name)
    except EntryError as error:
        raise _refused(f"error decoding config: 1 error(s) decoding:\n\n* error decoding '{name}': {error}") from error


def _refused(text: str) -> Refused:
    return Refused(500, f"error configuring provider: {text}")
