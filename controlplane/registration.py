"""What a proxy registers of itself, and finding a proxy that is registered already.

Builders are pure. What Consul does not check (kinds, ports, weights) is checked here before anything is sent.
Source: `PUT /v1/agent/service/register`; defaults as in Consul's sidecar expansion and `consul connect envoy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from policies.errors import ConfigError, Problem

SIDECAR_SUFFIX = "-sidecar-proxy"
CHECK_INTERVAL = "10s"
GATEWAY_DEREGISTER_AFTER = "6h"
NO_ADDRESSES: Mapping[str, tuple[str, int]] = {}
DRAIN_REASON = "lictor is draining"
_MAX_PORT = 65535

Definition = dict[str, Any]


class Agent(Protocol):
    """The part of the catalog that registration needs."""

    async def services(self) -> Mapping[str, Any]:
        """Return the services of this agent by ID."""
        ...


def sidecar_definition(service: Mapping[str, Any], proxy: Mapping[str, Any]) -> Definition:
    """Return the `connect-proxy` of a service definition (both with Consul's CamelCase names).

    What the proxy does not say follows from the service: ID, name, address, tags, meta and weights. Weights are taken
    over since load balancing looks at the proxy's row.
    """
    service_id = str(service.get("ID") or service["Name"])
    address = str(proxy.get("Address") or service.get("Address") or "")
    port = int(proxy["Port"])
    settings = dict(proxy.get("Proxy") or {})
    settings.setdefault("LocalServiceAddress", "127.0.0.1")
    settings.setdefault("LocalServicePort", service.get("Port"))
    return {
        "Kind": "connect-proxy",
        "ID": service_id + SIDECAR_SUFFIX,
        "Name": str(proxy.get("Name") or f"{service['Name']}{SIDECAR_SUFFIX}"),
        "Address": address,
        "Port": port,
        "Tags": list(proxy.get("Tags") or service.get("Tags") or []),
        "Meta": dict(proxy.get("Meta") or service.get("Meta") or {}),
        "Weights": dict(proxy.get("Weights") or service.get("Weights") or {"Passing": 1, "Warning": 1}),
        "Proxy": {**settings, "DestinationServiceName": service["Name"], "DestinationServiceID": service_id},
        "Checks": [
            _listening("Connect Sidecar Listening", address, port),
            {"Name": f"Connect Sidecar Aliasing {service_id}", "AliasService": service_id},
        ],
    }


def gateway_definition(
    kind: str,
    service: str,
    proxy_id: str,
    address: str,
    port: int,
    *,
    wan: tuple[str, int] | None = None,
    bind: Mapping[str, tuple[str, int]] = NO_ADDRESSES,
    deregister_after: str = GATEWAY_DEREGISTER_AFTER,
) -> Definition:
    """Return a gateway's registration, its check already passing: it listens before it registers.

    An api-gateway has no check, as under `consul connect envoy`: nothing need listen on the port that it registers.
    `wan` is the address for other datacenters, `bind` has those to listen on in place of the registered one, by names;
    `deregister_after` is a duration of Go's.
    """
    tagged = {"lan": (address, port), "wan": wan} if wan is not None else {}
    return {
        "Kind": kind,
        "ID": proxy_id,
        "Name": service,
        "Address": address,
        "Port": port,
        "Checks": [
            {
                **_listening(f"{kind} listening", address, port),
                "DeregisterCriticalServiceAfter": deregister_after,
            }
        ]
        if kind != "api-gateway"
        else [],
        **({"Proxy": {"Config": _bound(bind)}} if bind else {}),
        **(
            {"TaggedAddresses": {name: {"Address": at[0], "Port": at[1]} for name, at in tagged.items()}}
            if tagged
            else {}
        ),
    }


def _bound(addresses: Mapping[str, tuple[str, int]]) -> Definition:
    rows = {name: {"Address": host, "Port": port} for name, (host, port) in addresses.items()}
    return {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_addresses": rows}


def _listening(name: str, address: str, port: int) -> Definition:
    host = f"[{address}]" if ":" in address else address or "127.0.0.1"
    return {"Name": name, "TCP": f"{host}:{port}", "Interval": CHECK_INTERVAL, "Status": "passing"}


def seed(definition: Definition, datacenter: str, protocol: str) -> Definition:
    """Return a registration as the agent would return it, to start with before it is registered."""
    proxy = dict(definition.get("Proxy") or {})
    config = dict(proxy.get("Config") or {})
    if protocol and definition["Kind"] == "connect-proxy":
        config.setdefault("protocol", protocol)
    rest = {key: value for key, value in definition.items() if key not in {"Name", "Checks"}}
    return {**rest, "Service": definition["Name"], "Datacenter": datacenter, "Proxy": {**proxy, "Config": config}}


def check_definition(definition: Mapping[str, Any], where: str) -> tuple[Problem, ...]:
    """Return what Consul would store without a word although nobody can reach it."""
    problems = []
    port = definition.get("Port") or 0
    if not isinstance(port, int) or not 0 < port <= _MAX_PORT:
        problems.append(Problem(f"{where} port", f"{port!r} is not a port", "give a number from 1 to 65535"))
    if definition.get("Address") in {"0.0.0.0", "::"}:  # noqa: S104 - refused, not bound
        fix = "give the address that others reach this machine at"
        problems.append(Problem(f"{where} address", f"{definition['Address']} cannot be dialled", fix))
    weights = definition.get("Weights") or {}
    if int(weights.get("Passing", 1)) < 1 or int(weights.get("Warning", 1)) < 0:
        problems.append(Problem(f"{where} weights", f"{dict(weights)}", "passing must be >= 1, warning >= 0"))
    return tuple(problems)


async def find_sidecar(agent: Agent, service_id: str) -> str:
    """Return the ID of the one sidecar proxy of a service instance. Raise ConfigError for none or several."""
    services = await agent.services()
    found = [
        proxy_id
        for proxy_id, row in services.items()
        if row.get("Kind") == "connect-proxy" and (row.get("Proxy") or {}).get("DestinationServiceID") == service_id
    ]
    if len(found) == 1:
        return found[0]
    if found:
        message, fix = f"More than one sidecar proxy registered for {service_id}", "choose one with --proxy-id"
    elif service_id in services:
        message = f"No sidecar proxy registered for {service_id}"
        fix = "register it with `connect { sidecar_service {} }`"
    else:
        ids = sorted(key for key, row in services.items() if not row.get("Kind"))
        message = f"No sidecar proxy registered for {service_id}"
        fix = f"this agent has the services {', '.join(ids)}; give the ID, not the name"
        if not ids:
            fix = "this agent shows no service: register it, or give a token that may see it"
    raise ConfigError((Problem("--sidecar-for", message, fix),))
