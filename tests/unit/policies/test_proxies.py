from __future__ import annotations

from typing import Any

import pytest

from policies.errors import EntryError
from policies.proxies import parse_registration


def registered(**more: Any) -> dict[str, Any]:
    proxy = {"DestinationServiceName": "web", "DestinationServiceID": "web-1", "LocalServicePort": 8080}
    return {
        "Kind": "connect-proxy",
        "ID": "web-1-sidecar-proxy",
        "Service": "web-sidecar-proxy",
        "Datacenter": "dc1",
        "Address": "10.0.0.1",
        "Port": 21000,
        **more,
        "Proxy": {**proxy, **more.get("Proxy", {})},
    }


def test_defaults_are_consuls() -> None:
    registration = parse_registration(registered())
    assert registration.service == "web"
    assert registration.protocol == "tcp"
    assert (registration.local_address, registration.local_port) == ("127.0.0.1", 8080)
    assert (registration.bind_address, registration.bind_port) == ("10.0.0.1", 21000)
    assert (registration.local_connect_timeout, registration.local_request_timeout) == (5.0, None)
    assert registration.local_idle_timeout == 300.0
    assert registration.max_inbound_connections == 0
    assert registration.problems == ()


def test_without_an_address_every_interface_is_bound() -> None:
    assert parse_registration(registered(Address="")).bind_address == "0.0.0.0"


def test_opaque_settings_are_read_in_both_spellings() -> None:
    config = {"Protocol": "HTTP", "local_connect_timeout_ms": 100, "LocalRequestTimeoutMs": "2000"}
    bind = {"bind_address": "127.0.0.1", "bind_port": 1234, "max_inbound_connections": 7}
    registration = parse_registration(registered(Proxy={"Config": {**config, **bind}}))
    assert registration.protocol == "http"
    assert (registration.local_connect_timeout, registration.local_request_timeout) == (0.1, 2.0)
    assert (registration.bind_address, registration.bind_port) == ("127.0.0.1", 1234)
    assert registration.max_inbound_connections == 7


@pytest.mark.parametrize("given", [0, -5, 0.5, "inf"])
def test_a_connect_timeout_of_the_app_that_leaves_no_time_is_the_default(given: object) -> None:
    registration = parse_registration(registered(Proxy={"Config": {"local_connect_timeout_ms": given}}))
    assert registration.local_connect_timeout == 5.0


@pytest.mark.parametrize(("given", "seconds"), [(1500, 1.5), (0, None)])
def test_the_idle_timeout_of_the_app_can_be_set_and_switched_off(given: int, seconds: float | None) -> None:
    registration = parse_registration(registered(Proxy={"Config": {"local_idle_timeout_ms": given}}))
    assert registration.local_idle_timeout == seconds


def test_upstreams_are_named_by_service_and_datacenter() -> None:
    rows = [
        {"DestinationName": "api", "LocalBindPort": 9191},
        {"DestinationName": "api", "Datacenter": "dc2", "LocalBindPort": 9192, "LocalBindAddress": "127.0.0.2"},
        {"DestinationName": "db", "DestinationType": "service", "Config": {"protocol": "TCP", "connect_timeout_ms": 9}},
    ]
    api, far, db = parse_registration(registered(Proxy={"Upstreams": rows})).upstreams
    assert (api.key, api.bind_address, api.bind_port) == ("api", "127.0.0.1", 9191)
    assert (far.key, far.bind_address) == ("api?dc=dc2", "127.0.0.2")
    assert (db.protocol, db.connect_timeout_ms, db.bind_port) == ("tcp", 9, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"DestinationName": "q", "DestinationType": "prepared_query"}, "prepared_query is not supported"),
        ({"DestinationName": "api", "DestinationPeer": "far"}, "peering is not supported"),
        ({"DestinationName": "api", "LocalBindSocketPath": "/s"}, "unix socket"),
        ({"LocalBindPort": 1}, "DestinationName is missing"),
    ],
)
def test_an_upstream_that_is_not_supported_costs_only_itself(row: dict[str, Any], message: str) -> None:
    registration = parse_registration(registered(Proxy={"Upstreams": [row, {"DestinationName": "ok"}]}))
    assert [stanza.key for stanza in registration.upstreams] == ["ok"]
    assert message in registration.problems[0].message
    assert registration.problems[0].where.startswith("web-1-sidecar-proxy Upstreams[0]")


def test_a_gateway_is_its_own_service() -> None:
    registration = parse_registration({"Kind": "ingress-gateway", "ID": "edge-1", "Service": "edge", "Proxy": None})
    assert (registration.service, registration.local_port) == ("edge", 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"Kind": "", "ID": "web-1", "Service": "web"}, "'typical', expected connect-proxy"),
        ({"Kind": "connect-proxy", "ID": "p", "Proxy": {}}, "names no destination service"),
    ],
)
def test_what_is_no_proxy_is_an_error(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(EntryError, match=message):
        parse_registration(answer)
