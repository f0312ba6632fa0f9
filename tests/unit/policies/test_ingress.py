from __future__ import annotations

from harness.certificates import Authority
from harness.meshes import ingress, upstream
from policies.ingress import ExposedService, exposed, parse_gateway_services, parse_ingress
from policies.limits import Limits
from policies.outliers import PassiveHealth
from policies.routes import HeaderModifiers
from policies.snapshot import IngressWatch

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
    assert (entry.name, listener.port, listener.protocol, listener.tls) == ("edge", 8080, "http", None)
    assert listener.services == (ExposedService("web", ("web.example",), HeaderModifiers(remove=("x-a",))),)


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


def test_limits_and_passive_health_are_the_services_else_the_entrys_and_reach_the_clusters(
    authority: Authority,
) -> None:
    entry = {
        "Kind": "ingress-gateway",
        "Name": "edge",
        "Defaults": {
            "MaxConnections": 10,
            "MaxPendingRequests": 0,
            "PassiveHealthCheck": {"MaxFailures": 2, "Interval": 5_000_000_000},
        },
        "Listeners": [
            {
                "Port": 8080,
                "Protocol": "http",
                "Services": [
                    {"Name": "web", "MaxConnections": 3, "PassiveHealthCheck": {"MaxFailures": 9}},
                    {"Name": "*", "MaxConcurrentRequests": 7},
                ],
            }
        ],
    }
    rows = [{"Service": {"Name": name}, "Port": 8080, "Protocol": "http"} for name in ("web", "api")]
    member = ingress("edge", authority, [], rows).hear(IngressWatch("edge"), entry)
    for name in ("web", "api"):
        upstream(member, name, [1])
    clusters = {
        key: cluster
        for key, outbound in member.table().outbounds.items()
        for route in outbound.routes
        for leg in route.legs
        for cluster in leg.clusters
    }
    assert clusters["web"].limits == Limits(max_connections=3)
    assert clusters["web"].passive_health == PassiveHealth(interval=5.0, max_failures=9)
    assert clusters["api"].limits == Limits(max_connections=10, max_concurrent_requests=7)
    assert clusters["api"].passive_health == PassiveHealth(interval=5.0, max_failures=2)
