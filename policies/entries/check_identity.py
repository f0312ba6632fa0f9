"""Normal form and checks of jwt-provider, inline-certificate and exported-services."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from policies.entries.check_common import WILDCARD, check_meta
from policies.entries.gotext import quote, several
from policies.errors import EntryError

Entry = dict[str, Any]

_CLOCK_SKEW = 30
_DISCOVERY = frozenset({"", "STRICT_DNS", "STATIC", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"})

# --- jwt-provider -----------------------------------------------------------------------------------------------------


def settle_jwt_provider(entry: Entry) -> None:
    """Allow clocks to differ by 30 seconds unless the entry says more."""
    entry["ClockSkewSeconds"] = entry["ClockSkewSeconds"] or _CLOCK_SKEW


def check_jwt_provider(entry: Entry) -> None:
    """Refuse a provider without exactly one source of keys, and unclear places of the token."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    check_meta(entry)
    keys = entry["JSONWebKeySet"]
    if keys is None:
        raise EntryError("JSONWebKeySet is required")
    if (keys["Local"] is None) == (keys["Remote"] is None):
        raise EntryError("must specify exactly one of Local or Remote JSON Web key set")
    wrong = _remote_error(keys["Remote"]) if keys["Remote"] is not None else _local_error(keys["Local"])
    if wrong:
        raise EntryError(wrong)
    errors = [error for error in map(_location_error, entry["Locations"] or ()) if error]
    if errors:
        raise EntryError(several(errors))
    if entry["Forwarding"] is not None and not entry["Forwarding"]["HeaderName"]:
        raise EntryError("Header name required for forwarding config")


def _local_error(local: Mapping[str, Any]) -> str:
    if bool(local["JWKS"]) == bool(local["Filename"]):
        return "must specify exactly one of String or filename for local keyset"
    try:
        base64.b64decode(local["JWKS"].replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return "JWKS must be valid base64 encoded string"
    return ""


def _remote_error(remote: Mapping[str, Any]) -> str:
    uri = remote["URI"]
    if not uri:
        return "Remote JWKS URI is required"
    if not uri.startswith("/") and ":" not in uri.partition("/")[0]:
        return f"Remote JWKS URI is invalid: parse {quote(uri)}: invalid URI for request, uri: {uri}"
    back_off = (remote["RetryPolicy"] or {}).get("RetryPolicyBackOff")
    if back_off and 0 != back_off["MaxInterval"] < back_off["BaseInterval"]:
        return "retry policy backoff's MaxInterval should be greater or equal to BaseInterval"
    cluster = remote["JWKSCluster"]
    return _cluster_error(cluster) if cluster else ""


def _cluster_error(cluster: Mapping[str, Any]) -> str:
    if cluster["DiscoveryType"] not in _DISCOVERY:
        return f"unsupported jwks cluster discovery type: {quote(cluster['DiscoveryType'])}"
    certificates = cluster["TLSCertificates"]
    if certificates is None:
        return ""
    trusted = certificates["TrustedCA"]
    if (certificates["CaCertificateProviderInstance"] is None) == (trusted is None):
        return "must specify exactly one of: CaCertificateProviderInstance or TrustedCA for JKWS' TLSCertificates"
    if trusted is not None and sum(map(bool, trusted.values())) != 1:
        return (
            "must specify exactly one of: Filename, EnvironmentVariable, InlineString or InlineBytes "
            "for JWKS' TrustedCA"
        )
    return ""


def _location_error(location: Mapping[str, Any]) -> str:
    spoken = {"Header": "header", "Cookie": "cookie", "QueryParam": "query param"}
    given = [field for field in spoken if location[field] is not None]
    if len(given) != 1:
        return "must set exactly one of: JWT location header, query param or cookie"
    return "" if location[given[0]]["Name"] else f"JWT location {spoken[given[0]]} name must be specified"


# --- exported-services ------------------------------------------------------------------------------------------------


def settle_exported_services(entry: Entry) -> None:
    """Forget namespaces: Consul CE has none."""
    for service in entry["Services"] or ():
        service["Namespace"] = ""


def check_exported_services(entry: Entry) -> None:
    """Refuse another name than `default`, and consumers that are not exactly one peer."""
    if entry["Name"] != "default":
        raise EntryError('exported-services Name must be "default"')
    check_meta(entry)
    services = entry["Services"] or ()
    for position, service in enumerate(services):
        for place, consumer in enumerate(service["Consumers"] or ()):
            if consumer["SamenessGroup"]:
                raise EntryError(
                    f"Services[{position}].Consumers[{place}]: sameness-groups are an enterprise-only feature"
                )
    for position, service in enumerate(services):
        where = f"Services[{position}]"
        if not service["Name"]:
            raise EntryError(f"{where}: service name cannot be empty")
        if not service["Consumers"]:
            raise EntryError(f"{where}: must have at least one consumer")
        for place, consumer in enumerate(service["Consumers"]):
            _check_consumer(f"{where}.Consumers[{place}]", consumer)


def _check_consumer(where: str, consumer: Mapping[str, Any]) -> None:
    if consumer["Peer"] and consumer["Partition"]:
        raise EntryError(f"{where}: must define at most one of Peer, Partition, or SamenessGroup")
    for field, spoken in (("Partition", "partitions"), ("Peer", "peers")):
        if consumer[field] == WILDCARD:
            raise EntryError(f"{where}: exporting to all {spoken} (wildcard) is not supported")
