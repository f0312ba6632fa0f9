"""Checks of service-resolver. Where Consul walks a map at random, the first key by name is reported here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policies.durations import format_duration
from policies.entries.check_common import byte_length, check_meta
from policies.entries.filter_syntax import syntax_error
from policies.entries.gotext import quote
from policies.errors import EntryError

Entry = dict[str, Any]

_SUBSET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LONGEST_SUBSET = 63
_POLICIES = frozenset({"", "random", "round_robin", "least_request", "ring_hash", "maglev"})
_HASHED = frozenset({"ring_hash", "maglev"})
_HASH_FIELDS = frozenset({"", "header", "cookie", "query_parameter"})


def check_resolver(entry: Entry) -> None:
    """Refuse what a resolver cannot mean."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    check_meta(entry)
    subsets = entry["Subsets"] or {}
    for name in sorted(subsets):
        _check_subset(name, subsets[name]["Filter"])
    if entry["DefaultSubset"] and entry["DefaultSubset"] not in subsets:
        raise EntryError(f"DefaultSubset {quote(entry['DefaultSubset'])} is not a valid subset")
    check_locality(entry["PrioritizeByLocality"])
    if entry["Redirect"] is not None:
        _check_redirect(entry, entry["Redirect"], subsets)
    for subset, failover in sorted((entry["Failover"] or {}).items()):
        _check_failover(entry, subset, failover, subsets)
    for field in ("ConnectTimeout", "RequestTimeout"):
        if entry[field] < 0:
            raise EntryError(f"Bad {field} '{format_duration(entry[field])}', must be >= 0")
    if entry["LoadBalancer"] is not None:
        _check_balancer(entry["LoadBalancer"])


def check_locality(locality: Mapping[str, Any] | None) -> None:
    """Refuse what only Consul Enterprise does."""
    if locality and locality["Mode"]:
        raise EntryError("Prioritize-by-locality requires Consul Enterprise ")


def _check_subset(name: str, expression: str) -> None:
    if not name:
        raise EntryError("Subset defined with empty name")
    wrong = ""
    if byte_length(name) > _LONGEST_SUBSET:
        wrong = "must be non-empty and 63 characters or fewer"
    elif not _SUBSET.fullmatch(name):
        wrong = (
            "must be 63 characters or fewer, begin or end with lower case alphanumeric characters, "
            "and contain lower case alphanumeric characters or '-' in between"
        )
    if wrong:
        raise EntryError(f"Subset {quote(name)} is invalid: {wrong}")
    wrong = syntax_error(expression) if expression else ""
    if wrong:
        raise EntryError(f"Filter for subset {quote(name)} is not a valid expression: {wrong}")


def _refuse_enterprise(where: str, place: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    for field in fields:
        if place[field]:
            raise EntryError(f"{where}: Setting {field} requires Consul Enterprise")


def _check_redirect(entry: Entry, redirect: Mapping[str, Any], subsets: Mapping[str, Any]) -> None:
    _refuse_enterprise("Redirect", redirect, ("Partition", "Namespace", "SamenessGroup"))
    if entry["Failover"]:
        raise EntryError("Redirect and Failover cannot both be set")
    if not any(redirect.values()):
        raise EntryError("Redirect is empty")
    for field in ("ServiceSubset", "Datacenter"):
        if redirect["Peer"] and redirect[field]:
            raise EntryError(f"Redirect.Peer cannot be set with Redirect.{field}")
    if not redirect["Service"]:
        for field in ("ServiceSubset", "Peer"):
            if redirect[field]:
                raise EntryError(f"Redirect.{field} defined without Redirect.Service")
    elif (
        redirect["ServiceSubset"] and redirect["Service"] == entry["Name"] and redirect["ServiceSubset"] not in subsets
    ):
        name = quote(redirect["ServiceSubset"])
        raise EntryError(f"Redirect.ServiceSubset {name} is not a valid subset of {quote(entry['Name'])}")


def _check_failover(entry: Entry, subset: str, failover: Mapping[str, Any], subsets: Mapping[str, Any]) -> None:
    where = f"Bad Failover[{quote(subset)}]"
    _refuse_enterprise(where, failover, ("Namespace", "SamenessGroup"))
    if subset != "*" and subset not in subsets:
        raise EntryError(f"{where}: not a valid subset subset")
    if not any(failover[field] for field in ("Service", "ServiceSubset", "Datacenters", "Targets")):
        raise EntryError(
            f"{where}: one of Service, ServiceSubset, Namespace, Targets, SamenessGroup, or Datacenters is required"
        )
    if (failover["Policy"] or {}).get("Mode"):
        raise EntryError(f"{where}: Setting failover policies requires Consul Enterprise")
    own = failover["Service"] in {"", entry["Name"]}
    if failover["ServiceSubset"] and own and failover["ServiceSubset"] not in subsets:
        name = quote(failover["ServiceSubset"])
        raise EntryError(f"{where}: ServiceSubset {name} is not a valid subset of {quote(failover['Service'])}")
    for field in ("Datacenters", "ServiceSubset", "Service"):
        if failover[field] and failover["Targets"]:
            raise EntryError(f"{where}: Targets cannot be set with {field}")
    for position, target in enumerate(failover["Targets"] or ()):
        _check_target(entry["Name"], f"{where}.Targets[{position}]", target, subsets)
    if not all(failover["Datacenters"] or ()):
        raise EntryError(f"{where}.Datacenters: found empty datacenter")


def _check_target(name: str, where: str, target: Mapping[str, Any], subsets: Mapping[str, Any]) -> None:
    _refuse_enterprise(where, target, ("Partition", "Namespace"))
    for field in ("ServiceSubset", "Datacenter"):
        if target["Peer"] and target[field]:
            raise EntryError(f"{where}: Peer cannot be set with {field}")
    if target["ServiceSubset"] and target["Service"] in {"", name} and target["ServiceSubset"] not in subsets:
        subset = quote(target["ServiceSubset"])
        raise EntryError(f"{where}: ServiceSubset {subset} is not a valid subset of {quote(name)}")


def _check_balancer(balancer: Mapping[str, Any]) -> None:
    policy = balancer["Policy"]
    if policy not in _POLICIES:
        raise EntryError(f"Bad LoadBalancer policy: {quote(policy)} is not supported")
    for field, fits in (("RingHashConfig", "ring_hash"), ("LeastRequestConfig", "least_request")):
        if balancer[field] is not None and policy != fits:
            raise EntryError(
                f"Bad LoadBalancer configuration. {field} specified for incompatible load balancing policy "
                f"{quote(policy)}"
            )
    if policy not in _HASHED and balancer["HashPolicies"]:
        raise EntryError(
            f"Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: {quote(policy)}"
        )
    for position, hashed in enumerate(balancer["HashPolicies"] or ()):
        wrong = _hash_policy_error(hashed)
        if wrong:
            raise EntryError(f"Bad LoadBalancer HashPolicy[{position}]: {wrong}")


def _hash_policy_error(hashed: Mapping[str, Any]) -> str:
    field, value, cookie = hashed["Field"], hashed["FieldValue"], hashed["CookieConfig"]
    if field not in _HASH_FIELDS:
        return f"{quote(field)} is not a supported field"
    if hashed["SourceIP"] and field:
        return f"A single hash policy cannot hash both a source address and a {quote(field)}"
    if hashed["SourceIP"] and value:
        return "A FieldValue cannot be specified when hashing SourceIP"
    if field and not value:
        return f"Field {quote(field)} was specified without a FieldValue"
    if value and not field:
        return "FieldValue requires a Field to apply to"
    if cookie is not None and field != "cookie":
        return f"cookie_config provided for {quote(field)}"
    if cookie is not None and cookie["Session"] and cookie["TTL"]:
        return "a session cookie cannot have an associated TTL"
    return ""
