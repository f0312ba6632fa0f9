"""Services and checks in the shapes of `GET /v1/health/service/:service` and `GET /v1/catalog/service/:service`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lictor.dev.consul.state import Json


def check_row(node: str, check_id: str, **given: Any) -> Json:
    """Return a check in the shape of a health query; `given` by field."""
    return {
        "Node": node,
        "CheckID": check_id,
        "Name": given.get("Name", ""),
        "Status": given.get("Status", "critical"),
        "Notes": given.get("Notes", ""),
        "Output": given.get("Output", ""),
        "ServiceID": given.get("ServiceID", ""),
        "ServiceName": given.get("ServiceName", ""),
        "ServiceTags": given.get("ServiceTags") or [],
        "Type": given.get("Type", ""),
        "Interval": given.get("Interval", ""),
        "Timeout": given.get("Timeout", ""),
        "ExposedPort": 0,
        "Definition": given.get("Definition") or {},
    }


def addresses_of(service: Mapping[str, Any]) -> Json:
    """Return a service's tagged addresses with both of their fields."""
    return {
        name: {"Address": address.get("Address") or "", "Port": address.get("Port") or 0}
        for name, address in (service.get("TaggedAddresses") or {}).items()
    }


def service_row(service: Mapping[str, Any]) -> Json:
    """Return a service in the shape of a health query."""
    kind = {"Kind": service["Kind"]} if service.get("Kind") else {}
    tagged = {"TaggedAddresses": addresses} if (addresses := addresses_of(service)) else {}
    path = {"SocketPath": service["SocketPath"]} if service.get("SocketPath") else {}
    given = service.get("Locality")
    locality = {"Locality": {key: value for key, value in given.items() if value}} if given is not None else {}
    weights = service.get("Weights") or {"Passing": 1, "Warning": 1}
    connect = service.get("Connect") or {}
    return {
        **kind,
        "ID": service["ID"],
        "Service": service["Service"],
        "Tags": service.get("Tags") or [],
        "Address": service.get("Address") or "",
        **tagged,
        "Meta": service.get("Meta"),
        **({"Port": service["Port"]} if service.get("Port") else {}),
        **path,
        "Weights": {"Passing": weights.get("Passing", 0), "Warning": weights.get("Warning", 0)},
        "EnableTagOverride": bool(service.get("EnableTagOverride")),
        "Proxy": proxy_row(service.get("Proxy") or {}, of_catalog=True),
        "Connect": {"Native": True} if connect.get("Native") else {},
        **locality,
        "PeerName": "",
    }


def proxy_row(proxy: Mapping[str, Any], *, of_catalog: bool) -> Json:
    """Return the `Proxy` of a service: the catalog tells `Mode` and `Datacenter` even when they are empty."""
    row: Json = {}
    for name in ("DestinationServiceName", "DestinationServiceID", "LocalServiceAddress", "LocalServicePort"):
        if proxy.get(name):
            row[name] = proxy[name]
    if proxy.get("LocalServiceSocketPath"):
        row["LocalServiceSocketPath"] = proxy["LocalServiceSocketPath"]
    if of_catalog or proxy.get("Mode"):
        row["Mode"] = proxy.get("Mode") or ""
    if proxy.get("Config"):
        row["Config"] = proxy["Config"]
    if proxy.get("Upstreams"):
        row["Upstreams"] = [_upstream_row(upstream, of_catalog=of_catalog) for upstream in proxy["Upstreams"]]
    mode = (proxy.get("MeshGateway") or {}).get("Mode")
    row["MeshGateway"] = {"Mode": mode} if mode else {}
    row["Expose"] = _exposed(proxy.get("Expose") or {}, of_catalog=of_catalog)
    if any((proxy.get("TransparentProxy") or {}).values()):
        row["TransparentProxy"] = {key: value for key, value in proxy["TransparentProxy"].items() if value}
    for name in ("EnvoyExtensions", "MutualTLSMode", "AccessLogs"):
        if proxy.get(name):
            row[name] = proxy[name]
    return row


def _exposed(expose: Mapping[str, Any], *, of_catalog: bool) -> Json:
    row = {key: value for key, value in expose.items() if value}
    if row.get("Paths"):
        paths = [{key: value for key, value in path.items() if value} for path in row["Paths"]]
        row["Paths"] = paths if of_catalog else [{"ParsedFromCheck": False, **path} for path in paths]
    return row


def _upstream_row(upstream: Mapping[str, Any], *, of_catalog: bool) -> Json:
    row: Json = {"DestinationType": upstream.get("DestinationType") or ""}
    names = ("DestinationNamespace", "DestinationPartition", "DestinationPeer", "DestinationName", "Datacenter")
    for name in (*names, "LocalBindAddress", "LocalBindPort", "LocalBindSocketPath", "LocalBindSocketMode", "Config"):
        if upstream.get(name) or (of_catalog and name == "Datacenter"):
            row[name] = upstream.get(name) or ""
    mode = (upstream.get("MeshGateway") or {}).get("Mode")
    row["MeshGateway"] = {"Mode": mode} if mode else {}
    if upstream.get("DestinationName") == "*":  # which nobody may give: it comes of central config
        row["CentrallyConfigured"] = True
    return row


def catalog_row(node: Mapping[str, Any], service: Mapping[str, Any]) -> Json:
    """Return a row of `GET /v1/catalog/service/:service`."""
    tagged = {"ServiceTaggedAddresses": service["TaggedAddresses"]} if service.get("TaggedAddresses") else {}
    return {
        "ID": node["ID"],
        "Node": node["Node"],
        "Address": node["Address"],
        "Datacenter": node["Datacenter"],
        "TaggedAddresses": node["TaggedAddresses"],
        "NodeMeta": node["Meta"],
        "ServiceKind": service.get("Kind", ""),
        "ServiceID": service["ID"],
        "ServiceName": service["Service"],
        "ServiceTags": service["Tags"],
        "ServiceAddress": service["Address"],
        **tagged,
        "ServiceWeights": service["Weights"],
        "ServiceMeta": service["Meta"] or {},
        "ServicePort": service.get("Port", 0),
        "ServiceSocketPath": service.get("SocketPath", ""),
        "ServiceEnableTagOverride": service["EnableTagOverride"],
        "ServiceProxy": service["Proxy"],
        "ServiceConnect": service["Connect"],
        "ServiceLocality": service.get("Locality"),
        "CreateIndex": service["CreateIndex"],
        "ModifyIndex": service["ModifyIndex"],
    }
