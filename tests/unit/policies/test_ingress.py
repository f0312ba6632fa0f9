from __future__ import annotations

from policies.ingress import ExposedService, exposed, parse_gateway_services, parse_ingress
from policies.routes import HeaderModifiers

ROWS = parse_gateway_services(
    [
        {"Service": {"Name": "web"}, "Port": 8080, "Protocol": "http"},
        {"Service": {"Name": "api"}, "Port": 8080, "Protocol": "HTTP"},
        {"Service": {"Name": "db"}, "Port": 9090, "Protocol": "tcp"},
        {"Service": {"Name": "*"}, "Port": 8080, "Protocol": "http"},
        {"Service": None, "Port": 8080},
    ]
)


def test_no_entry_exposes_nothing() -> None:
    assert parse_ingress(None).listeners == ()


def test_a_listener_keeps_services_hosts_and_modifiers() -> None:
    entry = parse_ingress(
        {
            "Name": "edge",
            "Listeners": [
                {
                    "Port": 8080,
                    "Protocol": "HTTP",
                    "Services": [{"Name": "web", "Hosts": ["Web.Example"], "RequestHeaders": {"Remove": ["X-A"]}}],
                }
            ],
        }
    )
    (listener,) = entry.listeners
    assert (entry.name, listener.port, listener.protocol, listener.tls) == ("edge", 8080, "http", False)
    assert listener.services == (ExposedService("web", ("web.example",), HeaderModifiers(remove=("x-a",))),)


def test_tls_is_the_entrys_or_the_listeners() -> None:
    rows = [{"Port": 1}, {"Port": 2, "TLS": {"Enabled": True}}]
    assert [row.tls for row in parse_ingress({"Listeners": rows}).listeners] == [False, True]
    everywhere = parse_ingress({"TLS": {"Enabled": True}, "Listeners": rows})
    assert [row.tls for row in everywhere.listeners] == [True, True]


def test_a_wildcard_stands_for_the_rows_of_its_port() -> None:
    listener = parse_ingress(
        {"Listeners": [{"Port": 8080, "Protocol": "http", "Services": [{"Name": "*"}]}]}
    ).listeners[0]
    assert [service.name for service in exposed(listener, ROWS)] == ["api", "web"]


def test_an_explicit_service_keeps_its_hosts_beside_a_wildcard() -> None:
    services = [{"Name": "*"}, {"Name": "web", "Hosts": ["web.example"]}]
    listener = parse_ingress({"Listeners": [{"Port": 8080, "Protocol": "http", "Services": services}]}).listeners[0]
    found = {service.name: service.hosts for service in exposed(listener, ROWS)}
    assert found == {"web": ("web.example",), "api": ()}


def test_without_a_wildcard_rows_of_the_catalog_add_nothing() -> None:
    listener = parse_ingress({"Listeners": [{"Port": 8080, "Services": [{"Name": "web"}]}]}).listeners[0]
    assert [service.name for service in exposed(listener, ROWS)] == ["web"]


def test_certificates_by_sds_ask_for_tls_on_every_level() -> None:
    sds = {"TLS": {"SDS": {"ClusterName": "sds", "CertResource": "web"}}}
    services = {"Services": [{"Name": "web"}, {"Name": "api", **sds}]}
    rows = [{"Port": 1}, {"Port": 2, **sds}, {"Port": 3, **services}]
    assert [row.tls for row in parse_ingress({"Listeners": rows}).listeners] == [False, True, True]
    assert [row.tls for row in parse_ingress({**sds, "Listeners": rows[:1]}).listeners] == [True]
