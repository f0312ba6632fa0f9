from __future__ import annotations

from typing import Any

import pytest

from policies.edge.ingress_tls import EntryTls, consul_names, ingress_tls, parse_entry_tls
from policies.edge.server_certificates import CertificateReference
from policies.edge.tls import EdgeTls, FileCertificate, ListenerTls, PortWords
from policies.mesh import TlsLimits

ON = {"Enabled": True}
EDGE = EdgeTls({name: FileCertificate(f"{name}.pem", f"{name}.key") for name in ("main", "shop")})
MAIN, SHOP = CertificateReference("own", "main"), CertificateReference("own", "shop")


def sds(resource: str) -> dict[str, Any]:
    return {"SDS": {"ClusterName": "sds", "CertResource": resource}}


def service(resource: str, *hosts: str) -> dict[str, Any]:
    return {"Name": "web", "Hosts": list(hosts), "TLS": sds(resource)}


@pytest.mark.parametrize(
    ("entry", "listener", "asked"),
    [
        (None, None, None),
        ({"Enabled": False}, {"Enabled": False}, None),
        (ON, {"Enabled": False}, EntryTls(TlsLimits())),  # the entry's cannot be switched off by a listener
        (None, ON, EntryTls(TlsLimits())),
        (sds("main"), None, EntryTls(TlsLimits(), "main")),
        (sds("main"), sds("shop"), EntryTls(TlsLimits(), "shop")),
        (
            {**ON, "TLSMinVersion": "TLSv1_2", "CipherSuites": ["A"]},
            {"TLSMinVersion": "TLSv1_3", "TLSMaxVersion": "TLSv1_3"},
            EntryTls(TlsLimits("TLSv1_3", "TLSv1_3", ("A",))),
        ),
    ],
)
def test_a_listener_adds_to_the_entry_and_wins(entry: object, listener: object, asked: EntryTls | None) -> None:
    assert parse_entry_tls(entry, listener, []) == asked


def test_a_service_names_the_certificate_of_its_hosts() -> None:
    rows = [service("shop", "Shop.com:8443", "*.shop.com"), {"Name": "api", "Hosts": ["api.com"]}]
    alone = EntryTls(TlsLimits(), "", everybody=False, pinned={"shop.com": "shop", "*.shop.com": "shop"})
    assert parse_entry_tls(None, None, rows) == alone
    tls, problems = ingress_tls(alone, 8443, EDGE, "here")
    assert (tls, problems) == (ListenerTls((), {"shop.com": SHOP, "*.shop.com": SHOP}), [])


def test_enabled_alone_shows_what_the_yaml_has_in_its_order() -> None:
    asked = EntryTls(TlsLimits("TLSv1_3"))
    assert ingress_tls(asked, 8443, EDGE, "here") == (ListenerTls((MAIN, SHOP), {}, TlsLimits("TLSv1_3")), [])


def test_the_yamls_words_for_a_port_reach_its_listener() -> None:
    words = PortWords(client_ca_file="ca.pem", require_client_certificate=True, strict_sni=True)
    edge = EdgeTls(EDGE.certificates, ports={8443: words})
    tls, _ = ingress_tls(EntryTls(TlsLimits(), "main"), 8443, edge, "here")
    assert tls == ListenerTls((MAIN,), {}, TlsLimits(), "ca.pem", require_client_certificate=True, strict_sni=True)
    plain, _ = ingress_tls(EntryTls(TlsLimits(), "main"), 9443, edge, "here")
    assert plain == ListenerTls((MAIN,))


@pytest.mark.parametrize(
    ("asked", "edge", "said"),
    [
        (EntryTls(TlsLimits()), EdgeTls(), "Consul's leaf has no DNS names"),
        (EntryTls(TlsLimits(), "lost"), EDGE, "SDS.CertResource 'lost' is no certificate of the gateway's YAML"),
        (EntryTls(TlsLimits(), everybody=False, pinned={"a.com": "lost"}), EDGE, "'lost'"),
    ],
)
def test_where_there_is_nothing_to_show_the_listener_stays_closed(asked: EntryTls, edge: EdgeTls, said: str) -> None:
    tls, problems = ingress_tls(asked, 8443, edge, "here")
    assert tls is None
    assert said in problems[0].message
    assert problems[0].where == "here"


def test_a_host_whose_certificate_is_not_there_gets_the_listeners() -> None:
    tls, problems = ingress_tls(EntryTls(TlsLimits(), "main", pinned={"a.com": "lost"}), 8443, EDGE, "here")
    assert tls == ListenerTls((MAIN,))
    assert len(problems) == 1


def test_consuls_names_have_no_trailing_dot_and_hosts_are_beside_them() -> None:
    hosts = ("web.com", "web.com:8443", "*.shop.com", "*", "web.ingress.*")
    assert consul_names("dc1", "consul", hosts) == ("*.ingress.consul", "*.ingress.dc1.consul", "web.com", "*.shop.com")
