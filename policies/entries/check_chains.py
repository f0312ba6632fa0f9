"""Normal form and checks of service-router and service-splitter.

Each function takes a complete entry (every field present); `settle_` changes it in place, `check_` raises EntryError
with Consul's text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from policies.entries.check_common import check_meta, check_methods
from policies.entries.gotext import quote, single, to_signed
from policies.errors import EntryError

Entry = dict[str, Any]

_RETRY_ON = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
_WHOLE = 10_000


def settle_router(entry: Entry) -> None:
    """Spell methods in upper case."""
    for route in entry["Routes"] or ():
        http = (route["Match"] or {}).get("HTTP")
        if http and http["Methods"]:
            http["Methods"] = [method.upper() for method in http["Methods"]]


def check_router(entry: Entry) -> None:
    """Refuse what a router cannot mean."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    check_meta(entry)
    for position, route in enumerate(entry["Routes"] or ()):
        where = f"Route[{position}]"
        http = (route["Match"] or {}).get("HTTP")
        if http:
            _check_match(where, http)
        destination = route["Destination"]
        if not destination:
            continue
        if destination["PrefixRewrite"] and not (http and (http["PathExact"] or http["PathPrefix"])):
            raise EntryError(
                f"{where} cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix"
            )
        for condition in destination["RetryOn"] or ():
            if condition not in _RETRY_ON:
                raise EntryError(f"{where} contains an invalid retry condition: {quote(condition)}")


def _check_match(where: str, http: Mapping[str, Any]) -> None:
    check_paths(where, " ", http)
    for place, header in enumerate(http["Header"] or ()):
        _check_one_of(f"{where} Header[{place}]", header, ("Present", "Exact", "Prefix", "Suffix", "Regex"))
    for place, parameter in enumerate(http["QueryParam"] or ()):
        _check_one_of(f"{where} QueryParam[{place}]", parameter, ("Present", "Exact", "Regex"))
    check_methods(f"{where} Methods", http["Methods"])


def check_paths(where: str, joint: str, http: Mapping[str, Any]) -> int:
    """Refuse more than one path, or one without its slash. Return how many there are."""
    for kind in ("PathExact", "PathPrefix"):
        if http[kind] and not http[kind].startswith("/"):
            raise EntryError(f"{where}{joint}{kind} doesn't start with '/': {quote(http[kind])}")
    paths = sum(bool(http[kind]) for kind in ("PathExact", "PathPrefix", "PathRegex"))
    if paths > 1:
        raise EntryError(f"{where} should only contain at most one of PathExact, PathPrefix, or PathRegex")
    return paths


def _check_one_of(where: str, matcher: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
    if not matcher["Name"]:
        raise EntryError(f"{where} missing required Name field")
    if sum(bool(matcher[kind]) for kind in kinds) != 1:
        raise EntryError(f"{where} should only contain one of {', '.join(kinds[:-1])}, or {kinds[-1]}")


def scaled(weight: float) -> int:
    """Return a weight in hundredths of a percent, rounded half away from zero, as a 32-bit float holds it."""
    product = single(weight * 100.0)
    if not math.isfinite(product):
        return to_signed(product)
    return to_signed(math.copysign(math.floor(abs(product) + 0.5), product))


def normal_weight(weight: float) -> float:
    """Return a weight cut to hundredths of a percent, as a 32-bit float."""
    return single(single(float(scaled(weight))) / 100.0)


def settle_splitter(entry: Entry) -> None:
    """Cut weights to hundredths of a percent."""
    for split in entry["Splits"] or ():
        split["Weight"] = normal_weight(split["Weight"])


def check_splitter(entry: Entry) -> None:
    """Refuse a splitter whose weights are not 100 together, or that names a destination twice."""
    if not entry["Name"]:
        raise EntryError("Name is required")
    splits = entry["Splits"]
    if not splits:
        raise EntryError("no splits configured")
    check_meta(entry)
    seen = set()
    for position, split in enumerate(splits):
        key = (split["Service"] or entry["Name"], split["ServiceSubset"], split["Namespace"], split["Partition"])
        # Two legs that each carry header modifiers are never the same to Consul.
        modified = split["RequestHeaders"] is not None or split["ResponseHeaders"] is not None
        if (key, None) in seen and not modified:
            service, subset, namespace, partition = (quote(part) for part in key)
            raise EntryError(
                f"split destination occurs more than once: service={service}, subset={subset}, "
                f"namespace={namespace}, partition={partition}"
            )
        seen.add((key, position if modified else None))
    total = sum(scaled(split["Weight"]) for split in splits)
    if total != _WHOLE:
        raise EntryError(f"the sum of all split weights must be 100, not {single(single(float(total)) / 100.0):f}")
