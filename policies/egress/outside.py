"""What Consul's entries say of a service outside the mesh that a gateway needs: subsets, balancing, timeouts, protocol.

A terminating gateway reads the entries and not the discovery chain: routers and splitters run at the caller, and the
caller asks for a subset by its SNI. The protocol falls back to proxy-defaults as that of an inbound listener does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.balance import LoadBalancer
from policies.chain import parse_load_balancer
from policies.durations import parse_duration
from policies.errors import FilterError, Problem
from policies.filters import Filter, parse_filter
from policies.weak import Opaque, mapping

ROUND_ROBIN = LoadBalancer()


@dataclass(frozen=True, slots=True)
class Subset:
    """A named subset of a service's instances. `filter` None takes all; `broken` is what is wrong with it."""

    name: str
    filter: Filter | None = None
    only_passing: bool = False
    broken: str = ""


@dataclass(frozen=True, slots=True)
class OutsideResolver:
    """A `service-resolver` as a gateway follows it. Timeouts in seconds, 0 = not set."""

    subsets: tuple[Subset, ...] = ()
    balancer: LoadBalancer = ROUND_ROBIN
    connect_timeout: float = 0.0
    request_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Defaults:
    """The part of `service-defaults` or `proxy-defaults` that counts here; "" where it does not say."""

    protocol: str = ""


def parse_resolver(entry: Mapping[str, Any] | None) -> OutsideResolver:
    """Return what the entry says; None (404) is all defaults. Raise EntryError."""
    body = mapping(entry)
    name = f"service-resolver {body.get('Name')}"
    return OutsideResolver(
        subsets=tuple(_subset(str(name), mapping(row)) for name, row in sorted(mapping(body.get("Subsets")).items())),
        balancer=parse_load_balancer(mapping(body.get("LoadBalancer"))),
        connect_timeout=parse_duration(body.get("ConnectTimeout"), f"{name} ConnectTimeout"),
        request_timeout=parse_duration(body.get("RequestTimeout"), f"{name} RequestTimeout"),
    )


def _subset(name: str, row: Mapping[str, Any]) -> Subset:
    expression = str(row.get("Filter") or "")
    try:  # Consul checks no more than the syntax
        return Subset(name, parse_filter(expression) if expression else None, bool(row.get("OnlyPassing")))
    except FilterError as error:
        return Subset(name, broken=str(error))


def parse_service_defaults(entry: Mapping[str, Any] | None) -> Defaults:
    """Return what the entry says; None (404) is nothing."""
    return Defaults(str(mapping(entry).get("Protocol") or "").lower())


def not_reached(entry: Mapping[str, Any] | None) -> tuple[Problem, ...]:
    """Return what a `service-defaults` says of a place outside that nobody calls for it."""
    body = mapping(entry)
    if not mapping(body.get("Destination")).get("Addresses"):
        return ()
    message = "its Destination is not supported, which transparent mode alone would ask for"
    return (Problem(f"service-defaults {body.get('Name')}", message, "register the service under its address"),)


def parse_proxy_defaults(entry: Mapping[str, Any] | None) -> Defaults:
    """Return what the entry says; None (404) is nothing."""
    return Defaults(Opaque(mapping(entry).get("Config")).text("protocol").lower())
