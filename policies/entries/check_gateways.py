"""Normal form and checks of ingress-gateway and terminating-gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.entries.check_common import HTTP_LIKE, WILDCARD, check_meta, check_tls, has_modifiers, is_domain_name
from policies.entries.gotext import quote
from policies.errors import EntryError

Entry = dict[str, Any]

_PROTOCOLS = HTTP_LIKE | {"tcp"}


def settle_ingress(entry: Entry) -> None:
    """Listeners are tcp unless they say more; protocols in lower case."""
    for listener in entry["Listeners"] or ():
        listener["Protocol"] = (listener["Protocol"] or "tcp").lower()


def check_ingress(entry: Entry) -> None:
    """Refuse listeners that cannot be opened side by side, and services that they cannot carry."""
    check_meta(entry)
    _check_tls(entry["TLS"])
    ports = set()
    for listener in entry["Listeners"] or ():
        port = listener["Port"]
        if port in ports:
            raise EntryError(f"port {port} declared on two listeners")
        ports.add(port)
        _check_listener(entry, listener, f"(listener on port {port})")


def _check_tls(tls: Mapping[str, Any]) -> None:
    check_tls(tls["TLSMinVersion"], tls["TLSMaxVersion"], tls["CipherSuites"])


def _check_listener(entry: Entry, listener: Mapping[str, Any], where: str) -> None:
    protocol, services = listener["Protocol"], listener["Services"] or []
    if protocol not in _PROTOCOLS:
        raise EntryError(f"protocol must be 'tcp', 'http', 'http2', or 'grpc'. '{protocol}' is an unsupported protocol")
    if not services:
        raise EntryError(f"No service declared for listener with port {listener['Port']}")
    if protocol == "tcp" and len(services) > 1:
        raise EntryError(
            f"Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2' {where}"
        )
    if listener["TLS"] is not None:
        _check_tls(listener["TLS"])
    names: set[str] = set()
    hosts: set[str] = set()
    for service in services:
        _check_service(service, protocol, where)
        if service["Name"] in names:
            raise EntryError(f"Service {service['Name']} cannot be added multiple times {where}")
        names.add(service["Name"])
        _check_sds(entry, listener, service)
        for host in service["Hosts"] or ():
            if host in hosts:
                raise EntryError(f"Hosts must be unique within a specific listener {where}")
            hosts.add(host)
            _check_host(host, tls=entry["TLS"]["Enabled"])


def _check_service(service: Mapping[str, Any], protocol: str, where: str) -> None:
    name = service["Name"]
    on = f"(service {quote(name)} on {where.removeprefix('(')}"
    for field, spoken in (("RequestHeaders", "request headers"), ("ResponseHeaders", "response headers")):
        if protocol == "tcp" and has_modifiers(service[field]):
            raise EntryError(f"{spoken} only valid for http, http2 and grpc protocols {on}")
    if protocol == "tcp" and name == WILDCARD:
        raise EntryError(f"Wildcard service name is only valid for protocol = 'http' {where}")
    if protocol == "tcp" and service["Hosts"]:
        raise EntryError(f"Associating hosts to a service is not supported for the {protocol} protocol {where}")
    if not name:
        raise EntryError(f"Service name cannot be blank {where}")
    if name == WILDCARD and service["Hosts"]:
        raise EntryError(f"Associating hosts to a wildcard service is not supported {where}")


def _check_sds(entry: Entry, listener: Mapping[str, Any], service: Mapping[str, Any]) -> None:
    """Refuse a certificate by SDS without its cluster, or a cluster without a certificate, at any of three levels."""
    where = f"(listener on port {listener['Port']})"
    on = f"(service {quote(service['Name'])} on listener on port {listener['Port']})"
    gateway_cluster, gateway_cert = _sds(entry["TLS"])
    cluster, cert = _sds(listener["TLS"])
    service_cluster, service_cert = _sds(service["TLS"])
    if not gateway_cluster and gateway_cert:
        raise EntryError("TLS.SDS.ClusterName is required if CertResource is set")
    if gateway_cluster and not gateway_cert and not cert:
        raise EntryError(f"TLS.SDS.CertResource is required if ClusterName is set for gateway {where}")
    if cluster and not cert:
        raise EntryError(f"TLS.SDS.CertResource is required if ClusterName is set for listener {where}")
    if cert and not cluster and not gateway_cluster:
        raise EntryError(f"TLS.SDS.ClusterName is required if CertResource is set {where}")
    if service_cert and not service["Hosts"]:
        raise EntryError(f"A service specifying TLS.SDS.CertResource must have at least one item in Hosts {on}")
    if service_cert and not service_cluster and not cluster and not gateway_cluster:
        raise EntryError(f"TLS.SDS.ClusterName is required if CertResource is set {on}")


def _sds(tls: Mapping[str, Any] | None) -> tuple[str, str]:
    sds = (tls or {}).get("SDS") or {}
    return str(sds.get("ClusterName") or ""), str(sds.get("CertResource") or "")


def _check_host(host: str, *, tls: bool) -> None:
    if host == WILDCARD and tls:
        raise EntryError(
            "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN"
        )
    if host == WILDCARD:
        return
    if not is_domain_name(host):
        raise EntryError(f"Host {quote(host)} must be a valid DNS hostname")
    if WILDCARD in host.removeprefix("*."):
        raise EntryError(f"Host {quote(host)} is not valid, a wildcard specifier is only allowed as the leftmost label")


def check_terminating(entry: Entry) -> None:
    """Refuse a service without a name, named twice, or with half a client certificate."""
    check_meta(entry)
    names = set()
    for service in entry["Services"] or ():
        name = service["Name"]
        if not name:
            raise EntryError("Service name cannot be blank.")
        if name in names:
            raise EntryError(f"Service {quote(name)} was specified more than once within a namespace")
        names.add(name)
        files = [service[field] for field in ("CertFile", "KeyFile", "CAFile")]
        if any(files[:2]) and not all(files):
            raise EntryError(
                f"Service {quote(name)} must have a CertFile, CAFile, and KeyFile specified for TLS origination"
            )
