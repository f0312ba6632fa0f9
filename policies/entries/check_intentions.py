"""Normal form and checks of service-intentions.

Precedence is computed: a destination with a name of its own begins at 9, `*` at 6; a source `*` costs 1. Sources are
kept in order of precedence, then as written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.entries.check_chains import check_paths
from policies.entries.check_common import META_VALUE, WILDCARD, byte_length, check_jwt, check_meta, check_methods
from policies.entries.gotext import quote
from policies.errors import EntryError

Entry = dict[str, Any]

_ACTIONS = frozenset({"allow", "deny"})
_OWN, _ANY = 9, 6


def settle_intentions(entry: Entry) -> None:
    """Compute precedence, sort, spell methods in upper case, drop what only the legacy API may say."""
    for source in entry["Sources"] or ():
        source["Type"] = source["Type"] or "consul"
        source["Precedence"] = (_ANY if entry["Name"] == WILDCARD else _OWN) - (source["Name"] == WILDCARD)
        source["LegacyID"], source["LegacyCreateTime"], source["LegacyUpdateTime"] = "", None, None
        for permission in source["Permissions"] or ():
            http = permission["HTTP"]
            if http and http["Methods"]:
                http["Methods"] = [method.upper() for method in http["Methods"]]
    if entry["Sources"]:
        entry["Sources"].sort(key=lambda source: -source["Precedence"])


def check_intentions(entry: Entry) -> None:
    """Refuse what intentions cannot mean."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    _check_name("", entry["Name"], "")
    check_jwt(entry["JWT"])
    check_meta(entry)
    if not entry["Sources"]:
        raise EntryError("At least one source is required")
    seen = set()
    for position, source in enumerate(entry["Sources"]):
        where = f"Sources[{position}]"
        _check_source(where, source)
        if source["Permissions"] and entry["Name"] == WILDCARD:
            raise EntryError(f"{where}.Permissions cannot be specified on intentions with wildcarded destinations")
        if source["Type"] != "consul":
            raise EntryError(f"{where}.Type must be set to 'consul'")
        for place, permission in enumerate(source["Permissions"] or ()):
            _check_permission(f"{where}.Permissions[{place}]", permission)
        key = (source["Peer"], source["Name"])
        if key in seen:
            peer = f"peer({quote(source['Peer'])}) " if source["Peer"] else ""
            raise EntryError(f"{where} defines {peer}{quote(source['Name'])} more than once")
        seen.add(key)
        source["LegacyMeta"] = None


def _check_name(where: str, name: str, peer: str) -> None:
    if name != WILDCARD and WILDCARD in name:
        raise EntryError(f"{where}Name: wildcard character '*' cannot be used with partial values")
    if WILDCARD in peer:
        raise EntryError(f"{where}Peer: cannot use wildcard '*' in peer")


def _check_source(where: str, source: Mapping[str, Any]) -> None:
    if not source["Name"]:
        raise EntryError(f"{where}.Name is required")
    if source["SamenessGroup"]:
        raise EntryError(f"{where}.SamenessGroup: Sameness groups are a Consul Enterprise feature. ")
    _check_name(f"{where}.", source["Name"], source["Peer"])
    if byte_length(source["Description"]) > META_VALUE:
        raise EntryError(f"{where}.Description exceeds maximum length {META_VALUE}")
    if source["LegacyMeta"]:
        raise EntryError(f"{where}.LegacyMeta must be omitted")
    if not source["Permissions"] and source["Action"] not in _ACTIONS:
        raise EntryError(f"{where}.Action must be set to 'allow' or 'deny'")
    if source["Permissions"] and source["Action"]:
        raise EntryError(f"{where}.Action must be omitted if Permissions are specified")


def _check_permission(where: str, permission: Mapping[str, Any]) -> None:
    if permission["Action"] not in _ACTIONS:
        raise EntryError(f"{where}.Action must be set to 'allow' or 'deny'")
    http = permission["HTTP"]
    if http is None:
        raise EntryError(f"{where}.HTTP is required")
    paths = check_paths(f"{where}.HTTP", ".", http)
    for place, header in enumerate(http["Header"] or ()):
        _check_header(f"{where}.HTTP.Header[{place}]", header)
    check_methods(f"{where}.HTTP.Methods", http["Methods"])
    if not (paths or http["Header"] or http["Methods"]):
        raise EntryError(f"{where}.HTTP should not be empty")
    check_jwt(permission["JWT"])


def _check_header(where: str, header: Mapping[str, Any]) -> None:
    if not header["Name"]:
        raise EntryError(f"{where} missing required Name field")
    kinds = ("Present", "Exact", "Regex", "Prefix", "Suffix", "Contains")
    if sum(bool(header[kind]) for kind in kinds) != 1:
        raise EntryError(f"{where} should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex")
    if header["IgnoreCase"] and (header["Present"] or header["Regex"]):
        raise EntryError(f"{where} should set one of Exact, Prefix, Suffix, or Contains when using IgnoreCase")
