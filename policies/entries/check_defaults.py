"""Normal form and checks of service-defaults, proxy-defaults and mesh.

`settle_` changes a complete entry in place, `check_` raises EntryError with Consul's text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from policies.entries.check_common import (
    WILDCARD,
    byte_length,
    check_meta,
    check_tls,
    health_check_error,
    is_domain_name,
    meta_errors,
)
from policies.entries.check_extensions import extension_errors
from policies.entries.check_resolver import check_locality
from policies.entries.gotext import quote, several
from policies.entries.scalars import Refused, scalar
from policies.entries.shapes import TEXT
from policies.errors import EntryError

Entry = dict[str, Any]

GLOBAL = "global"
_PROTOCOLS = frozenset({"", "tcp", "http", "http2", "grpc"})
_MUTUAL_TLS = ("", "strict", "permissive")
_BALANCE = frozenset({"", "exact_balance"})
_FAILOVER_MODES = frozenset({"", "sequential", "order-by-locality"})
_LONGEST_SOCKET_FOLDER = 70
_HIGHEST_PORT = 65535
_SLASHES = (
    "IMPLEMENTATION_SPECIFIC_DEFAULT",
    "KEEP_UNCHANGED",
    "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
)
_UNDERSCORES = ("ALLOW", "REJECT_REQUEST", "DROP_HEADER")

# --- service-defaults -------------------------------------------------------------------------------------------------


def settle_service_defaults(entry: Entry) -> None:
    """Spell protocols in lower case; a negative connect timeout of an upstream is none."""
    entry["Protocol"] = entry["Protocol"].lower()
    upstreams = entry["UpstreamConfig"]
    for upstream in [*(upstreams["Overrides"] or ()), upstreams["Defaults"]] if upstreams else ():
        if upstream is not None:
            upstream["Protocol"] = upstream["Protocol"].lower()
            upstream["ConnectTimeoutMs"] = max(0, upstream["ConnectTimeoutMs"])


def check_service_defaults(entry: Entry) -> None:
    """Refuse what the defaults of a service cannot mean; all mistakes in one text."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    if entry["Name"] == WILDCARD:
        raise EntryError("service-defaults name must be the name of a service, and not a wildcard")
    errors = meta_errors(entry["Meta"])
    if entry["BalanceInboundConnections"] not in _BALANCE:
        errors.append(f"invalid value for balance_inbound_connections: {entry['BalanceInboundConnections']}")
    if entry["Protocol"] not in _PROTOCOLS:
        errors.append(f"invalid value for protocol: {entry['Protocol']}")
    if entry["UpstreamConfig"] is not None and entry["Destination"] is not None:
        errors.append("UpstreamConfig and Destination are mutually exclusive for service defaults")
        raise EntryError(several(errors))
    errors += _upstream_errors(entry["UpstreamConfig"] or {})
    errors += _destination_errors(entry["Destination"])
    if entry["RateLimits"] is not None:
        errors.append("invalid rate_limits config. Rate limiting is a consul enterprise feature")
    errors += extension_errors(entry)
    _check_mutual_tls(entry)
    if errors:
        raise EntryError(several(errors))


def _upstream_errors(upstreams: Mapping[str, Any]) -> list[str]:
    errors = []
    for upstream in upstreams.get("Overrides") or ():
        wrong = _upstream_error(upstream, named=True)
        shown = f"{upstream['Name']}:{upstream['Peer']}" if upstream["Name"] else ":"
        errors += [f"error in upstream override for {shown}: {wrong}"] if wrong else []
    if upstreams.get("Defaults") is not None:
        wrong = _upstream_error(upstreams["Defaults"], named=False)
        errors += [f"error in upstream defaults: {wrong}"] if wrong else []
    return errors


def _upstream_error(upstream: Mapping[str, Any], *, named: bool) -> str:
    if named and not upstream["Name"]:
        return "Name is required"
    if named and upstream["Name"] == WILDCARD:
        return "Wildcard name is not supported"
    if not named and upstream["Name"]:
        return "Name must be empty"
    check, limits = upstream["PassiveHealthCheck"], upstream["Limits"]
    errors = [
        health_check_error(check) if check is not None else "",
        _limits_error(limits) if limits is not None else "",
    ]
    if upstream["BalanceOutboundConnections"] not in _BALANCE:
        errors.append(f"invalid value for balance_outbound_connections: {upstream['BalanceOutboundConnections']}")
    errors = [error for error in errors if error]
    return several(errors) if errors else ""


def _limits_error(limits: Mapping[str, Any]) -> str:
    spoken = {
        "MaxConnections": "max connections",
        "MaxPendingRequests": "max pending requests",
        "MaxConcurrentRequests": "max concurrent requests",
    }
    return next((f"{text} cannot be negative" for field, text in spoken.items() if (limits[field] or 0) < 0), "")


def _destination_errors(destination: Mapping[str, Any] | None) -> list[str]:
    if destination is None:
        return []
    errors = [] if destination["Addresses"] else ["Destination must contain at least one valid address"]
    seen = set()
    for address in destination["Addresses"] or ():
        if address in seen:
            errors.append(f"Duplicate address '{address}' is not allowed")
        elif not _is_address(address):
            wrong = f"Could not validate address {address} as an IP or Hostname"
            errors.append(f"Destination address '{address}' is invalid {wrong}")
        seen.add(address)
    if not 1 <= destination["Port"] <= _HIGHEST_PORT:
        errors.append(f"Invalid Port number {destination['Port']}")
    return errors


def _is_address(address: str) -> bool:
    if is_domain_name(address) and "*" not in address:
        return True
    try:
        ip_address(address)
    except ValueError:
        return False
    return "%" not in address


def _check_mutual_tls(entry: Entry) -> None:
    mode = entry["MutualTLSMode"]
    if mode not in _MUTUAL_TLS:
        known = ", ".join(quote(known) for known in _MUTUAL_TLS[:2])
        raise EntryError(f"Invalid MutualTLSMode {quote(mode)}. Must be one of {known}, or {quote(_MUTUAL_TLS[2])}.")


# --- proxy-defaults ---------------------------------------------------------------------------------------------------


def settle_proxy_defaults(entry: Entry) -> None:
    """Name it `global`; refuse another name and a protocol that is no text."""
    if entry["Name"] not in {"", GLOBAL}:
        raise EntryError(f'invalid name ({quote(entry["Name"])}), only "{GLOBAL}" is supported')
    entry["Name"] = GLOBAL
    proxy_protocol(entry["Config"])


def proxy_protocol(config: Mapping[str, Any] | None) -> str:
    """Return `Config.protocol` in any spelling of the key, as weak text. Raise EntryError for a list or a map."""
    held = config or {}
    keys = [key for key in sorted(held) if key.lower() == "protocol"]
    key = "protocol" if "protocol" in held else next(iter(keys), "")
    if not key or held[key] is None:
        return ""
    try:
        return str(scalar("protocol", held[key], TEXT))
    except Refused as refused:
        raise EntryError(f"1 error(s) decoding:\n\n* {refused.errors[0]}") from None


def check_proxy_defaults(entry: Entry) -> None:
    """Refuse what the defaults of all proxies cannot mean."""
    _check_access_logs(entry["AccessLogs"])
    check_meta(entry)
    folder = (entry["Config"] or {}).get("envoy_hcp_metrics_bind_socket_dir")
    if isinstance(folder, str) and byte_length(folder) > _LONGEST_SOCKET_FOLDER:
        raise EntryError(
            f"Config: envoy_hcp_metrics_bind_socket_dir length {byte_length(folder)} "
            f"exceeds max {_LONGEST_SOCKET_FOLDER}"
        )
    errors = extension_errors(entry)
    if errors:
        raise EntryError(several(errors))
    if (entry["FailoverPolicy"] or {"Mode": ""})["Mode"] not in _FAILOVER_MODES:
        raise EntryError("Failover-policy mode must be one of '', 'sequential', or 'order-by-locality'")
    check_locality(entry["PrioritizeByLocality"])
    _check_mutual_tls(entry)


def _check_access_logs(logs: Mapping[str, Any]) -> None:
    if logs["Type"] == "file" and not logs["Path"]:
        raise EntryError("path must be specified when using file type access logs")
    if logs["Type"] not in {"", "file", "stderr", "stdout"}:
        raise EntryError(f"invalid access log type: {logs['Type']}")
    if logs["JSONFormat"] and logs["TextFormat"]:
        raise EntryError("cannot specify both access log JSONFormat and TextFormat")
    if logs["Type"] != "file" and logs["Path"]:
        raise EntryError("path is only valid for file type access logs")
    if logs["JSONFormat"]:
        try:
            json.loads(logs["JSONFormat"])
        except ValueError as error:
            raise EntryError(f"invalid access log json for JSON format: {error}") from None


# --- mesh -------------------------------------------------------------------------------------------------------------


def check_mesh(entry: Entry) -> None:
    """Refuse what the settings of the whole mesh cannot mean."""
    check_meta(entry)
    for direction in ("Incoming", "Outgoing"):
        tls = (entry["TLS"] or {}).get(direction)
        if tls is None:
            continue
        try:
            check_tls(tls["TLSMinVersion"], tls["TLSMaxVersion"], tls["CipherSuites"])
        except EntryError as error:
            raise EntryError(f"error in {direction.lower()} TLS configuration: {error}") from None
    incoming = (entry["HTTP"] or {}).get("Incoming") or {}
    normalization = incoming.get("RequestNormalization") or {}
    for field, known in (("PathWithEscapedSlashesAction", _SLASHES), ("HeadersWithUnderscoresAction", _UNDERSCORES)):
        value = normalization.get(field, "")
        if value and value not in known:
            raise EntryError(
                f"error in HTTP incoming request normalization configuration: no matching {field} value found for "
                f"{value}, please specify one of [{', '.join(known)}]"
            )
