"""Service and check definitions as they are registered: what Consul refuses of them.

Source: Consul's HTTP API, `PUT /v1/agent/service/register`, `PUT /v1/agent/check/register`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.shapes import SERVICE

Json = dict[str, Any]
SCRIPTS_DISABLED = (
    "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
)
STATES = ("passing", "warning", "critical")
GATEWAYS = frozenset({"mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"})
MOST_META, LONGEST_KEY, LONGEST_VALUE, MOST_WEIGHT = 64, 128, 512, 65535


# --- what is refused -----------------------------------------------------------------------------------------------


def collected(errors: list[str]) -> str:
    """Return several mistakes as Consul lists them."""
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    return f"{count} occurred:\n" + "".join(f"\t* {error}\n" for error in errors) + "\n"


def check_meta(meta: Mapping[str, str], what: str) -> None:
    """Refuse metadata that Consul does not keep. `what` is `Service` or `Node`."""
    prefix = f"Invalid {what} Meta: " if what == "Service" else ""
    if wrong := wrong_meta(meta):
        raise Refused(400, f"{prefix}{wrong}")


def wrong_meta(meta: Mapping[str, str]) -> str:
    """Return why Consul does not keep this metadata, or ""."""
    if len(meta) > MOST_META:
        return f"Node metadata cannot contain more than {MOST_META} key/value pairs"
    for key, value in meta.items():
        if wrong := _wrong_pair(key, value):
            return f"Couldn't load metadata pair ('{key}', '{value}'): {wrong}"
    return ""


def _wrong_pair(key: str, value: str) -> str:
    if not key:
        return "Key cannot be blank"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return "Key contains invalid characters"
    if len(key) > LONGEST_KEY:
        return f"Key is too long (limit: {LONGEST_KEY} characters)"
    if key.startswith("consul-"):
        return "Key prefix 'consul-' is reserved for internal use"
    if len(value) > LONGEST_VALUE:
        return f"Value is too long (limit: {LONGEST_VALUE} characters)"
    return ""


def check_weights(weights: Mapping[str, int]) -> None:
    """Refuse weights out of range."""
    if wrong := wrong_weights(weights):
        raise Refused(400, f"Invalid Weights: {wrong}")


def wrong_weights(weights: Mapping[str, int]) -> str:
    """Return what is wrong with weights, or ""."""
    passing, warning = weights.get("Passing") or 0, weights.get("Warning") or 0
    if passing < 1:
        return "Passing must be greater than 0"
    if warning < 0:
        return "Warning must be greater or equal than 0"
    if passing > MOST_WEIGHT or warning > MOST_WEIGHT:
        return f"DNS Weight must be between 0 and {MOST_WEIGHT}"
    return ""


def is_any_address(address: str) -> bool:
    """Return whether an address means every address of a machine."""
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def service_errors(service: Mapping[str, Any], *, of_agent: bool = False, typed: bool = True) -> list[str]:
    """Return what is wrong with a service definition. `of_agent`: its port may still be assigned.

    `typed`: an upstream of no type is one of a service already.
    """
    kind, proxy = str(service.get("Kind") or ""), service.get("Proxy") or {}
    connect = service.get("Connect") or {}
    locality = service.get("Locality") or {}
    errors: list[str] = []
    if not of_agent and locality.get("Zone") and not locality.get("Region"):
        errors.append("zone cannot be set without region")
    if kind == "connect-proxy":
        if not of_agent and not service.get("Port") and not service.get("SocketPath"):
            errors.append("Port or SocketPath must be set for a connect-proxy")
        errors += _proxy_errors(proxy, connect, "service" if typed else "")
    if kind in GATEWAYS:
        errors += _gateway_errors(kind, service, proxy, connect)
    sidecar = connect.get("SidecarService")
    if sidecar is not None:
        if sidecar.get("ID"):
            errors.append("A SidecarService cannot specify an ID as this is managed by the agent")
        if (sidecar.get("Connect") or {}).get("SidecarService") is not None:
            errors.append("A SidecarService cannot have a nested SidecarService")
    if connect.get("Native") and not service.get("Port") and not service.get("SocketPath"):
        errors.append("Port or SocketPath must be set for a Connect native service.")
    return errors


def _proxy_errors(proxy: Mapping[str, Any], connect: Mapping[str, Any], untyped: str) -> list[str]:
    errors: list[str] = []
    name = str(proxy.get("DestinationServiceName") or "")
    if not name.strip():
        errors.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
    if name == "*":
        errors.append("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services")
    if connect.get("Native"):
        errors.append("A Proxy cannot also be Connect Native, only typical services")
    seen: set[tuple[str, ...]] = set()
    bound: set[str] = set()
    for upstream in proxy.get("Upstreams") or ():
        wrong = _upstream_error(
            {**upstream, "DestinationType": upstream.get("DestinationType") or untyped}, seen, bound
        )
        if wrong:
            errors.append(wrong)
    return errors + _expose_errors(proxy)


def _upstream_error(upstream: Mapping[str, Any], seen: set[tuple[str, ...]], bound: set[str]) -> str:
    kind = upstream["DestinationType"]
    name, datacenter = str(upstream.get("DestinationName") or ""), str(upstream.get("Datacenter") or "")
    port, socket_path = upstream.get("LocalBindPort") or 0, str(upstream.get("LocalBindSocketPath") or "")
    tests: list[tuple[Callable[[], bool], str]] = [
        (lambda: kind not in {"", "service", "prepared_query"}, f'unknown upstream destination type: "{kind}"'),
        (lambda: not name, "upstream destination name cannot be empty"),
        (lambda: name == "*", "upstream destination name cannot be a wildcard"),
        (
            lambda: bool(upstream.get("DestinationPeer") and datacenter),
            "upstream cannot specify both destination peer and datacenter",
        ),
        (
            lambda: bool(datacenter and upstream.get("DestinationPartition")),
            "upstreams cannot target another datacenter in non default partition",
        ),
        (
            lambda: not port and not socket_path,
            "upstream local bind port or local socket path must be defined and nonzero",
        ),
        (
            lambda: bool(port and socket_path),
            "only one of upstream local bind port or local socket path can be defined and nonzero",
        ),
    ]
    wrong = next((text for test, text in tests if test()), "")
    if wrong:
        return wrong
    inside = {where: str(upstream.get(f"Destination{where.title()}") or "") for where in ("partition", "namespace")}
    key = (kind, name, datacenter, str(upstream.get("DestinationPeer") or ""), *inside.values())
    if key in seen:
        fields = {
            "type": kind,
            "name": name,
            **inside,
            "peer": key[3],
            "datacenter": datacenter,
        }
        return (
            "upstreams cannot contain duplicates of ["
            + ", ".join(f'{one}="{value}"' for one, value in fields.items())
            + "]"
        )
    seen.add(key)
    address = socket_path or f"{upstream.get('LocalBindAddress') or '127.0.0.1'}:{port}"
    if address in bound:
        which = "upstreams cannot contain duplicates by local bind address and port or unix path"
        return f'{which}; "{address}" is specified twice'
    bound.add(address)
    return ""


def _expose_errors(proxy: Mapping[str, Any]) -> list[str]:
    errors: list[str] = []
    seen: set[int] = set()
    for path in (proxy.get("Expose") or {}).get("Paths") or ():
        port = path.get("ListenerPort") or 0
        if not path.get("Path"):
            errors.append("expose.paths: empty path exposed")
        if port in seen:
            errors.append("expose.paths: duplicate listener ports exposed")
        seen.add(port)
        if not 0 < port <= 65535:  # noqa: PLR2004 - the highest port
            errors.append(f"expose.paths: invalid listener port: {port}")
        protocol = path.get("Protocol") or ""
        if protocol not in {"", "http", "http2"}:
            wrong = f"protocol '{protocol}' not supported for path: {path.get('Path') or ''}"
            errors.append(f"{wrong}, must be in: [http http2]")
    return errors


def _gateway_errors(
    kind: str, service: Mapping[str, Any], proxy: Mapping[str, Any], connect: Mapping[str, Any]
) -> list[str]:
    errors: list[str] = []
    if not service.get("Port") and kind not in {"ingress-gateway", "api-gateway"}:
        errors.append(f"Port must be non-zero for a {kind}")
    if connect.get("SidecarService") is not None:
        errors.append(f"A {kind} cannot have a sidecar service defined")
    names = ("DestinationServiceName", "DestinationServiceID", "LocalServiceAddress", "LocalServicePort")
    errors += [
        f"The Proxy.{name} configuration is invalid for a {kind}"
        for name in (*names, "LocalServiceSocketPath", "Upstreams")
        if proxy.get(name)
    ]
    return errors


def check_error(check: Mapping[str, Any]) -> str:
    """Return what is wrong with a check definition, or ""."""
    probes = ("ScriptArgs", "Args", "HTTP", "TCP", "UDP", "GRPC", "H2PING", "OSService")
    probing = any(check.get(name) for name in probes)
    alias = bool(check.get("AliasNode") or check.get("AliasService"))
    interval, ttl = check.get("Interval") or 0, check.get("TTL") or 0
    if interval > 0 and ttl > 0:
        return "Interval and TTL cannot both be specified"
    if probing and interval <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
    if probing and alias:
        return "Interval cannot be set for Alias checks"
    if alias and ttl > 0:
        return "TTL must be not be set for Alias checks"
    if not probing and not alias and ttl <= 0:
        return "TTL must be > 0 for TTL checks"
    if (check.get("OutputMaxSize") or 0) < 0:
        return "MaxOutputMaxSize must be positive"
    if (check.get("FailuresBeforeWarning") or 0) > (check.get("FailuresBeforeCritical") or 0):
        return "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    return ""


def check_runs(check: Mapping[str, Any]) -> None:
    """Refuse a check that this agent does not run."""
    if check.get("ScriptArgs") or check.get("Args"):
        raise Refused(500, SCRIPTS_DISABLED)
    if check.get("OSService"):
        raise Refused(500, "not implemented")


def check_types(definition: Mapping[str, Any]) -> list[Json]:
    """Return the checks of a definition (`Check` and `Checks`). Raise Refused for one that cannot be."""
    single = definition.get("Check") or {}
    checks = [single] if any(single.values()) else []  # one that says nothing is none; in the list it is refused
    checks += definition.get("Checks") or ()
    for check in checks:
        check["ScriptArgs"] = check.get("ScriptArgs") or check.get("Args")
        if wrong := check_error(check):
            raise Refused(400, f"Invalid check: {wrong}")
        if check.get("Status") and check["Status"] not in STATES:
            raise Refused(400, "Status for checks must 'passing', 'warning', 'critical'")
    for check in checks:
        check_runs(check)
    return checks


__all__ = ["GATEWAYS", "SERVICE", "STATES", "check_types", "collected", "service_errors"]
