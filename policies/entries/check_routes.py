"""Normal form and checks of api-gateway, bound-api-gateway, http-route and tcp-route."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policies.entries.check_common import METHODS, check_meta, check_tls, is_domain_name
from policies.entries.gotext import quote
from policies.errors import EntryError

Entry = dict[str, Any]

_LISTENER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_CERTIFICATES = frozenset({"file-system-certificate", "inline-certificate"})
_HIGHEST_PORT = 65535


def settle_api_gateway(entry: Entry) -> None:
    """Spell protocols in lower case; a certificate is an inline one unless it says more."""
    for listener in entry["Listeners"] or ():
        listener["Protocol"] = listener["Protocol"].lower()
        for certificate in listener["TLS"]["Certificates"] or ():
            certificate["Kind"] = certificate["Kind"] or "inline-certificate"
    entry["Status"] = {"Conditions": None}


def check_api_gateway(entry: Entry) -> None:
    """Refuse listeners that cannot be opened side by side."""
    check_meta(entry)
    listeners = entry["Listeners"]
    if not listeners:
        raise EntryError("api gateway must have at least one listener")
    names = set()
    for listener in listeners:
        name = listener["Name"]
        if not _LISTENER.fullmatch(name):
            raise EntryError(
                f"listener name {quote(name)} is invalid, must be at least 1 character and contain only "
                "letters, numbers, or dashes"
            )
        if name in names:
            raise EntryError(f"found multiple listeners with the name {quote(name)}")
        names.add(name)
    by_port: dict[int, Mapping[str, Any]] = {}
    for listener in listeners:
        other = by_port.get(listener["Port"], listener)
        if any(other[field] != listener[field] for field in ("Hostname", "Protocol")):
            raise EntryError(f"listeners {quote(other['Name'])} and {quote(listener['Name'])} cannot be merged")
        by_port[listener["Port"]] = listener
    for listener in listeners:
        _check_listener(listener)


def _check_listener(listener: Mapping[str, Any]) -> None:
    protocol, hostname = listener["Protocol"], listener["Hostname"]
    if protocol not in {"http", "tcp"}:
        raise EntryError(f"unsupported listener protocol {quote(protocol)}, must be one of 'tcp', or 'http'")
    if protocol == "tcp" and hostname:
        raise EntryError("hostname specification is not supported when using TCP")
    if not 1 <= listener["Port"] <= _HIGHEST_PORT:
        raise EntryError(f"listener port {listener['Port']} not in the range 1-65535")
    if "*" in hostname.removeprefix("*."):
        raise EntryError(
            f"host {quote(hostname)} is not valid, a wildcard specifier is only allowed as the left-most label"
        )
    tls = listener["TLS"]
    for certificate in tls["Certificates"] or ():
        if certificate["Kind"] not in _CERTIFICATES:
            raise EntryError(
                f"unsupported certificate kind: {quote(certificate['Kind'])}, "
                "must be 'file-system-certificate' or 'inline-certificate'"
            )
        if not certificate["Name"]:
            raise EntryError("certificate reference must have a name")
    check_tls(tls["MinVersion"], tls["MaxVersion"], tls["CipherSuites"])


def check_bound_api_gateway(entry: Entry) -> None:
    """Refuse it: nobody but Consul's own controller writes this kind (HTTP 403)."""
    for listener in entry["Listeners"] or ():
        for certificate in listener["Certificates"] or ():
            if certificate["Kind"] != "inline-certificate":
                kind = quote(certificate["Kind"])
                raise EntryError(f"unsupported certificate kind: {kind}, must be 'inline-certificate'")
            if not certificate["Name"]:
                raise EntryError("certificate reference must have a name")
        for route in listener["Routes"] or ():
            if route["Kind"] not in {"http-route", "tcp-route"}:
                kind = quote(route["Kind"])
                raise EntryError(f"unsupported route kind: {kind}, must be one of 'http-route', or 'tcp-route'")
            if not route["Name"]:
                raise EntryError("route reference must have a name")
    raise EntryError("Permission denied: only writeable by controller")


# --- routes -----------------------------------------------------------------------------------------------------------


def settle_route(entry: Entry) -> None:
    """Fill in what a route may leave out; its status is Consul's to say."""
    for parent in entry["Parents"] or ():
        parent["Kind"] = parent["Kind"] or "api-gateway"
    for rule in entry.get("Rules") or ():
        for match in rule["Matches"] or ():
            match["Method"] = match["Method"].upper()
            if not match["Path"]["Match"]:
                match["Path"] = {"Match": "prefix", "Value": "/"}
        for service in rule["Services"] or ():
            service["Weight"] = max(1, service["Weight"])
    entry["Status"] = {"Conditions": None}


def check_http_route(entry: Entry) -> None:
    """Refuse host names, parents and matches that cannot be."""
    for host in entry["Hostnames"] or ():
        if not is_domain_name(host):
            raise EntryError(f"host {quote(host)} must be a valid DNS hostname")
        if "*" in host:
            raise EntryError(f"host {quote(host)} must not be a wildcard")
    _check_parents(entry)
    check_meta(entry)
    for position, rule in enumerate(entry["Rules"] or ()):
        for place, match in enumerate(rule["Matches"] or ()):
            wrong = _match_error(match)
            if wrong:
                raise EntryError(f"Rule[{position}], Match[{place}], {wrong}")


def check_tcp_route(entry: Entry) -> None:
    """Refuse more than one service, and parents that cannot be."""
    if len(entry["Services"] or ()) > 1:
        raise EntryError("tcp-route currently only supports one service")
    _check_parents(entry)
    check_meta(entry)


def _check_parents(entry: Entry) -> None:
    seen = set()
    for parent in entry["Parents"] or ():
        if parent["Kind"] != "api-gateway":
            raise EntryError(f"unsupported parent kind: {quote(parent['Kind'])}, must be 'api-gateway'")
        key = (parent["Name"], parent["SectionName"])
        if key in seen:
            raise EntryError("route parents must be unique")
        seen.add(key)


def _match_error(match: Mapping[str, Any]) -> str:
    if match["Method"] and match["Method"] not in METHODS:
        return f"Method contains an invalid method {quote(match['Method'])}"
    for field, kinds in (("Query", ("present", "exact", "regex")), ("Headers", _HEADER_KINDS)):
        for place, part in enumerate(match[field] or ()):
            if not part["Name"]:
                return f"{field}[{place}], missing required Name field"
            if part["Match"] not in kinds:
                spoken = f"{', '.join(kinds[:-1])}, or {kinds[-1]}"
                return f"{field}[{place}], match type should be one of {spoken}"
    kind, value = match["Path"]["Match"], match["Path"]["Value"]
    if kind in {"exact", "prefix"} and not value.startswith("/"):
        return f"Path, {kind} type match doesn't start with '/': {quote(value)}"
    if kind not in {"exact", "prefix", "regex"}:
        return "Path, match type should be one of exact, prefix, or regex"
    return ""


_HEADER_KINDS = ("present", "exact", "prefix", "suffix", "regex")
