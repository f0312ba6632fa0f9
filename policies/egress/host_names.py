"""Host names as addresses of instances outside the mesh: which are dialled, and what stands for them.

As Consul has Envoy do it: as soon as one instance is a name, those that are IPs are ignored, and of the names one is
used, the first that is healthy, by whichever of its addresses answers (LOGICAL_DNS). With STRICT_DNS every name is
used, and each of its addresses is an endpoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from policies.balance import Endpoint


def is_name(address: str) -> bool:
    """Return whether an address is a host name and no IP."""
    try:
        ip_address(address)
    except ValueError:
        return True
    return False


def dialled(endpoints: tuple[Endpoint, ...], *, strict: bool) -> tuple[Endpoint, ...]:
    """Return those of the healthy endpoints of a service outside that are used; each says its host name, if any."""
    named = tuple(replace(one, host=one.address) for one in endpoints if is_name(one.address))
    if not named:
        return endpoints
    return named if strict else named[:1]


def resolved(
    endpoints: tuple[Endpoint, ...], addresses: Callable[[str], tuple[str, ...]], *, strict: bool
) -> tuple[Endpoint, ...]:
    """Return the endpoints by what is known of their names: with `strict` the addresses take a name's place.

    A name without an address stays as long as there is nothing else, and fails when it is dialled, which says why.
    """
    known = tuple(one for one in endpoints if not one.host or addresses(one.host))
    if not strict or not known:
        return known or tuple(endpoints)
    return tuple(
        replace(one, address=address)
        for one in known
        for address in (addresses(one.host) if one.host else (one.address,))
    )
