"""Which certificates the listeners of a table call for, and where these come from."""

from __future__ import annotations

from dataclasses import replace

from policies.edge.acme import TLS_ALPN_01, AcmeCertificate
from policies.edge.ingress_tls import consul_names
from policies.edge.server_certificates import CertificateReference
from policies.edge.settings import NO_EDGE
from policies.edge.tls import CertificateSettings, VaultCertificate, settings_of
from policies.table import Table


def called_for(table: Table, datacenter: str) -> dict[CertificateReference, CertificateSettings]:
    """Return the certificates that the listeners of a table call for, and where they come from."""
    edge, found = (table.edge or NO_EDGE).tls, {}
    with_tls = [listener for listener in table.ingress if listener.tls is not None]
    hosts = [host for listener in with_tls for virtual_host in listener.virtual_hosts for host in virtual_host.hosts]
    for listener in with_tls:
        for reference in listener.tls.references() if listener.tls is not None else ():
            settings = settings_of(reference, edge)
            if isinstance(settings, VaultCertificate) and not settings.names:
                settings = replace(settings, names=consul_names(datacenter, edge.domain, hosts))
            if settings is not None:
                found[reference] = settings
    return found


def client_cas(table: Table) -> frozenset[str]:
    """Return the files of those who may sign the certificates of callers."""
    return frozenset(
        listener.tls.client_ca_file
        for listener in table.ingress
        if listener.tls is not None and listener.tls.client_ca_file
    )


def proved_by_tls(table: Table) -> frozenset[int]:
    """Return the ports that speak TLS before there is a certificate, for the CA that is to sign it."""
    return frozenset(
        listener.port
        for listener in table.ingress
        for reference in (listener.tls.references() if listener.tls is not None else ())
        if isinstance(settings := settings_of(reference, (table.edge or NO_EDGE).tls), AcmeCertificate)
        and settings.challenge == TLS_ALPN_01
    )
