"""What a gateway says to the mesh about whom a request is from, and what it believes of what others said.

Believed is who connects from a trusted network (`trusted_proxies`), and nobody else: a number of hops, Envoy's other
way, would also believe whoever reaches the gateway past the proxies that were counted.
Sources: RFC 7239 (Forwarded), W3C Trace Context level 1, sections 3.2 and 3.4.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = tuple[Network, ...]
_FULL = 100.0

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_TRACEPARENT_0 = 55  # characters of version 00
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_PORT = re.compile(r"(?:(\d{1,3}(?:\.\d{1,3}){3})|\[([^\]]*)\])(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What the YAML says. `forwarded` writes RFC 7239's field too; `sampled` is the percentage of new traces."""

    trusted_proxies: Networks = ()
    forwarded: bool = False
    request_id: bool = True
    traceparent: bool = True
    sampled: float = _FULL


DEFAULT_FORWARDING = Forwarding()
NOTHING_TOLD = Forwarding(request_id=False, traceparent=False)


def is_within(address: str, networks: Networks) -> bool:
    """Return whether an address is in one of the networks; what is no address is in none."""
    if not networks:
        return False
    try:
        found = plain_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address, that of IPv4 where it is written as one of IPv6. Raise ValueError."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def client_chain(said: Sequence[str], peer: str, trusted: Networks) -> tuple[str, ...]:
    """Return the addresses from the client to `peer`, who connected and is trusted. `said` are X-Forwarded-For's lines.

    Each hop vouches for the one that it names, as long as it is trusted itself. So the client is the last one, from
    the right, that nobody has to believe; what stands left of it is its own claim, and left out.
    """
    chain = [peer]
    for element in reversed([element.strip(" \t") for line in said for element in line.split(",")]):
        if not is_within(chain[0], trusted):
            break
        try:
            chain.insert(0, str(plain_address(_without_port(element))))
        except ValueError:  # `unknown`, or a name that hides somebody
            break
    return tuple(chain)


def _without_port(element: str) -> str:
    found = _PORT.fullmatch(element)
    return found[1] or found[2] if found is not None else element


def forwarded_value(chain: Iterable[str], host: str, proto: str) -> str:
    """Return the value of Forwarded: an element for each hop, the last one with the host and the protocol asked for."""
    elements = [f'for="[{address}]"' if ":" in address else f"for={address}" for address in chain]
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    return ", ".join(elements) + f';host="{quoted}";proto={proto}'


def is_traceparent(values: Sequence[str]) -> bool:
    """Return whether these lines are one `traceparent` that can be gone on with."""
    if len(values) != 1 or _TRACEPARENT.fullmatch(values[0]) is None:
        return False
    return not values[0].startswith("00") or len(values[0]) == _TRACEPARENT_0


def is_request_id(values: Sequence[str]) -> bool:
    """Return whether these lines are one request id."""
    return len(values) == 1 and _REQUEST_ID.fullmatch(values[0]) is not None
