"""Checks that entries of several kinds share: metadata, header modifiers, TLS settings, host names, JWT demands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policies.entries.gotext import quote, several
from policies.errors import EntryError

HTTP_LIKE = frozenset({"http", "http2", "grpc"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"})
WILDCARD = "*"
_META_PAIRS = 64
_META_KEY = 128
META_VALUE = 512
_TLS_VERSIONS = ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
_CIPHERS = frozenset(
    [f"TLS_ECDHE_{key}_WITH_AES_{bits}" for key in ("ECDSA", "RSA") for bits in ("128_GCM_SHA256", "256_GCM_SHA384")]
    + [f"TLS_ECDHE_{key}_WITH_AES_{bits}_CBC_SHA" for key in ("ECDSA", "RSA") for bits in (128, 256)]
    + [f"TLS_ECDHE_{key}_WITH_CHACHA20_POLY1305_SHA256" for key in ("ECDSA", "RSA")]
    + [f"TLS_RSA_WITH_AES_{bits}" for bits in ("128_GCM_SHA256", "128_CBC_SHA", "256_GCM_SHA384", "256_CBC_SHA")]
)
_LONGEST_LABEL = 63
_LONGEST_NAME = 256


def byte_length(text: str) -> int:
    """Return the length in bytes, as Go counts."""
    return len(text.encode(errors="surrogatepass"))


def meta_errors(meta: Mapping[str, str] | None) -> list[str]:
    """Return what is wrong with the metadata of an entry, in the order of its keys."""
    errors = []
    if len(meta or {}) > _META_PAIRS:
        errors.append(f"Meta exceeds maximum element count {_META_PAIRS}")
    for key, value in sorted((meta or {}).items()):
        if byte_length(key) > _META_KEY:
            errors.append(f"Meta key {quote(key)} exceeds maximum length {_META_KEY}")
        if byte_length(value) > META_VALUE:
            errors.append(f"Meta value for key {quote(key)} exceeds maximum length {META_VALUE}")
    return errors


def check_meta(entry: Mapping[str, Any]) -> None:
    """Refuse metadata that is too much or too long."""
    errors = meta_errors(entry["Meta"])
    if errors:
        raise EntryError(several(errors))


def check_methods(where: str, methods: Sequence[str] | None) -> None:
    """Refuse methods that are none of the nine, or given twice. `where` begins the text."""
    seen = set()
    for method in methods or ():
        if method not in METHODS:
            raise EntryError(f"{where} contains an invalid method {quote(method)}")
        if method in seen:
            raise EntryError(f"{where} contains {quote(method)} more than once")
        seen.add(method)


def check_tls(minimum: str, maximum: str, ciphers: Sequence[str] | None) -> None:
    """Refuse TLS versions and cipher suites that Envoy could not be given."""
    for version in (minimum, maximum):
        if version and version not in _TLS_VERSIONS:
            known = ", ".join(_TLS_VERSIONS)
            raise EntryError(f"no matching TLS version found for {version}, please specify one of [{known}]")
    concrete = _TLS_VERSIONS[1:]
    if minimum in concrete and maximum in concrete and concrete.index(maximum) < concrete.index(minimum):
        raise EntryError(f"configuring max version {maximum} less than the configured min version {minimum} is invalid")
    if not ciphers:
        return
    if minimum == "TLSv1_3":
        raise EntryError(
            "configuring CipherSuites is only applicable to connections negotiated with TLS 1.2 or earlier, "
            f"TLSMinVersion is set to {minimum}"
        )
    unmatched = [cipher for cipher in ciphers if cipher not in _CIPHERS]
    if unmatched:
        raise EntryError(f"no matching Envoy TLS cipher suite found for {','.join(unmatched)}")


def is_domain_name(text: str) -> bool:
    """Return whether a DNS server could hold the name: only the lengths and the dots are looked at."""
    if not text:
        return False
    name = text if text.endswith(".") else f"{text}."
    if name == ".":
        return True
    labels = [byte_length(label) for label in name[:-1].split(".")]
    return all(0 < length <= _LONGEST_LABEL for length in labels) and sum(labels) + len(labels) <= _LONGEST_NAME


def has_modifiers(modifiers: Mapping[str, Any] | None) -> bool:
    """Return whether header modifiers would change anything."""
    return bool(modifiers and (modifiers["Add"] or modifiers["Set"] or modifiers["Remove"]))


def check_jwt(demand: Mapping[str, Any] | None) -> None:
    """Refuse a demand for a JWT that names no provider."""
    errors = [
        "JWT provider name is required" for provider in (demand or {}).get("Providers") or () if not provider["Name"]
    ]
    if errors:
        raise EntryError(several(errors))


def health_check_error(check: Mapping[str, Any]) -> str:
    """Return what is wrong with a PassiveHealthCheck, or ""."""
    percentages = {
        "EnforcingConsecutive5xx": "enforcing_consecutive_5xx",
        "MaxEjectionPercent": "max_ejection_percent",
    }
    if check["Interval"] < 0:
        return "passive health check interval cannot be negative"
    for field, name in percentages.items():
        if (check[field] or 0) > 100:  # noqa: PLR2004 - percent
            return f"passive health check {name} must be a percentage between 0 and 100"
    if (check["BaseEjectionTime"] or 0) < 0:
        return "passive health check base_ejection_time cannot be negative"
    return ""
