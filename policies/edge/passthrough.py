"""TLS passthrough: which service of the mesh takes a connection, by the name that its caller asks for.

An opt-in of the gateway's YAML, with no entry of Consul's. The gateway reads the name and relays the bytes: the TLS is
the service's own, inside the mesh's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.edge.wildcards import longest_suffix

ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class PassthroughRule:
    """One line of the YAML. `sni` is a name, `*.suffix` or `*`, in lower case; "" takes callers that send none."""

    port: int
    sni: str
    service: str


@dataclass(frozen=True, slots=True)
class PassthroughListener:
    """One port and what stands behind its names."""

    address: str
    port: int
    rules: tuple[PassthroughRule, ...]

    def service_for(self, sni: str) -> str | None:
        """Return who takes an SNI (lower case, "" is none): a name before the longest suffix, then `*`, else None.

        As in Envoy's filter chains `*.suffix` stands for one label or more.
        """
        services = {rule.sni: rule.service for rule in self.rules}
        if sni in services or not sni:
            return services.get(sni)
        suffix = longest_suffix(sni, services)
        return suffix if suffix is not None else services.get(ANY_NAME)


def passthrough_listeners(rules: Iterable[PassthroughRule], address: str) -> tuple[PassthroughListener, ...]:
    """Return the listeners of these rules, by port."""
    by_port: dict[int, list[PassthroughRule]] = {}
    for rule in rules:
        by_port.setdefault(rule.port, []).append(rule)
    return tuple(PassthroughListener(address, port, tuple(found)) for port, found in sorted(by_port.items()))
