from __future__ import annotations

from typing import Any

import pytest

from policies.edge.api_gateway import ApiListener, bind, hosts_of, parse_api_gateway
from policies.edge.http_routes import HttpRoute, parse_http_routes, parse_tcp_routes
from policies.mesh import TlsLimits

Json = dict[str, Any]


def gateway(*listeners: Json) -> Any:
    rows = [{"Protocol": "http", **listener} for listener in listeners]
    return parse_api_gateway({"Kind": "api-gateway", "Name": "gw", "Listeners": rows})


def http_route(name: str, service: str, *, section: str = "", hosts: tuple[str, ...] = (), path: str = "/") -> Json:
    match = {"Path": {"Match": "prefix", "Value": path}}
    return {
        "Name": name,
        "Parents": [{"Name": "gw", "SectionName": section}],
        "Hostnames": list(hosts),
        "Rules": [{"Matches": [match], "Services": [{"Name": service}]}],
    }


def bound(api: Any, http: list[Json], tcp: list[Json] | None = None) -> Any:
    return bind(api, parse_http_routes(http, "gw")[0], parse_tcp_routes(tcp or [], "gw"))


def told(bindings: Any) -> dict[int, dict[str, list[str]]]:
    return {
        port.port: {host.host: [one.rule.services[0].name for one in host.rules] for host in port.hosts}
        for port in bindings.ports
    }


def test_no_entry_has_no_listener() -> None:
    assert parse_api_gateway(None).listeners == ()


def test_a_listener_is_read_with_its_certificates() -> None:
    tls = {
        "Certificates": [{"Kind": "", "Name": "c1"}, {"Kind": "file-system-certificate", "Name": "c2"}],
        "MinVersion": "TLSv1_3",
        "MaxVersion": "",
        "CipherSuites": ["TLS_X"],
    }
    (listener,) = gateway({"Name": "l", "Port": 1, "Hostname": "A.Example", "TLS": tls}).listeners
    assert listener == ApiListener(
        "l",
        1,
        "http",
        "a.example",
        (("inline-certificate", "c1"), ("file-system-certificate", "c2")),
        TlsLimits("TLSv1_3", "", ("TLS_X",)),
    )
    assert gateway({"Name": "l", "Port": 1}).listeners[0].hostname == "*"


def test_a_route_is_bound_to_the_listeners_it_names_or_to_all() -> None:
    api = gateway({"Name": "a", "Port": 1}, {"Name": "b", "Port": 2})
    found = bound(api, [http_route("one", "x", section="a"), http_route("all", "y")])
    assert told(found) == {1: {"*": ["y", "x"]}, 2: {"*": ["y"]}}  # of one age they go by name
    assert found.services() == {"x", "y"}


def test_rules_of_one_host_are_sorted_together_whatever_route_they_are_of() -> None:
    routes = [http_route("r1", "x"), http_route("r2", "y", path="/y"), http_route("r3", "z", hosts=("z.example",))]
    found = bound(gateway({"Name": "a", "Port": 1}), routes)
    assert told(found) == {1: {"*": ["y", "x"], "z.example": ["z"]}}


def test_listeners_of_one_port_are_one() -> None:
    api = gateway(
        {"Name": "a", "Port": 1, "Hostname": "a.example"}, {"Name": "b", "Port": 1, "Hostname": "*.b.example"}
    )
    found = bound(api, [http_route("r1", "x"), http_route("r2", "y", section="b", hosts=("q.b.example",))])
    assert told(found) == {1: {"a.example": ["x"], "*.b.example": ["x"], "q.b.example": ["y"]}}


@pytest.mark.parametrize(
    ("hostname", "host", "bound_to"),
    [
        ("*", "any.example", True),
        ("a.example", "a.example", True),
        ("a.example", "b.example", False),
        ("*.example", "a.example", True),
        ("*.example", "a.b.example", True),
        ("*.example", "example", True),
        ("*.example", "badexample", False),
    ],
)
def test_hosts_of_a_route_must_be_the_listeners(hostname: str, host: str, *, bound_to: bool) -> None:
    route = HttpRoute("r", 0, frozenset({""}), (host,), ())
    assert hosts_of(route, ApiListener("l", 1, "http", hostname)) == ((host,) if bound_to else ())


def test_a_port_without_a_route_is_not_there() -> None:
    api = gateway({"Name": "a", "Port": 1}, {"Name": "b", "Port": 2, "Hostname": "b.example"})
    assert bound(api, []).ports == ()
    assert bound(api, [http_route("r", "x", section="b", hosts=("a.example",))]).ports == ()


def test_protocols_must_agree() -> None:
    api = gateway({"Name": "a", "Port": 1}, {"Name": "t", "Port": 2, "Protocol": "tcp"})
    tcp = [{"Name": "t", "Parents": [{"Name": "gw"}], "Services": [{"Name": "db"}]}]
    found = bound(api, [http_route("r", "x")], tcp)
    assert [(port.port, port.protocol, port.service) for port in found.ports] == [(1, "http", ""), (2, "tcp", "db")]
    assert found.services() == {"x", "db"}


def test_a_second_tcp_route_is_one_too_many() -> None:
    rows = [
        {"Name": name, "Parents": [{"Name": "gw"}], "Services": [{"Name": name}], "CreateIndex": index}
        for name, index in (("young", 9), ("old", 1))
    ]
    found = bound(gateway({"Name": "t", "Port": 2, "Protocol": "tcp"}), [], rows)
    assert [port.service for port in found.ports] == ["old"]
    assert [problem.message for problem in found.problems] == ["tcp-route young is one too many"]


@pytest.mark.parametrize("words", [{"Default": {"JWT": {}}}, {"Override": {"JWT": {"Providers": []}}}])
def test_a_listener_that_asks_for_jwt_stays_closed(words: Json) -> None:
    found = bound(gateway({"Name": "a", "Port": 1, **words}), [http_route("r", "x")])
    assert found.ports == ()
    assert [(problem.where, problem.fix) for problem in found.problems] == [
        ("api-gateway gw listener a", "it stays closed")
    ]


def test_a_port_of_two_protocols_stays_closed() -> None:
    api = gateway({"Name": "a", "Port": 1}, {"Name": "b", "Port": 1, "Protocol": "tcp"}, {"Name": "c", "Port": 3})
    found = bound(api, [http_route("r", "x")])
    assert [port.port for port in found.ports] == [3]
    assert "http and tcp" in found.problems[0].message
