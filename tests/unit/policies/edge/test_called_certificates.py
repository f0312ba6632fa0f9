from __future__ import annotations

from policies.edge.called_certificates import called_for, client_cas
from policies.edge.server_certificates import CertificateReference
from policies.edge.settings import EdgeSettings
from policies.edge.tls import EdgeTls, EntryCertificate, FileCertificate, ListenerTls, VaultCertificate
from policies.identity import SpiffeId
from policies.table import IngressListener, Table, VirtualHost

FILE = FileCertificate("main.pem", "main.key")
MAIN = CertificateReference("own", "main")


def test_a_table_tells_which_certificates_to_fetch() -> None:
    vault = VaultCertificate("pki", "edge", ())
    edge = EdgeTls({"main": FILE, "edge": vault}, domain="mesh")
    inline = CertificateReference("inline-certificate", "c1")
    tls = ListenerTls((MAIN, CertificateReference("own", "edge"), inline), client_ca_file="ca.pem")
    hosts = (VirtualHost("web", ("web.com",)),)
    listeners = (IngressListener("", 8443, "http", hosts, tls), IngressListener("", 8080, "http", hosts))
    table = Table(SpiffeId("td", "dc1", "edge"), ingress=listeners, edge=EdgeSettings(tls=edge))
    names = ("*.ingress.mesh", "*.ingress.dc1.mesh", "web.com")
    assert called_for(table, "dc1") == {
        MAIN: FILE,
        CertificateReference("own", "edge"): VaultCertificate("pki", "edge", names),
        inline: EntryCertificate("inline-certificate", "c1"),
    }
    assert client_cas(table) == {"ca.pem"}
