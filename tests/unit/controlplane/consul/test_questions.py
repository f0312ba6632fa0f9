from __future__ import annotations

import pytest

from controlplane.consul.questions import AskedWatch, question
from policies.errors import CatalogBadAnswer
from policies.watches import (
    ApiGatewayWatch,
    ChainWatch,
    DefaultsWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    MeshWatch,
    OutsideWatch,
    RegistrationWatch,
    ResolverWatch,
    RootsWatch,
    RoutesWatch,
    TerminatingWatch,
)


@pytest.mark.parametrize(
    ("watch", "path", "query"),
    [
        (RootsWatch(), "agent/connect/ca/roots", {}),
        (RegistrationWatch("web 1"), "agent/service/web%201", {}),
        (IntentionsWatch("api"), "connect/intentions/match", {"by": "destination", "name": "api"}),
        (ChainWatch("key", "api"), "discovery-chain/api", {}),
        (ChainWatch("key", "api", "dc2"), "discovery-chain/api", {"compile-dc": "dc2"}),
        (EndpointsWatch("api"), "health/connect/api", {}),
        (EndpointsWatch("api", "dc2"), "health/connect/api", {"dc": "dc2"}),
        (OutsideWatch("db"), "health/service/db", {}),
        (GatewayServicesWatch("edge"), "catalog/gateway-services/edge", {}),
        (RoutesWatch("http-route", "edge"), "config/http-route", {}),
        (MeshWatch(), "config/mesh/mesh", {}),
        (IngressWatch("edge"), "config/ingress-gateway/edge", {}),
        (ApiGatewayWatch("edge"), "config/api-gateway/edge", {}),
        (TerminatingWatch("exit"), "config/terminating-gateway/exit", {}),
        (ResolverWatch("db"), "config/service-resolver/db", {}),
        (DefaultsWatch("db"), "config/service-defaults/db", {}),
        (DefaultsWatch(""), "config/proxy-defaults/global", {}),
    ],
    ids=repr,
)
def test_each_watch_asks_its_question(watch: AskedWatch, path: str, query: dict[str, str]) -> None:
    asked = question(watch)
    assert (asked.path, asked.query or {}, asked.body) == (f"/v1/{path}", query, None)
    assert asked.by_hash == isinstance(watch, RegistrationWatch)
    assert asked.may_be_absent == (path.startswith("config/") and not isinstance(watch, RoutesWatch))


def test_what_an_upstream_overrides_is_sent_along() -> None:
    assert question(ChainWatch("key", "api", "", "http", 250)).body == {
        "OverrideProtocol": "http",
        "OverrideConnectTimeout": "250ms",
    }


def test_an_entry_of_another_kind_is_no_answer() -> None:
    asked = question(MeshWatch())
    assert asked.check("x", {"Kind": "mesh"}) == {"Kind": "mesh"}
    with pytest.raises(CatalogBadAnswer):
        asked.check("x", {"Kind": "ingress-gateway"})
