"""What the operator of a gateway decides about its edge, and Consul's entries have no field for.

It comes from the gateway's YAML, is the same for the whole life of a process, and travels with the snapshot into the
table, so that what decides sees it by one reference.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.edge.forwarding import DEFAULT_FORWARDING, Forwarding
from policies.edge.passthrough import PassthroughRule
from policies.edge.proxy_protocol import NO_PROXY_PROTOCOL, ProxyProtocol
from policies.edge.tls import NO_TLS, EdgeTls
from policies.protection import DEFAULT_PROTECTION, Protection


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """All of it; the defaults are what a gateway without any of these words does."""

    tls: EdgeTls = NO_TLS
    passthrough: tuple[PassthroughRule, ...] = ()
    proxy_protocol: ProxyProtocol = NO_PROXY_PROTOCOL
    forwarding: Forwarding = DEFAULT_FORWARDING
    protection: Protection = DEFAULT_PROTECTION


NO_EDGE = EdgeSettings()
