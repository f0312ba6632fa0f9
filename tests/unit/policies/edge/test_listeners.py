from __future__ import annotations

from typing import Any

import pytest

from harness.certificates import Authority
from harness.meshes import Json, Member, api_gateway, chain, ingress, upstream
from policies.compiler import compile_table
from policies.edge.passthrough import PassthroughRule
from policies.edge.server_certificates import CertificateReference
from policies.edge.settings import EdgeSettings
from policies.edge.tls import EdgeTls, FileCertificate
from policies.watches import RegistrationWatch


def listener(port: int, *services: str, protocol: str = "http") -> Json:
    return {"Port": port, "Protocol": protocol, "Services": [{"Name": name} for name in services]}


def edge(authority: Authority, *listeners: Json, protocol: str = "http") -> Member:
    member = ingress("edge", authority, list(listeners))
    for name in ("web", "api"):
        upstream(member, name, [1], chain(name, protocol))
    return member


def told(member: Member) -> tuple[list[tuple[str, int]], list[str]]:
    table, problems = compile_table(member.snapshot)
    return [(one.address, one.port) for one in table.ingress], [problem.message for problem in problems]


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_what_is_no_port_costs_its_listener_alone(authority: Authority, port: int) -> None:
    places, problems = told(edge(authority, listener(port, "web"), listener(8080, "web")))
    assert places == [("127.0.0.1", 8080)]
    assert problems == ["is no port: expected 1 to 65535"]


@pytest.mark.parametrize("protocol", ["http2", "grpc"])
def test_http2_is_relayed_to_one_service_alone(authority: Authority, protocol: str) -> None:
    one, two = listener(1, "web", protocol=protocol), listener(2, "web", "api", protocol=protocol)
    places, problems = told(edge(authority, one, two, protocol=protocol))
    assert places == [("127.0.0.1", 1)]
    assert problems == [f"{protocol} is relayed as tcp, to one service alone, and this listener has 2"]


def test_a_service_of_another_protocol_is_left_out(authority: Authority) -> None:
    member = edge(authority, listener(1, "web", "api"))
    upstream(member, "api", [1], chain("api", "tcp"))
    table, problems = compile_table(member.snapshot)
    assert [host.outbound for host in table.ingress[0].virtual_hosts] == ["web"]
    assert [problem.message for problem in problems] == ["api speaks tcp, the listener http"]


@pytest.mark.parametrize(
    ("config", "addresses"),
    [
        ({}, ["192.0.2.1"]),
        ({"bind_address": "0.0.0.0"}, ["0.0.0.0"]),
        ({"envoy_gateway_bind_addresses": {"x": {"address": "127.0.0.2", "port": 1}}}, ["192.0.2.1", "127.0.0.2"]),
        ({"envoy_gateway_bind_tagged_addresses": True}, ["192.0.2.1", "198.51.100.1"]),
        ({"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_tagged_addresses": True}, ["198.51.100.1"]),
    ],
)
def test_listeners_are_opened_on_the_addresses_of_the_registration(
    authority: Authority, config: dict[str, Any], addresses: list[str]
) -> None:
    registration = {
        "Kind": "ingress-gateway",
        "ID": "edge",
        "Service": "edge",
        "Datacenter": "dc1",
        "Address": "192.0.2.1",
        "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 9}, "lan": {"Address": "", "Port": 9}},
        "Proxy": {"Config": config},
    }
    member = edge(authority, listener(1, "web")).hear(RegistrationWatch("edge"), registration)
    assert told(member) == ([(address, 1) for address in addresses], [])


@pytest.mark.parametrize(
    ("listeners", "rules", "open_ports"),
    [
        ([], (), [8443]),
        ([listener(1, "web")], (), [1, 8443]),
        ([listener(8443, "web")], (), [8443]),
        ([listener(8443, "web") | {"TLS": {"Enabled": True}}], (), []),
        ([], (PassthroughRule(8443, "*", "db"),), []),
    ],
)
def test_an_ingress_gateway_answers_at_its_registered_port_where_nothing_else_has_it(
    authority: Authority, listeners: list[Json], rules: tuple[PassthroughRule, ...], open_ports: list[int]
) -> None:
    member = ingress("edge", authority, listeners, edge=EdgeSettings(passthrough=rules))
    upstream(member, "web", [1])
    row = {"Kind": "ingress-gateway", "ID": "edge", "Service": "edge", "Datacenter": "dc1", "Port": 8443}
    member.hear(RegistrationWatch("edge"), row)
    table, _ = compile_table(member.snapshot)
    assert [one.port for one in table.ingress] == open_ports
    assert [one.virtual_hosts for one in table.ingress if one.port == 8443 and not listeners] in ([], [()])


def test_a_field_of_the_entry_that_is_not_understood_is_told(authority: Authority) -> None:
    member = ingress("edge", authority, [listener(1, "web") | {"Quic": True}])
    assert [problem.message for group in member.snapshot.problems.values() for problem in group] == [
        "its Listeners[0].Quic is not understood"
    ]


# --- api-gateway ---------------------------------------------------------------------------------------------------


def gateway(authority: Authority, tls: Json, settings: EdgeTls | None = None) -> Member:
    rule = {"Services": [{"Name": "web"}]}
    member = api_gateway(
        "gw",
        authority,
        [{"Name": "l", "Port": 8443, "Protocol": "http", "TLS": tls}],
        [{"Name": "r", "Rules": [rule]}],
        edge=EdgeSettings(tls=settings) if settings is not None else EdgeSettings(),
    )
    return upstream(member, "web", [1])


def test_an_api_listener_speaks_tls_by_its_certificates(authority: Authority) -> None:
    certificates = [{"Kind": "inline-certificate", "Name": "c1"}, {"Kind": "file-system-certificate", "Name": "c2"}]
    tls = {"Certificates": certificates, "MinVersion": "TLSv1_3", "MaxVersion": "", "CipherSuites": None}
    (found,) = gateway(authority, tls).table().ingress
    assert found.tls is not None
    assert found.tls.certificates == tuple(CertificateReference(one["Kind"], one["Name"]) for one in certificates)
    assert found.tls.limits.minimum == "TLSv1_3"


def test_tls_without_certificates_takes_the_yamls_or_stays_closed(authority: Authority) -> None:
    own = EdgeTls(certificates={"site": FileCertificate("/c.pem", "/k.pem")})
    (found,) = gateway(authority, {"MinVersion": "TLSv1_2"}, own).table().ingress
    assert found.tls is not None
    assert [str(one) for one in found.tls.certificates] == ["own site"]
    assert told(gateway(authority, {"MinVersion": "TLSv1_2"})) == (
        [],
        ["its TLS names no certificate, and the gateway's YAML has none"],
    )
    assert gateway(authority, {"Certificates": None, "MinVersion": ""}).table().ingress[0].tls is None
