"""What an `ingress-gateway` entry says of TLS, and how a listener speaks it then.

The entry's `TLS` holds for all listeners, a listener's own adds to it and wins, a service's names the certificate of
its hosts. `SDS.CertResource` is the name of a certificate in the gateway's YAML: there is no SDS server here. `Enabled`
without SDS asks Consul's proxies for the gateway's leaf with DNS names, which Consul gives to no one outside the agent;
here it asks for the YAML's certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.edge.server_certificates import CertificateReference, canonical_name
from policies.edge.tls import OWN, EdgeTls, ListenerTls
from policies.errors import Problem
from policies.mesh import TlsLimits
from policies.weak import items, mapping

CLOSED = "it stays closed"


@dataclass(frozen=True, slots=True)
class EntryTls:
    """TLS of one listener as the entry has it.

    `resource` "" is `Enabled` alone; `everybody` False is a listener where only services ask for it, by `pinned` hosts.
    """

    limits: TlsLimits
    resource: str = ""
    everybody: bool = True
    pinned: Mapping[str, str] = field(default_factory=dict)  # host -> resource


def parse_entry_tls(entry: object, listener: object, services: Iterable[Mapping[str, Any]]) -> EntryTls | None:
    """Return the TLS of a listener from the `TLS` of the entry, its own, and those of its services; None for none."""
    levels = (mapping(entry), mapping(listener))
    resources = [_resource(level) for level in levels]
    resource = resources[1] or resources[0]
    pinned = {
        canonical_name(str(host).partition(":")[0]): found
        for service in services
        if (found := _resource(mapping(service.get("TLS"))))
        for host in items(service.get("Hosts"))
    }
    everybody = bool(resource) or any(bool(level.get("Enabled")) or level.get("SDS") for level in levels)
    asked = everybody or any(mapping(service.get("TLS")).get("SDS") for service in services)
    return EntryTls(_limits(*levels), resource, everybody, pinned) if asked else None


def _resource(level: Mapping[str, Any]) -> str:
    return str(mapping(level.get("SDS")).get("CertResource") or "")


def _limits(entry: Mapping[str, Any], listener: Mapping[str, Any]) -> TlsLimits:
    def either(name: str) -> Any:
        return listener.get(name) or entry.get(name)

    return TlsLimits(
        minimum=str(either("TLSMinVersion") or ""),
        maximum=str(either("TLSMaxVersion") or ""),
        cipher_suites=tuple(str(suite) for suite in items(either("CipherSuites"))),
    )


def ingress_tls(asked: EntryTls, port: int, edge: EdgeTls, where: str) -> tuple[ListenerTls | None, list[Problem]]:
    """Return how the listener speaks TLS, None where it must stay closed, and what is wrong."""
    problems: list[Problem] = []

    def own(resource: str, effect: str) -> CertificateReference | None:
        if resource in edge.certificates:
            return CertificateReference(OWN, resource)
        message = f"SDS.CertResource {resource!r} is no certificate of the gateway's YAML, which has no SDS server"
        problems.append(Problem(where, message, f"add it under `tls.certificates`; {effect}"))
        return None

    certificates: tuple[CertificateReference, ...] = ()
    if asked.resource:
        found = own(asked.resource, CLOSED)
        certificates = (found,) if found is not None else ()
    elif asked.everybody:
        certificates = edge.own_references()
        if not certificates:
            message = "TLS is enabled, but Consul's leaf has no DNS names for a proxy outside of the agent"
            fix = f"name files or a Vault role under `tls.certificates` in the gateway's YAML; {CLOSED}"
            problems.append(Problem(where, message, fix))
    pinned = {
        host: reference
        for host, resource in asked.pinned.items()
        if (reference := own(resource, "its hosts get another certificate"))
    }
    if not certificates and (asked.everybody or not pinned):
        return None, problems
    tls = ListenerTls(certificates, pinned, asked.limits)
    return with_words(tls, port, edge), problems


def with_words(tls: ListenerTls, port: int, edge: EdgeTls) -> ListenerTls:
    """Return the same with what the YAML says of this port."""
    words = edge.words(port)
    return replace(
        tls,
        client_ca_file=words.client_ca_file,
        require_client_certificate=words.require_client_certificate,
        strict_sni=words.strict_sni,
    )


def consul_names(datacenter: str, domain: str, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return the DNS names that Consul gives to an ingress gateway's certificate, without its trailing dots.

    `hosts` are the hosts of the entry's services; what a certificate cannot hold (`prefix.*`, `*`) is left out.
    """
    named = (canonical_name(host.partition(":")[0]) for host in hosts)
    fit = (host for host in named if host != "*" and not host.endswith("*"))
    return tuple(dict.fromkeys((f"*.ingress.{domain}", f"*.ingress.{datacenter}.{domain}", *fit)))
