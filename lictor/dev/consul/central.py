"""Central config: what proxy-defaults and service-defaults add to a proxy's registration.

The registration wins over service-defaults, which win over proxy-defaults, field by field. Source: Consul's
documentation of `service-defaults` and `proxy-defaults`, and what `GET /v1/agent/service/:id` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.entries import Entries

Json = dict[str, Any]
# field of service-defaults: key of Proxy.Config
_INBOUND = {
    "Protocol": "protocol",
    "MaxInboundConnections": "max_inbound_connections",
    "LocalConnectTimeoutMs": "local_connect_timeout_ms",
    "LocalRequestTimeoutMs": "local_request_timeout_ms",
    "BalanceInboundConnections": "balance_inbound_connections",
}
# field of an upstream's config: key of Upstream.Config
_UPSTREAM = {
    "Protocol": "protocol",
    "ConnectTimeoutMs": "connect_timeout_ms",
    "Limits": "limits",
    "PassiveHealthCheck": "passive_health_check",
    "BalanceOutboundConnections": "balance_outbound_connections",
    "EnvoyListenerJSON": "envoy_listener_json",
    "EnvoyClusterJSON": "envoy_cluster_json",
}


def merged_proxy(entries: Entries, service: Mapping[str, Any], proxy: Json) -> Json:
    """Return a proxy's `Proxy` with central config merged in."""
    name = proxy.get("DestinationServiceName") or service["Service"]
    common = entries.get("proxy-defaults", "global") or {}
    own = entries.get("service-defaults", name) or {}
    merged = dict(proxy)
    config = {**(common.get("Config") or {}), **_renamed(own, _INBOUND), **(proxy.get("Config") or {})}
    if config:
        merged["Config"] = config
    mode = _gateway_mode(proxy) or _gateway_mode(own) or _gateway_mode(common)
    merged["MeshGateway"] = {"Mode": mode} if mode else {}
    for field in ("Mode", "AccessLogs", "TransparentProxy", "MutualTLSMode"):
        value = proxy.get(field) or own.get(field) or common.get(field)
        if value:
            merged[field] = value
    expose = {**(common.get("Expose") or {}), **(own.get("Expose") or {}), **(proxy.get("Expose") or {})}
    merged["Expose"] = expose
    extensions = [*(common.get("EnvoyExtensions") or ()), *(own.get("EnvoyExtensions") or ())]
    if extensions:
        merged["EnvoyExtensions"] = extensions
    if proxy.get("Upstreams"):
        merged["Upstreams"] = [_merged_upstream(entries, upstream, proxy, own) for upstream in proxy["Upstreams"]]
    if merged.get("Mode") == "transparent" and mode:
        inside = {"DestinationPartition": "default", "DestinationNamespace": "default", "DestinationName": "*"}
        every = {**inside, "Config": {"mesh_gateway": {"Mode": mode}}, "MeshGateway": {"Mode": mode}}
        merged["Upstreams"] = [*merged.get("Upstreams", ()), every]
    return merged


def _merged_upstream(entries: Entries, upstream: Json, proxy: Json, own: Mapping[str, Any]) -> Json:
    common = entries.get("proxy-defaults", "global") or {}
    if upstream.get("DestinationType") not in {None, "", "service"} or upstream.get("DestinationPeer"):
        return upstream
    name = str(upstream.get("DestinationName") or "")
    central = own.get("UpstreamConfig") or {}
    override: Mapping[str, Any] = next(
        (row for row in central.get("Overrides") or () if row.get("Name", "").lower() == name.lower()), {}
    )
    defaults = central.get("Defaults") or {}
    theirs = entries.get("service-defaults", name)
    protocol = (theirs or {}).get("Protocol") or (common.get("Config") or {}).get("protocol")
    config: Json = {"protocol": protocol} if protocol else {}
    config |= _renamed(defaults, _UPSTREAM) | _renamed(override, _UPSTREAM) | (upstream.get("Config") or {})
    merged = {key: value for key, value in upstream.items() if key not in {"Config", "MeshGateway"}}
    if config:
        merged["Config"] = config
    holders = (upstream, proxy, override, defaults, own, common)  # the first that names a mode
    mode = next((mode for mode in map(_gateway_mode, holders) if mode), "")
    merged["MeshGateway"] = {"Mode": mode} if mode else {}
    return merged


def _renamed(entry: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    return {key: entry[field] for field, key in names.items() if entry.get(field) not in (None, "", 0, {})}


def _gateway_mode(holder: Mapping[str, Any]) -> str:
    return str((holder.get("MeshGateway") or {}).get("Mode") or "")
