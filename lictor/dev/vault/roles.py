"""A PKI role: what may be signed for whom. Pure: a request, its names, what templates mean in; a plan out.

Source: Vault's HTTP API, "Create/update role" of the PKI secrets engine.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from lictor.dev.vault import fields
from lictor.dev.vault.answers import Failed, Internal, Json, not_so
from lictor.dev.vault.certificates import SUBJECT, Names, Plan, asked_names, check_kind, is_host, key_kind
from lictor.dev.vault.fields import go_duration

Fill = Callable[[str], str]  # a template, to what it means for the caller; "" if nothing
DEFAULTS: Json = {
    "allow_any_name": False,
    "allow_bare_domains": False,
    "allow_glob_domains": False,
    "allow_globs_in_identity_templates": False,
    "allow_ip_sans": True,
    "allow_localhost": True,
    "allow_subdomains": False,
    "allow_token_displayname": False,
    "allow_wildcard_certificates": True,
    "allowed_domains": [],
    "allowed_domains_template": False,
    "allowed_ip_sans_cidr": [],
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
    "not_after_bound": "permit",
    "not_before": "",
    "not_before_bound": "permit",
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
# What would change what is signed, and is not done here: a role that sets it is refused.
_NOT_HERE = (
    "allow_globs_in_identity_templates",
    "allow_token_displayname",
    "generate_lease",
    "not_before",
    "policy_identifiers",
    "signature_bits",
    "use_pss",
)
_BOUNDS = ("not_after_bound", "not_before_bound")
_NAMES: fields.Kinds = {
    "alt_names": fields.commas,
    "common_name": fields.text,
    "exclude_cn_from_sans": fields.flag,
    "format": fields.text,
    "ip_sans": fields.commas,
    "not_after": fields.text,
    "not_before": fields.text,
    "other_sans": fields.commas,
    "private_key_format": fields.text,
    "remove_roots_from_chain": fields.flag,
    "serial_number": fields.text,
    "ttl": fields.duration,
    "uri_sans": fields.commas,
    "user_ids": fields.commas,
}
SIGN: fields.Kinds = {**_NAMES, "csr": fields.text}
ISSUE: fields.Kinds = {**_NAMES, "key_type": fields.text, "key_bits": fields.number}
_EXTENDED = {
    "server_flag": ExtendedKeyUsageOID.SERVER_AUTH,
    "client_flag": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code_signing_flag": ExtendedKeyUsageOID.CODE_SIGNING,
    "email_protection_flag": ExtendedKeyUsageOID.EMAIL_PROTECTION,
}
_EXTENDED_NAMES = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "serverauth": ExtendedKeyUsageOID.SERVER_AUTH,
    "clientauth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "codesigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "emailprotection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocspsigning": ExtendedKeyUsageOID.OCSP_SIGNING,
}
_OID = re.compile(r"\d+(\.\d+)+")


def _kind(name: str) -> fields.Kind:
    if name in _TIMES:
        return fields.duration
    kinds: dict[type, fields.Kind] = {bool: fields.flag, list: fields.commas, int: fields.number}
    return kinds.get(type(DEFAULTS[name]), fields.text)


ROLE: fields.Kinds = {name: _kind(name) for name in DEFAULTS}


def role_of(given: Mapping[str, Any]) -> Json:
    """Return a role's parameters as they are kept. Raise Failed for a role that makes no sense, or is not done here."""
    role: Json = {**DEFAULTS, **given}
    role.update({name: int(role[name]) for name in _TIMES})
    for name in _NOT_HERE:
        if role[name] != DEFAULTS[name]:
            raise not_so(f"roles with {name}")
    for name in _BOUNDS:
        _check_bound(name, role[name])
    kind = role["key_type"]
    if "key_bits" not in given:
        role["key_bits"] = {"ec": 256, "rsa": 2048}.get(kind, 0)
    if kind != "any":
        check_kind(kind, role["key_bits"])
    if role["max_ttl"] and role["ttl"] > role["max_ttl"]:
        raise Failed(400, '"ttl" value must be less than "max_ttl" value')
    _check_validations(role["cn_validations"])
    _check_kinds(role)
    return role


def _check_kinds(role: Mapping[str, Any]) -> None:
    for oid in role["ext_key_usage_oids"]:
        if not _OID.fullmatch(oid):
            raise Failed(400, f'"{oid}" could not be parsed as a valid oid for an extended key usage')
    for name in role["allowed_other_sans"]:
        if ";" not in name and name != "*":
            raise Failed(400, f'error parsing allowed_other_sans: expected a semicolon in other SAN "{name}"')


def _check_bound(name: str, value: str) -> None:
    if value == "ttl-limited" or value[:4].isdigit():
        raise not_so(f"roles whose {name} is {value}")
    if value not in {"permit", "forbid"}:
        told = "Possible values are `permit`, `ttl-limited`, `forbid`, or an explicit timestamp."
        raise Failed(400, f"Unknown value for field `{name}`. {told}")


def _check_validations(validations: list[str]) -> None:
    begin = "cn_validations value incorrect: "
    for one in validations:
        if one not in {"email", "hostname", "disabled"}:
            raise Internal(500, f"{begin}unknown type: `{one}`")
    if "disabled" in validations and len(validations) > 1:
        raise Internal(500, f"{begin}cannot specify `disabled` along with `email` or `hostname`")


def plan_for(
    role: Mapping[str, Any], given: Mapping[str, Any], of_csr: Names | None, fill: Fill, times: tuple[float, float]
) -> tuple[Plan, list[str]]:
    """Return the certificate that a role lets a caller have, and warnings. Raise Failed for anything that it does not.

    `times` are the default and the longest life of the mount, in seconds.
    """
    for name in ("not_after", "not_before"):
        if given.get(name) and role[f"{name}_bound"] == "forbid":
            raise Failed(400, f"{name}_bound is set to forbid. {name} cannot be provided.")
    for name in ("other_sans", "serial_number", "user_ids", "not_before"):
        if given.get(name):
            raise not_so(f"certificates with {name}")
    names, warnings = _names(role, given, of_csr)
    _check_names(role, names, fill, "via CSR" if of_csr is not None and role["use_csr_sans"] else "via the API")
    ttl, longer = _life(role, given, times)
    return Plan(
        names,
        ttl,
        usages=frozenset(_usage(word) for word in role["key_usage"]),
        extended=_extended(role),
        backdated=timedelta(seconds=role["not_before_duration"]),
        plain_constraints=bool(role["basic_constraints_valid_for_non_ca"]),
        not_after=_end(role, given),
    ), [*warnings, *longer]


def _life(role: Mapping[str, Any], given: Mapping[str, Any], times: tuple[float, float]) -> tuple[float, list[str]]:
    default, longest = times
    wanted = given.get("ttl") or float(role["ttl"]) or default
    limit = min(float(role["max_ttl"]) or longest, longest)
    if wanted <= limit or given.get("not_after"):
        return min(wanted, limit), []
    told = f'TTL "{go_duration(wanted)}" is longer than permitted maxTTL "{go_duration(limit)}"'
    return limit, [f"{told}, so maxTTL is being used"]


def _end(role: Mapping[str, Any], given: Mapping[str, Any]) -> datetime | None:
    asked = str(given.get("not_after") or "")
    if asked and given.get("ttl"):
        raise Failed(
            400, "Either ttl or not_after should be provided. Both should not be provided in the same request."
        )
    text = asked or str(role["not_after"])
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        told = f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"'
        raise Failed(400, told) from error


def _extended(role: Mapping[str, Any]) -> tuple[ObjectIdentifier, ...]:
    flags = [oid for name, oid in _EXTENDED.items() if role[name]]
    words = [str(word).lower().removeprefix("extkeyusage") for word in role["ext_key_usage"]]
    named = [_EXTENDED_NAMES[word] for word in words if word in _EXTENDED_NAMES]
    return tuple(dict.fromkeys([*flags, *named, *(ObjectIdentifier(one) for one in role["ext_key_usage_oids"])]))


def _usage(word: str) -> str:
    return word.strip().lower().removeprefix("keyusage")


def _names(role: Mapping[str, Any], given: Mapping[str, Any], of_csr: Names | None) -> tuple[Names, list[str]]:
    warnings = []
    found = asked_names({**given, **{name: role[name] for name in SUBJECT}})
    common = found.common_name
    if of_csr is not None:
        if role["use_csr_common_name"] and given.get("common_name"):
            text = 'the common_name field was provided but the role is set with "use_csr_common_name" set to true'
            warnings.append(text)
        if role["use_csr_sans"] and given.get("alt_names"):
            warnings.append('the alt_names field was provided but the role is set with "use_csr_sans" set to true')
        if role["use_csr_common_name"] and of_csr.common_name:
            common = of_csr.common_name
        if role["use_csr_sans"]:
            found = replace(of_csr, fields=found.fields)
    if not common and role["require_cn"]:
        raise Failed(
            400,
            'the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true,'
            ' unless "require_cn" is set to false',
        )
    hosts, emails = list(found.dns), list(found.emails)
    if common and not given.get("exclude_cn_from_sans"):
        if "@" in common and common not in emails:
            emails.insert(0, common)
        elif is_host(common) and common not in hosts:
            hosts.insert(0, common)
    return replace(found, common_name=common, dns=tuple(hosts), emails=tuple(emails)), warnings


def _check_names(role: Mapping[str, Any], names: Names, fill: Fill, came: str) -> None:
    if names.common_name and not _may_be_common(role, names.common_name, fill):
        raise Failed(400, f"common name {names.common_name} not allowed by this role")
    checked = "" if "disabled" in role["cn_validations"] else names.common_name
    for name in names.dns:
        if name != checked and not _may_name(role, name, fill):
            raise Failed(400, f"subject alternate name {name} not allowed by this role")
    for address in names.emails:
        if address != checked and not _may_name(role, address.rpartition("@")[2], fill):
            raise Failed(400, f"email address {address} not allowed by this role")
    if names.ips and not role["allow_ip_sans"]:
        raise Failed(400, f"IP Subject Alternative Names are not allowed in this role, but was provided {came}")
    if names.ips and role["allowed_ip_sans_cidr"]:
        raise not_so("IP names for roles with allowed_ip_sans_cidr")
    if names.uris:
        _check_uris(role, names.uris, fill, came)


def _check_uris(role: Mapping[str, Any], uris: Iterable[str], fill: Fill, came: str) -> None:
    patterns = role["allowed_uri_sans"]
    allowed = [fill(one) for one in patterns] if role["allowed_uri_sans_template"] else patterns
    begin = "URI Subject Alternative Names "
    if not patterns:
        raise Failed(400, f"{begin}are not allowed in this role, but were provided {came}")
    for uri in uris:
        if not any(pattern and fnmatch.fnmatchcase(uri, _literal(pattern)) for pattern in allowed):
            raise Failed(400, f"{begin}were provided {came} which are not valid for this role")


def _literal(pattern: str) -> str:
    """Return a glob in which only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _may_be_common(role: Mapping[str, Any], name: str, fill: Fill) -> bool:
    validations = role["cn_validations"]
    if "disabled" in validations:
        return True
    if "@" in name:
        return "email" in validations and _may_name(role, name.rpartition("@")[2], fill)
    return "hostname" in validations and _may_name(role, name, fill)


def _may_name(role: Mapping[str, Any], name: str, fill: Fill) -> bool:
    if not role["allow_wildcard_certificates"] and "*" in name:
        return False
    if role["enforce_hostnames"] and not is_host(name):
        return False
    if role["allow_any_name"]:
        return True
    if role["allow_localhost"] and name in {"localhost", "localdomain"}:
        return True
    domains = role["allowed_domains"]
    for domain in (fill(one) for one in domains) if role["allowed_domains_template"] else domains:
        bare = name == domain and role["allow_bare_domains"]
        below = role["allow_subdomains"] and bool(domain) and name.endswith(f".{domain}")
        glob = role["allow_glob_domains"] and "*" in domain and fnmatch.fnmatchcase(name, _literal(domain))
        if bare or below or glob:
            return True
    return False


def check_key(role: Mapping[str, Any], public: Any) -> None:
    """Refuse a key of another kind than the role's, or a shorter one."""
    kind, bits = role["key_type"], int(role["key_bits"])
    if kind == "any":
        return
    if key_kind(public) != kind:
        raise Failed(400, f"role requires keys of type {kind}")
    size = getattr(public, "key_size", 0)
    if bits and size and size < bits:
        raise Failed(400, f"role requires a minimum of a {bits}-bit key, but CSR's key is {size} bits")
