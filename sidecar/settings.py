"""What one proxy process is told by its operator; everything else it hears from Consul and Vault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.consul.settings import ConsulSettings
from controlplane.issuer.settings import VaultSettings
from controlplane.registration import Definition
from policies.snapshot import Role

if TYPE_CHECKING:
    from policies.edge.settings import EdgeSettings

DEFAULT_ADMIN = ("127.0.0.1", 19000)  # Envoy's under `consul connect envoy`
DRAIN_SECONDS = 30.0
GATEWAYS = {"ingress": Role.INGRESS, "api": Role.API, "terminating": Role.TERMINATING}  # as operators write them
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Who to be and whom to ask. `vault` None: the leaf comes from Consul; `pki` may be asked for other certificates.

    Exactly one of three says who: `definitions` to register ourselves (the service, if it is ours to register, and the
    proxy last), `proxy_id` of a registered proxy or gateway, or `sidecar_for`, a service instance that has one.
    """

    role: Role
    consul: ConsulSettings
    vault: VaultSettings | None
    admin: tuple[str, int] | None = DEFAULT_ADMIN
    drain_seconds: float = DRAIN_SECONDS
    log_level: str = "info"
    log_json: bool = True
    definitions: tuple[Definition, ...] = ()
    proxy_id: str = ""
    sidecar_for: str = ""
    gateway_service: str = ""
    edge: EdgeSettings | None = None  # of a gateway
    pki: VaultSettings | None = None


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`, `[::1]:port` or `:port` (loopback). Raise ValueError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        raise ValueError(text)
    return host.strip("[]") or "127.0.0.1", int(port)


_WORDS = {"id": "ID", "http": "HTTP", "tcp": "TCP", "ttl": "TTL", "grpc": "GRPC", "tls": "TLS", "udp": "UDP"}


def camel(key: str) -> str:
    """Return a snake_case name of a Consul definition as its API spells it: `check_id` is CheckID."""
    return "".join(_WORDS.get(word, word[:1].upper() + word[1:]) for word in key.split("_"))


def camelized(value: Any) -> Any:
    """Return plain data with every key of a mapping in Consul's spelling, header names and meta left alone."""
    if isinstance(value, Mapping):
        return {
            camel(str(key)): item if str(key).lower() in {"header", "meta", "config"} else camelized(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [camelized(item) for item in value]
    return value
