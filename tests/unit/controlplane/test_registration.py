from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.registration import check_definition, find_sidecar, gateway_definition, seed, sidecar_definition
from policies.errors import ConfigError
from policies.reducer import apply
from policies.snapshot import Role, Snapshot
from policies.updates import Heard
from policies.watches import RegistrationWatch


class Agent:
    def __init__(self, services: Mapping[str, Any]) -> None:
        self._services = services

    async def services(self) -> Mapping[str, Any]:
        return self._services


def proxy(service_id: str) -> dict[str, Any]:
    return {"Kind": "connect-proxy", "Proxy": {"DestinationServiceID": service_id}}


def test_what_the_proxy_does_not_say_follows_from_the_service() -> None:
    service = {
        "Name": "web",
        "ID": "web-1",
        "Port": 80,
        "Address": "192.0.2.1",
        "Meta": {"v": "1"},
        "Weights": {"Passing": 3},
    }
    definition = sidecar_definition(service, {"Port": 21000})
    assert (definition["ID"], definition["Name"]) == ("web-1-sidecar-proxy", "web-sidecar-proxy")
    assert (definition["Address"], definition["Meta"], definition["Weights"]) == (
        "192.0.2.1",
        {"v": "1"},
        {"Passing": 3},
    )
    assert definition["Proxy"]["LocalServicePort"] == 80
    assert [check.get("TCP") or check.get("AliasService") for check in definition["Checks"]] == [
        "192.0.2.1:21000",
        "web-1",
    ]


@pytest.mark.parametrize(
    ("address", "place"),
    [("2001:db8::1", "[2001:db8::1]:21000"), ("", "127.0.0.1:21000"), ("a.example", "a.example:21000")],
)
def test_a_check_dials_the_address_as_consul_writes_it(address: str, place: str) -> None:
    made = sidecar_definition({"Name": "web", "Port": 80, "Address": address}, {"Port": 21000})
    assert made["Checks"][0]["TCP"] == place


def test_what_the_proxy_says_wins() -> None:
    service = {"Name": "web", "Port": 80, "Meta": {"v": "1"}}
    own = {"Port": 1, "Address": "192.0.2.2", "Meta": {"x": "2"}, "Proxy": {"LocalServicePort": 81}}
    definition = sidecar_definition(service, own)
    assert (definition["Address"], definition["Meta"]) == ("192.0.2.2", {"x": "2"})
    assert definition["Proxy"]["LocalServicePort"] == 81


def test_a_definition_is_a_registration_to_start_with() -> None:
    definition = sidecar_definition({"Name": "web", "Port": 80}, {"Port": 21000})
    answer = seed(definition, "dc1", "http")
    snapshot = apply(Snapshot(Role.SIDECAR, "web-sidecar-proxy"), Heard(RegistrationWatch("web-sidecar-proxy"), answer))
    assert snapshot.registration is not None
    assert (snapshot.registration.service, snapshot.registration.protocol) == ("web", "http")
    gateway = seed(gateway_definition("ingress-gateway", "edge", "edge-1", "192.0.2.1", 8443), "dc1", "http")
    assert gateway["Service"] == "edge"
    assert "protocol" not in gateway["Proxy"]["Config"]


@pytest.mark.parametrize(
    ("definition", "word"),
    [
        ({"Port": 0}, "port"),
        ({"Port": 70000}, "port"),
        ({"Port": "80"}, "port"),
        ({"Port": 80, "Address": "0.0.0.0"}, "address"),
        ({"Port": 80, "Address": "::"}, "address"),
        ({"Port": 80, "Weights": {"Passing": 0}}, "weights"),
    ],
)
def test_what_consul_would_store_although_nobody_can_reach_it_is_told(definition: dict[str, Any], word: str) -> None:
    (problem,) = check_definition(definition, "web")
    assert problem.where == f"web {word}"


def test_a_good_definition_has_no_problem() -> None:
    assert check_definition({"Port": 80, "Weights": {"Passing": 1, "Warning": 0}}, "web") == ()


async def test_the_one_sidecar_of_an_instance_is_found() -> None:
    assert await find_sidecar(Agent({"web-1": {}, "p": proxy("web-1"), "q": proxy("web-2")}), "web-1") == "p"


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ({"p": proxy("web-1"), "q": proxy("web-1")}, "More than one sidecar proxy registered for web-1; choose one"),
        ({"web-1": {}}, "No sidecar proxy registered for web-1; register it with"),
        ({"api-1": {}, "db-1": {}}, "this agent has the services api-1, db-1; give the ID, not the name"),
        ({}, "this agent shows no service: register it, or give a token"),
    ],
)
async def test_none_or_several_is_an_error_in_consuls_words(services: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await find_sidecar(Agent(services), "web-1")
