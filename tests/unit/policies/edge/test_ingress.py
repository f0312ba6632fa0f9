from __future__ import annotations

from typing import Any

from harness.certificates import Authority
from harness.meshes import ingress, upstream
from policies.compiler import compile_table
from policies.edge.ingress import ExposedService, exposed, parse_gateway_services, parse_ingress
from policies.limits import Limits
from policies.outliers import PassiveHealth
from policies.routes import HeaderModifiers
from policies.watches import IngressWatch

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


LIMITED: Any = {
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
            "Services": [{"Name": "web", "MaxConnections": 3, "PassiveHealthCheck": {"MaxFailures": 9}}, {"Name": "*"}],
        },
        {"Port": 8081, "Protocol": "http", "Services": [{"Name": "web"}, {"Name": "api", "MaxConcurrentRequests": 7}]},
        {"Port": 8082, "Protocol": "http", "Services": [{"Name": "web", "MaxConnections": 4}]},
    ],
}


def test_limits_and_passive_health_are_of_the_listeners_service_else_of_the_entry(authority: Authority) -> None:
    rows = [{"Service": {"Name": name}, "Port": 8080, "Protocol": "http"} for name in ("web", "api")]
    member = ingress("edge", authority, [], rows).hear(IngressWatch("edge"), LIMITED)
    for name in ("web", "api"):
        upstream(member, name, [1])
    table = member.table()
    clusters = {key: outbound.clusters[0] for key, outbound in table.outbounds.items()}
    assert {key: (one.limits, one.passive_health) for key, one in clusters.items()} == {
        "web@8080": (Limits(max_connections=3), PassiveHealth(interval=5.0, max_failures=9)),
        "api": (Limits(max_connections=10), PassiveHealth(interval=5.0, max_failures=2)),
        "web": (Limits(max_connections=10), PassiveHealth(interval=5.0, max_failures=2)),
        "api@8081": (
            Limits(max_connections=10, max_concurrent_requests=7),
            PassiveHealth(interval=5.0, max_failures=2),
        ),
        "web@8082": (Limits(max_connections=4), PassiveHealth(interval=5.0, max_failures=2)),
    }
    assert [[host.outbound for host in listener.virtual_hosts] for listener in table.ingress] == [
        ["web@8080", "api"],
        ["web", "api@8081"],
        ["web@8082"],
    ]
    assert len({cluster.target for cluster in clusters.values()}) == len(clusters)  # each is counted for itself


def test_a_listener_that_comes_or_goes_changes_nothing_of_the_others(authority: Authority) -> None:
    rows = [{"Service": {"Name": name}, "Port": 8080, "Protocol": "http"} for name in ("web", "api")]
    member = ingress("edge", authority, [], rows).hear(IngressWatch("edge"), LIMITED)
    for name in ("web", "api"):
        upstream(member, name, [1])
    before = member.table()
    member.hear(IngressWatch("edge"), {**LIMITED, "Listeners": LIMITED["Listeners"][1:]})
    after, _ = compile_table(member.snapshot, before)
    assert set(before.outbounds) - set(after.outbounds) == {"web@8080", "api"}
    assert all(before.outbounds[key] is outbound for key, outbound in after.outbounds.items())
    assert [listener.port for listener in after.ingress] == [8081, 8082]
    assert all(any(one is old for old in before.ingress) for one in after.ingress)
