"""Discovery chains and the checks on write: what comes out, what is refused in which words, as Consul 1.21.0 has it."""

from __future__ import annotations

from typing import Any

import pytest

from policies.discovery import check_graph, compile_chain
from policies.discovery.fingerprint import customization_hash
from policies.entries import Entries, decode_entry, entry_name, normalise_entry
from policies.errors import ChainError, EntryError

HTTP = {"Kind": "proxy-defaults", "Config": {"protocol": "http"}}
TD = "td.consul"


def entries(*raw: dict[str, Any]) -> Entries:
    """Return the entries after writes that are all taken."""
    stored = Entries()
    for one in raw:
        stored = put(stored, one)
    return stored


def put(stored: Entries, raw: dict[str, Any]) -> Entries:
    entry = normalise_entry(decode_entry(raw))
    after = stored.put(entry)
    check_graph(stored, after, entry["Kind"], entry_name(entry), trust_domain=TD)
    return after


def chain(stored: Entries, service: str = "a", **overrides: Any) -> dict[str, Any]:
    return compile_chain(stored, service, datacenter="dc1", trust_domain=TD, **overrides)


def router(name: str = "a", **destination: str) -> dict[str, Any]:
    route = {"Match": {"HTTP": {"PathPrefix": "/x"}}, "Destination": destination}
    return {"Kind": "service-router", "Name": name, "Routes": [route]}


def splitter(name: str, *splits: dict[str, Any]) -> dict[str, Any]:
    return {"Kind": "service-splitter", "Name": name, "Splits": list(splits)}


def resolver(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"Kind": "service-resolver", "Name": name, **fields}


def defaults(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"Kind": "service-defaults", "Name": name, **fields}


def intentions(name: str = "a", **fields: Any) -> dict[str, Any]:
    source = {"Name": "web", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}
    return {"Kind": "service-intentions", "Name": name, "Sources": [source], **fields}


def ingress(protocol: str, service: str = "a") -> dict[str, Any]:
    listener = {"Port": 80, "Protocol": protocol, "Services": [{"Name": service}]}
    return {"Kind": "ingress-gateway", "Name": "ig", "Listeners": [listener]}


# --- chains -----------------------------------------------------------------------------------------------------------


def test_a_service_without_entries_is_one_resolver() -> None:
    assert chain(Entries()) == {
        "ServiceName": "a",
        "Namespace": "default",
        "Partition": "default",
        "Datacenter": "dc1",
        "Default": True,
        "Protocol": "tcp",
        "StartNode": "resolver:a.default.default.dc1",
        "Nodes": {
            "resolver:a.default.default.dc1": {
                "Type": "resolver",
                "Name": "a.default.default.dc1",
                "Resolver": {"ConnectTimeout": "5s", "Default": True, "Target": "a.default.default.dc1"},
            }
        },
        "Targets": {
            "a.default.default.dc1": {
                "ConnectTimeout": "5s",
                "ID": "a.default.default.dc1",
                "Service": "a",
                "Namespace": "default",
                "Partition": "default",
                "Datacenter": "dc1",
                "MeshGateway": {},
                "Subset": {},
                "TransparentProxy": {},
                "SNI": "a.default.dc1.internal.td.consul",
                "Name": "a.default.dc1.internal.td.consul",
            }
        },
    }


def test_a_route_with_a_subset_goes_past_the_splitter() -> None:
    stored = entries(
        HTTP,
        resolver("b", Subsets={"v1": {"Filter": "Service.Meta.version == v1"}}),
        splitter("b", {"Weight": 100}),
        router(Service="b", ServiceSubset="v1"),
    )
    compiled = chain(stored)
    routes = compiled["Nodes"]["router:a.default.default"]["Routes"]
    assert [route["NextNode"] for route in routes] == [
        "resolver:v1.b.default.default.dc1",
        "resolver:a.default.default.dc1",
    ]
    assert routes[1]["Definition"] == {
        "Match": {"HTTP": {"PathPrefix": "/"}},
        "Destination": {"Service": "a", "Namespace": "default", "Partition": "default"},
    }
    assert compiled["Targets"]["v1.b.default.default.dc1"]["Subset"] == {"Filter": "Service.Meta.version == v1"}
    assert compiled["Targets"]["v1.b.default.default.dc1"]["SNI"] == "v1.b.default.dc1.internal.td.consul"


def test_nested_splitters_are_multiplied_out_and_their_headers_merged() -> None:
    outer = {"Add": {"x": "outer", "o": "1"}, "Set": {"s": "outer"}, "Remove": ["r"]}
    inner = {"Add": {"x": "inner"}, "Set": {"i": "1"}, "Remove": ["r", "q"]}
    stored = entries(
        HTTP,
        splitter(
            "b", {"Weight": 33.33, "RequestHeaders": inner, "ResponseHeaders": inner}, {"Weight": 66.67, "Service": "c"}
        ),
        splitter(
            "a", {"Weight": 50}, {"Weight": 50, "Service": "b", "RequestHeaders": outer, "ResponseHeaders": outer}
        ),
    )
    splits = chain(stored)["Nodes"]["splitter:a.default.default"]["Splits"]
    assert [split["Weight"] for split in splits] == [50, 16.67, 33.34]
    assert splits[1]["Definition"] == {
        "Weight": 33.33,
        "RequestHeaders": {"Add": {"x": "inner", "o": "1"}, "Set": {"s": "outer", "i": "1"}, "Remove": ["r", "q"]},
        "ResponseHeaders": {"Add": {"x": "outer", "o": "1"}, "Set": {"s": "outer", "i": "1"}, "Remove": ["r", "q"]},
    }
    assert splits[2]["Definition"] == {
        "Weight": 66.67,
        "Service": "c",
        "RequestHeaders": outer,
        "ResponseHeaders": outer,
    }


def test_modifiers_that_only_one_of_two_splitters_has_are_merged_where_consul_would_die() -> None:
    stored = entries(
        HTTP,
        splitter("b", {"Weight": 100, "RequestHeaders": {"Add": {"x": "1"}}}),
        splitter("a", {"Weight": 100, "Service": "b", "RequestHeaders": {"Set": {"y": "1"}}}),
    )
    (split,) = chain(stored)["Nodes"]["splitter:a.default.default"]["Splits"]
    assert split["Definition"]["RequestHeaders"] == {"Add": {"x": "1"}, "Set": {"y": "1"}}


def test_a_leg_of_weight_zero_stays_without_its_weight() -> None:
    stored = entries(HTTP, splitter("a", {"Weight": 0}, {"Weight": 100, "Service": "b"}))
    first, second = chain(stored)["Nodes"]["splitter:a.default.default"]["Splits"]
    assert "Weight" not in first
    assert second["Weight"] == 100


def test_a_redirect_comes_before_the_default_subset_and_forgets_the_subset() -> None:
    stored = entries(
        resolver("b", Subsets={"v1": {}}, DefaultSubset="v1"),
        resolver("a", Subsets={"v9": {}}, DefaultSubset="v9", Redirect={"Service": "b", "Datacenter": "dc2"}),
    )
    compiled = chain(stored)
    assert compiled["StartNode"] == "resolver:v1.b.default.default.dc2"
    assert list(compiled["Targets"]) == ["v1.b.default.default.dc2"]


def test_failover_targets_are_resolved_but_not_their_own_failover() -> None:
    targets = [{"Datacenter": "dc1"}, {"Datacenter": "dc2"}, {"Service": "b"}, {"Peer": "p"}]
    stored = entries(
        resolver("b", Redirect={"Service": "c"}),
        resolver("c", Failover={"*": {"Service": "d"}}),
        resolver("a", Failover={"*": {"Targets": targets}}),
    )
    compiled = chain(stored)
    assert compiled["Nodes"]["resolver:a.default.default.dc1"]["Resolver"]["Failover"] == {
        "Targets": ["a.default.default.dc2", "c.default.default.dc1", "a.default.default.external.p"]
    }
    peer = compiled["Targets"]["a.default.default.external.p"]
    assert not {"SNI", "Name", "Datacenter"} & set(peer)


def test_an_external_sni_replaces_the_sni_but_not_the_name() -> None:
    target = chain(entries(defaults(ExternalSNI="x.example.com", Meta={"k": "v"})))["Targets"]["a.default.default.dc1"]
    assert (target["SNI"], target["Name"], target["External"]) == (
        "x.example.com",
        "a.default.dc1.internal.td.consul",
        True,
    )


def test_the_first_hash_based_balancer_is_the_splitters() -> None:
    balancer = {"Policy": "maglev", "HashPolicies": [{"SourceIP": True}]}
    stored = entries(
        HTTP,
        resolver("b", LoadBalancer=balancer),
        splitter("a", {"Weight": 50}, {"Weight": 50, "Service": "b"}),
    )
    assert chain(stored)["Nodes"]["splitter:a.default.default"]["LoadBalancer"] == balancer


def test_defaults_of_a_service_without_protocol_are_tcp_whatever_the_proxies_say() -> None:
    stored = entries(HTTP, defaults("a", Meta={"k": "v"}))
    assert (chain(stored)["Protocol"], chain(stored)["ServiceMeta"]) == ("tcp", {"k": "v"})
    assert chain(stored, "b")["Protocol"] == "http"


def test_overrides_customize_the_chain() -> None:
    stored = entries(HTTP, splitter("a", {"Weight": 100}))
    plain = chain(stored, override_protocol="tcp", override_connect_timeout=7.0, override_mesh_gateway="local")
    assert (plain["Protocol"], plain["StartNode"]) == ("tcp", "resolver:a.default.default.dc1")
    assert plain["CustomizationHash"] == customization_hash("local", "tcp", 7_000_000_000)
    target = plain["Targets"]["a.default.default.dc1"]
    assert (target["ConnectTimeout"], target["MeshGateway"]) == ("7s", {"Mode": "local"})
    assert "CustomizationHash" not in chain(stored, override_protocol="http", override_connect_timeout=5.0)
    assert chain(stored, override_protocol="HTTP")["StartNode"] == "resolver:a.default.default.dc1"
    assert chain(stored, evaluate_in="dc2")["Datacenter"] == "dc2"


def test_the_hash_of_overrides_is_consuls() -> None:
    assert customization_hash("", "http", 0) == "1a47f6e1"
    assert customization_hash("local", "grpc", 7_000_000_000) == "a62bacaf"


# --- what may not be written ------------------------------------------------------------------------------------------

REFUSED: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    (
        [],
        splitter("a", {"Weight": 100}),
        'discovery chain "a" uses a protocol "tcp" that does not permit advanced routing or splitting behavior',
    ),
    (
        [defaults("a", Protocol="http")],
        router(Service="b"),
        'discovery chain "a" uses inconsistent protocols; service "b" has "tcp" which is not "http"',
    ),
    ([HTTP], router(Service="b", ServiceSubset="v9"), 'service "b" does not have a subset named "v9"'),
    (
        [HTTP, splitter("b", {"Weight": 100, "Service": "a"})],
        splitter("a", {"Weight": 100, "Service": "b"}),
        (
            "detected circular reference: [splitter:a.default.default -> splitter:b.default.default -> "
            "splitter:a.default.default]"
        ),
    ),
    (
        [resolver("b", Redirect={"Service": "a"})],
        resolver("a", Redirect={"Service": "b"}),
        (
            "detected circular resolver redirect: [a.default.default.dc1 -> b.default.default.dc1 -> "
            "a.default.default.dc1]"
        ),
    ),
    (
        [resolver("a", Subsets={"v1": {}})],
        defaults("a", ExternalSNI="x"),
        'service "a" has an external SNI set; cannot define subsets for external services',
    ),
    (
        [],
        intentions(),
        'service "a" has protocol "tcp", which is incompatible with L7 intentions permissions',
    ),
    (
        [defaults("a", Protocol="http"), intentions()],
        defaults("a", Protocol="tcp"),
        'service "a" has protocol "tcp", which is incompatible with L7 intentions permissions',
    ),
    (
        [HTTP],
        intentions(JWT={"Providers": [{"Name": "x"}, {"Name": "okta"}]}),
        (
            "2 errors occurred:\n\t* Referenced JWT Provider does not exist. Provider Name: okta\n\t"
            "* Referenced JWT Provider does not exist. Provider Name: x\n\n"
        ),
    ),
    (
        [],
        ingress("http"),
        'service "a" has protocol "tcp", which does not match defined listener protocol "http"',
    ),
    (
        [defaults("a", Protocol="http")],
        ingress("tcp"),
        'service "a" has protocol "http", which does not match defined listener protocol "tcp"',
    ),
    (
        [ingress("tcp")],
        {"Kind": "terminating-gateway", "Name": "ig"},
        (
            'cannot create a "terminating-gateway" config entry with name "ig", '
            'a "ingress-gateway" config entry with that name already exists'
        ),
    ),
    (
        [],
        defaults("a", MutualTLSMode="permissive"),
        "cannot set MutualTLSMode=permissive because AllowEnablingPermissiveMutualTLS=false in the mesh config entry",
    ),
    (
        [{"Kind": "exported-services", "Name": "default", "Services": [{"Name": "a", "Consumers": [{"Peer": "p"}]}]}],
        resolver("a", Redirect={"Datacenter": "dc2"}),
        'peer exported service "a" contains cross-datacenter resolver redirect',
    ),
    (
        [{"Kind": "exported-services", "Name": "default", "Services": [{"Name": "*", "Consumers": [{"Peer": "p"}]}]}],
        resolver("a", Redirect={"Service": "b"}),
        (
            'peer exported service "a" uses protocol="tcp" and cannot introduce new discovery chain targets like '
            '"b.default.default.dc1"'
        ),
    ),
    ([], {"Kind": "ingress-gateway"}, "failed inserting config entry: object missing primary index"),
]


@pytest.mark.parametrize(("before", "raw", "text"), REFUSED)
def test_a_write_that_breaks_others_is_refused_in_consuls_words(
    before: list[dict[str, Any]], raw: dict[str, Any], text: str
) -> None:
    stored = entries(*before)
    with pytest.raises(EntryError) as caught:
        put(stored, raw)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("before", "gone", "text"),
    [
        (
            [HTTP, splitter("a", {"Weight": 100})],
            ("proxy-defaults", "global"),
            'discovery chain "a" uses a protocol "tcp" that does not permit advanced routing or splitting behavior',
        ),
        (
            [HTTP, resolver("b", Subsets={"v1": {}}), router(Service="b", ServiceSubset="v1")],
            ("service-resolver", "b"),
            'service "b" does not have a subset named "v1"',
        ),
        (
            [
                HTTP,
                {"Kind": "jwt-provider", "Name": "okta", "JSONWebKeySet": {"Local": {"Filename": "f"}}},
                intentions(JWT={"Providers": [{"Name": "okta"}]}),
            ],
            ("jwt-provider", "okta"),
            (
                "cannot delete jwt provider config entry referenced by an intention. "
                "Provider name: okta, intention name: a"
            ),
        ),
    ],
)
def test_a_delete_that_breaks_others_is_refused_in_consuls_words(
    before: list[dict[str, Any]], gone: tuple[str, str], text: str
) -> None:
    stored = entries(*before)
    with pytest.raises(EntryError) as caught:
        check_graph(stored, stored.delete(*gone), *gone, trust_domain=TD)
    assert str(caught.value) == text


def test_a_later_write_may_leave_a_tcp_listener_before_an_http_service() -> None:
    stored = entries(ingress("tcp"), defaults("a", Protocol="http"))
    with pytest.raises(EntryError, match="does not match defined listener protocol"):
        put(stored, splitter("a", {"Weight": 100}))


def test_what_changes_nothing_is_not_checked() -> None:
    broken = Entries().put(splitter("a", {"Weight": 100}))
    check_graph(broken, broken, "service-splitter", "a", trust_domain=TD)
    check_graph(broken, broken.delete("service-router", "z"), "service-router", "z", trust_domain=TD)


def test_permissive_tls_may_stay_and_may_be_allowed() -> None:
    allowed = entries({"Kind": "mesh", "AllowEnablingPermissiveMutualTLS": True}, defaults(MutualTLSMode="permissive"))
    forbidden = put(allowed, {"Kind": "mesh"})
    put(forbidden, defaults(MutualTLSMode="permissive", Protocol="http"))


def test_a_broken_chain_is_refused_as_the_endpoint_does() -> None:
    broken = Entries().put(splitter("a", {"Weight": 100}))
    with pytest.raises(ChainError, match="^failed to compile discovery chain: discovery chain"):
        chain(broken)
