"""A PKI role: what may be signed for whom. Pure: a request, its names and the caller's metadata in, a plan out.

Source: Vault's HTTP API, "Create/update role" of the PKI secrets engine.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from lictor.dev.vault.answers import Ask, Failed, Json, seconds
from lictor.dev.vault.certificates import Names, Plan
from lictor.dev.vault.tokens import LONGEST_TTL

DEFAULTS: Json = {
    "allow_any_name": False,
    "allow_bare_domains": False,
    "allow_glob_domains": False,
    "allow_ip_sans": True,
    "allow_localhost": True,
    "allow_subdomains": False,
    "allow_token_displayname": False,
    "allow_wildcard_certificates": True,
    "allowed_domains": [],
    "allowed_domains_template": False,
    "allowed_other_sans": [],
    "allowed_serial_numbers": [],
    "allowed_uri_sans": [],
    "allowed_uri_sans_template": False,
    "allowed_user_ids": [],
    "basic_constraints_valid_for_non_ca": False,
    "client_flag": True,
    "cn_validations": ["email", "hostname"],
    "code_signing_flag": False,
    "country": [],
    "email_protection_flag": False,
    "enforce_hostnames": True,
    "ext_key_usage": [],
    "ext_key_usage_oids": [],
    "generate_lease": False,
    "issuer_ref": "default",
    "key_bits": 2048,
    "key_type": "rsa",
    "key_usage": ["DigitalSignature", "KeyAgreement", "KeyEncipherment"],
    "locality": [],
    "max_ttl": 0,
    "no_store": False,
    "not_after": "",
    "not_before_duration": 30,
    "organization": [],
    "ou": [],
    "policy_identifiers": [],
    "postal_code": [],
    "province": [],
    "require_cn": True,
    "server_flag": True,
    "signature_bits": 0,
    "street_address": [],
    "ttl": 0,
    "use_csr_common_name": True,
    "use_csr_sans": True,
    "use_pss": False,
}
_TIMES = ("ttl", "max_ttl", "not_before_duration")
_HOSTNAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?\.?", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{\{\s*identity\.entity\.aliases\.(\S+?)\.metadata\.(\S+?)\s*\}\}")


def role_of(ask: Ask, held: Mapping[str, Any] | None) -> Json:
    """Return a role's parameters as they are kept."""
    role: Json = {**DEFAULTS, **(held or {})}
    for name, value in ask.data.items():
        if name not in DEFAULTS:
            continue
        default = DEFAULTS[name]
        if name in _TIMES:
            role[name] = int(seconds(value, name))
        elif isinstance(default, bool):
            role[name] = ask.flag(name)
        elif isinstance(default, list):
            role[name] = ask.words(name)
        elif isinstance(default, int):
            role[name] = int(value or 0)
        else:
            role[name] = str(value)
    if "key_type" in ask.data and "key_bits" not in ask.data:
        role["key_bits"] = {"ec": 256, "rsa": 2048}.get(role["key_type"], 0)
    if role["max_ttl"] and role["ttl"] > role["max_ttl"]:
        raise Failed(400, '"ttl" value must be less than "max_ttl" value')
    return role


def plan_for(
    role: Mapping[str, Any], ask: Ask, of_csr: Names | None, metadata: Mapping[str, Mapping[str, str]], longest: float
) -> Plan:
    """Return the certificate that a role lets a caller have. Raise Failed for anything that it does not.

    `metadata` is that of the caller's aliases, by the accessor of their mounts. `longest` is the mount's longest TTL.
    """
    names = _names(role, ask, of_csr)
    _check_names(role, names, metadata)
    ttl = ask.seconds("ttl") or float(role["ttl"]) or min(LONGEST_TTL, longest)
    limit = min(float(role["max_ttl"]) or longest, longest)
    return Plan(
        names,
        min(ttl, limit),
        usages=frozenset(_usage(word) for word in role["key_usage"]),
        server=bool(role["server_flag"]),
        client=bool(role["client_flag"]),
        backdated=timedelta(seconds=role["not_before_duration"]),
        plain_constraints=bool(role["basic_constraints_valid_for_non_ca"]),
        not_after=_end(ask.text("not_after") or str(role["not_after"])),
    )


def _end(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise Failed(400, f"error parsing not_after: {text!r}") from error


def _usage(word: str) -> str:
    return word.strip().lower().removeprefix("keyusage")


def _names(role: Mapping[str, Any], ask: Ask, of_csr: Names | None) -> Names:
    asked = (ask.text("common_name"), ask.words("alt_names"), ask.words("uri_sans"), ask.words("ip_sans"))
    common, dns, uris, ips = asked[0], list(asked[1]), list(asked[2]), list(asked[3])
    if of_csr is not None and role["use_csr_common_name"] and of_csr.common_name:
        common = of_csr.common_name
    if of_csr is not None and role["use_csr_sans"]:
        dns, uris, ips = list(of_csr.dns), list(of_csr.uris), list(of_csr.ips)
    if not common and role["require_cn"]:
        raise Failed(
            400,
            'the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true,'
            ' unless "require_cn" is set to false',
        )
    if common and not ask.flag("exclude_cn_from_sans") and common not in dns and _HOSTNAME.fullmatch(common):
        dns.insert(0, common)
    return Names(common, tuple(dict.fromkeys(dns)), tuple(uris), tuple(ips))


def _check_names(role: Mapping[str, Any], names: Names, metadata: Mapping[str, Mapping[str, str]]) -> None:
    if names.common_name and not _may_name(role, names.common_name):
        raise Failed(400, f"common name {names.common_name} not allowed by this role")
    for name in names.dns:
        if name != names.common_name and not _may_name(role, name):
            raise Failed(400, f"subject alternate name {name} not allowed by this role")
    if names.ips and not role["allow_ip_sans"]:
        raise Failed(
            400, f"IP Subject Alternative Names are not allowed in this role, but was provided {', '.join(names.ips)}"
        )
    allowed = [
        _filled(pattern, metadata) if role["allowed_uri_sans_template"] else pattern
        for pattern in role["allowed_uri_sans"]
    ]
    if names.uris and not allowed:
        raise Failed(400, "URI Subject Alternative Names are not allowed in this role, but were provided via CSR")
    for uri in names.uris:
        if not any(pattern and fnmatch.fnmatchcase(uri, _literal(pattern)) for pattern in allowed):
            raise Failed(400, "URI Subject Alternative Names were provided via CSR which are not valid for this role")


def _literal(pattern: str) -> str:
    """Return a glob in which only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _filled(pattern: str, metadata: Mapping[str, Mapping[str, str]]) -> str:
    """Return a template with the caller's metadata, or "" when he has none of that."""
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        held = metadata.get(found[1], {}).get(found[2], "")
        missing = missing or not held
        return held

    filled = _TEMPLATE.sub(value, pattern)
    return "" if missing or "{{" in filled else filled


def _may_name(role: Mapping[str, Any], name: str) -> bool:
    if not role["allow_wildcard_certificates"] and "*" in name:
        return False
    if role["enforce_hostnames"] and not _HOSTNAME.fullmatch(name):
        return False
    if role["allow_any_name"]:
        return True
    if role["allow_localhost"] and name in {"localhost", "localdomain"}:
        return True
    for domain in role["allowed_domains"]:
        bare = name == domain and role["allow_bare_domains"]
        below = role["allow_subdomains"] and name.endswith(f".{domain}")
        glob = role["allow_glob_domains"] and fnmatch.fnmatchcase(name, _literal(domain))
        if bare or below or glob:
            return True
    return False


def check_key(role: Mapping[str, Any], public: Any) -> None:
    """Refuse a key of another kind than the role's, or a shorter one."""
    kind, bits = role["key_type"], int(role["key_bits"])
    if kind == "any":
        return
    kinds: dict[str, type] = {
        "rsa": rsa.RSAPublicKey,
        "ec": ec.EllipticCurvePublicKey,
        "ed25519": ed25519.Ed25519PublicKey,
    }
    if not isinstance(public, kinds[kind]):
        raise Failed(400, f"role requires keys of type {kind}")
    size = getattr(public, "key_size", 0)
    if bits and size and size < bits:
        raise Failed(400, f"role requires a minimum of a {bits}-bit key, but CSR's key is {size} bits")
