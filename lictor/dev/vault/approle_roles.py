"""What a role of AppRole may be: its parameters with their kinds and defaults, and what contradicts itself. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from lictor.dev.vault import fields
from lictor.dev.vault.answers import Failed, Internal, Json

ROLE: dict[str, fields.Kind] = {
    "bind_secret_id": fields.flag,
    "local_secret_ids": fields.flag,
    "secret_id_bound_cidrs": fields.commas,
    "secret_id_num_uses": fields.number,
    "secret_id_ttl": fields.duration,
    "token_bound_cidrs": fields.commas,
    "token_explicit_max_ttl": fields.duration,
    "token_max_ttl": fields.duration,
    "token_no_default_policy": fields.flag,
    "token_num_uses": fields.number,
    "token_period": fields.duration,
    "token_policies": fields.commas,
    "token_strictly_bind_ip": fields.flag,
    "token_ttl": fields.duration,
    "token_type": fields.text,
}
OLDER = {"bound_cidr_list": "secret_id_bound_cidrs", "period": "token_period", "policies": "token_policies"}
KINDS: fields.Kinds = {**ROLE, **{old: ROLE[new] for old, new in OLDER.items()}, "role_id": fields.text}
DEFAULTS: Json = {
    "bind_secret_id": True,
    "local_secret_ids": False,
    "secret_id_bound_cidrs": None,
    "secret_id_num_uses": 0,
    "secret_id_ttl": 0,
    "token_bound_cidrs": [],
    "token_explicit_max_ttl": 0,
    "token_max_ttl": 0,
    "token_no_default_policy": False,
    "token_num_uses": 0,
    "token_period": 0,
    "token_policies": [],
    "token_strictly_bind_ip": False,
    "token_ttl": 0,
    "token_type": "default",
}
_TYPES = frozenset({"", "default", "default-service", "default-batch", "service", "batch"})


def check_role(role: Mapping[str, Any]) -> None:
    """Refuse a role that contradicts itself."""
    _check_type(role)
    if role["token_num_uses"] < 0:
        raise Failed(400, "'token_num_uses' cannot be negative")
    if role["secret_id_num_uses"] < 0:
        raise Failed(400, "secret_id_num_uses cannot be negative")
    if role["token_max_ttl"] and role["token_ttl"] > role["token_max_ttl"]:
        raise Failed(400, "'token_ttl' cannot be greater than 'token_max_ttl'")
    _check_sources(role)


def _check_type(role: Mapping[str, Any]) -> None:
    kind = role["token_type"]
    if kind not in _TYPES:
        raise Failed(400, f"invalid 'token_type' value \"{kind}\"")
    if "batch" in kind:
        for name, what in (("token_period", "periodic tokens"), ("token_num_uses", "tokens with limited use count")):
            if role[name]:
                told = f"'token_type' cannot be 'batch' or 'default_batch' when set to generate {what}"
                raise Failed(400, told)


def _check_sources(role: Mapping[str, Any]) -> None:
    if role["token_strictly_bind_ip"] and role["token_bound_cidrs"]:
        raise Failed(400, "'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one")
    for cidr in role["token_bound_cidrs"]:
        if not _is_network(cidr):
            told = f'Unable to convert "{cidr}" to an IPv4 or IPv6 address, or a UNIX Socket'
            raise Failed(400, f'error parsing address "{cidr}": {told}')
    check_cidrs(role["secret_id_bound_cidrs"] or ())
    if not role["bind_secret_id"] and not role["secret_id_bound_cidrs"] and not role["token_bound_cidrs"]:
        raise Internal(500, "at least one constraint should be enabled on the role")


def check_cidrs(cidrs: Iterable[str]) -> None:
    """Refuse what are no networks."""
    for cidr in cidrs:
        if "/" not in cidr or not _is_network(cidr):
            raise Internal(500, f"failed to validate CIDR blocks: invalid CIDR address: {cidr}")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def within(address: str, cidrs: Iterable[str]) -> bool:
    """Return whether an address is in one of the networks; in any, if there are none."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    return not networks or any(ipaddress.ip_address(address) in network for network in networks)
