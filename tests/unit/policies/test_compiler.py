from __future__ import annotations

from typing import Any

import pytest

from harness.certificates import Authority, spiffe
from harness.meshes import (
    Json,
    Member,
    chain,
    ingress,
    instance,
    intention,
    sidecar,
    split_chain,
    target_row,
    upstream,
)
from policies.balance import Question
from policies.canonical import table_text
from policies.compiler import compile_table
from policies.snapshot import Role, Snapshot
from policies.watches import ChainWatch, EndpointsWatch, IntentionsWatch

TARGET = "api.default.default.dc1"


def web(authority: Authority, answer: Json, rows: list[Json] | None = None, **config: Any) -> Member:
    member = sidecar("web", authority, upstreams={"api": 9191}, **config)
    member.hear(ChainWatch("api", "api"), answer)
    return member.hear(EndpointsWatch("api"), [instance("api", 22000)] if rows is None else rows)


def routed(*routes: Json, **more: Any) -> Json:
    whole = chain("api")
    return {
        **whole,
        **more,
        "StartNode": "router:api",
        "Nodes": {
            **whole["Nodes"],
            **more.get("Nodes", {}),
            "router:api": {"Type": "router", "Routes": [{"NextNode": f"resolver:{TARGET}", **row} for row in routes]},
        },
    }


def resolver(**more: Any) -> Json:
    row = {"Type": "resolver", "Resolver": {"Target": TARGET, "ConnectTimeout": "5s", **more}}
    return chain("api", Nodes={f"resolver:{TARGET}": row})


def test_a_table_needs_registration_roots_and_leaf() -> None:
    with pytest.raises(ValueError, match="needs the registration"):
        compile_table(Snapshot(Role.SIDECAR, "p"))


def test_an_upstream_becomes_a_cluster_with_the_identity_that_its_peer_must_prove(authority: Authority) -> None:
    table = web(authority, chain("api")).table()
    (cluster,) = table.outbounds["api"].routes[0].legs[0].clusters
    assert cluster.spiffe_id == spiffe("api")
    assert cluster.sni.startswith("api.default.dc1.internal.")
    assert [endpoint.port for endpoint in cluster.endpoints] == [22000]
    assert [(listener.upstream, listener.address, listener.port) for listener in table.listeners] == [
        ("api", "127.0.0.1", 9191)
    ]


def test_splits_become_legs_with_their_subsets(authority: Authority) -> None:
    rows = [instance("api", port, port, Meta={"version": version}) for port, version in ((1, "v1"), (2, "v2"))]
    legs = web(authority, split_chain("api", {"v1": 80, "v2": 20}), rows).table().outbounds["api"].routes[0].legs
    assert [(leg.weight, leg.clusters[0].subset, leg.clusters[0].endpoints[0].port) for leg in legs] == [
        (80, "v1", 1),
        (20, "v2", 2),
    ]


def test_nested_splits_multiply_and_the_inner_modifiers_fill_in(authority: Authority) -> None:
    answer = split_chain("api", {"v1": 50, "v2": 50})
    inner = answer["StartNode"]
    answer["Nodes"]["splitter:outer"] = {
        "Type": "splitter",
        "Splits": [
            {"Weight": 40, "NextNode": inner, "Definition": {"RequestHeaders": {"Set": {"x-arm": "outer"}}}},
            {"Weight": 60, "NextNode": "resolver:v1.api.default.default.dc1"},
        ],
    }
    legs = web(authority, {**answer, "StartNode": "splitter:outer"}).table().outbounds["api"].routes[0].legs
    assert [leg.weight for leg in legs] == [20, 20, 60]
    assert [leg.request_headers is not None for leg in legs] == [True, True, False]


@pytest.mark.parametrize(
    ("of_route", "of_resolver", "expected"),
    [(None, None, 15.0), ("3s", None, 3.0), ("3s", "7s", 3.0), (None, "7s", 7.0), ("-1s", None, None)],
)
def test_the_request_timeout_is_the_routes_then_the_resolvers_then_envoys(
    authority: Authority, of_route: str | None, of_resolver: str | None, expected: float | None
) -> None:
    route = {"Definition": {"Destination": {"RequestTimeout": of_route} if of_route else {}}}
    whole = resolver(**({"RequestTimeout": of_resolver} if of_resolver else {}))
    answer = routed(route, Nodes=whole["Nodes"])
    answer["Nodes"] = {**answer["Nodes"], **whole["Nodes"]}
    assert web(authority, answer).table().outbounds["api"].routes[0].request_timeout == expected


def test_a_plain_resolvers_request_timeout_holds_without_a_router(authority: Authority) -> None:
    table = web(authority, resolver(RequestTimeout="7s")).table()
    assert table.outbounds["api"].routes[0].request_timeout == 7.0


def test_routes_keep_their_order_and_their_settings(authority: Authority) -> None:
    first = {
        "Definition": {
            "Match": {"HTTP": {"PathPrefix": "/v1"}},
            "Destination": {"PrefixRewrite": "/", "IdleTimeout": "2s", "RetryOnConnectFailure": True},
        }
    }
    routes = web(authority, routed(first, {})).table().outbounds["api"].routes
    assert routes[0].match is not None
    assert (routes[0].prefix_rewrite, routes[0].idle_timeout) == ("/", 2.0)
    assert routes[0].retry is not None
    assert (routes[1].match, routes[1].idle_timeout) == (None, 300.0)


def test_failover_targets_follow_the_primary_in_order(authority: Authority) -> None:
    backup = target_row("backup")
    answer = resolver(Failover={"Targets": [backup["ID"]]})
    answer["Targets"] = {TARGET: target_row("api"), backup["ID"]: backup}
    member = web(authority, answer)
    assert [cluster.service for cluster in _clusters(member)] == ["api"]
    member.hear(EndpointsWatch("backup"), [instance("backup", 5)])
    assert [cluster.service for cluster in _clusters(member)] == ["api", "backup"]


def _clusters(member: Member) -> Any:
    return member.table().outbounds["api"].routes[0].legs[0].clusters


def test_an_upstream_whose_instances_were_not_heard_has_no_listener_yet(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    assert member.table().listeners == ()
    member.hear(ChainWatch("api", "api"), chain("api"))
    assert member.table().listeners == ()


def test_an_upstream_that_cannot_be_compiled_keeps_its_last_good_state_and_is_told(authority: Authority) -> None:
    member = web(authority, chain("api"))
    before = member.table()
    answer = chain("api")
    answer["Nodes"]["router:below"] = {"Type": "router", "Routes": [{"NextNode": f"resolver:{TARGET}"}]}
    answer["Nodes"]["splitter:top"] = {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "router:below"}]}
    member.hear(ChainWatch("api", "api"), {**answer, "StartNode": "splitter:top"})
    table, problems = compile_table(member.snapshot, before)
    assert table.outbounds == before.outbounds
    assert problems[0].where == "upstream api"
    assert "router router:below stands below another node" in problems[0].message
    assert compile_table(member.snapshot)[0].outbounds == {}


def hashed(policy: str) -> Json:
    whole = resolver()
    balancer = {"Policy": policy, "HashPolicies": [{"Field": "header", "FieldValue": "x-user"}]}
    whole["Nodes"][f"resolver:{TARGET}"]["LoadBalancer"] = balancer
    return whole


@pytest.mark.parametrize("policy", ["", "random", "least_request", "ring_hash", "maglev"])
def test_the_choice_of_endpoints_is_ready_before_the_first_request(authority: Authority, policy: str) -> None:
    member = web(
        authority, hashed(policy) if policy else chain("api"), [instance("api", port, port) for port in (1, 2)]
    )
    table, _ = compile_table(member.snapshot)
    (cluster,) = table.outbounds["api"].routes[0].legs[0].clusters
    assert cluster.chooser is not None
    chosen = {cluster.chooser.pick(Question(count, lambda: 0.4, lambda _: 0, count * 7919)) for count in range(64)}
    assert chosen <= set(cluster.endpoints)
    assert "chooser" not in table_text(table)
    without = compile_table(web(authority, chain("api"), []).snapshot)[0]
    assert without.outbounds["api"].routes[0].legs[0].clusters[0].chooser is None


def test_what_has_not_changed_is_taken_over_from_the_previous_table(authority: Authority) -> None:
    member = web(authority, hashed("maglev"), [instance("api", port, port) for port in (1, 2)])
    before, _ = compile_table(member.snapshot)
    (old,) = before.outbounds["api"].routes[0].legs[0].clusters
    member.renew()
    again, _ = compile_table(member.snapshot, before)
    assert again.outbounds["api"].routes[0].legs[0].clusters[0] is old
    member.hear(EndpointsWatch("api"), [instance("api", port, port) for port in (1, 3)])
    changed, _ = compile_table(member.snapshot, before)
    (new,) = changed.outbounds["api"].routes[0].legs[0].clusters
    assert new.chooser is not old.chooser
    assert [endpoint.port for endpoint in new.endpoints] == [1, 3]
    assert new.endpoints[0] is old.endpoints[0]


def rebuilt(before: Any, after: Any) -> set[str]:
    """Return the upstreams that were compiled anew."""
    return {key for key, outbound in after.outbounds.items() if outbound is not before.outbounds.get(key)}


def many(authority: Authority) -> Member:
    member = sidecar("web", authority, upstreams={name: 9000 + number for number, name in enumerate("abcdef")})
    for name in "abcdef":
        upstream(member, name, [1, 2])
    return member


def test_a_change_compiles_the_upstreams_that_it_concerns_and_no_others(authority: Authority) -> None:
    member = many(authority)
    before, _ = compile_table(member.snapshot)
    member.hear(IntentionsWatch("web"), [intention("a", "web", "deny")]).renew()
    policy, _ = compile_table(member.snapshot, before)
    assert policy != before
    assert rebuilt(before, policy) == set()
    assert policy.listeners is before.listeners
    upstream(member, "b", [1, 3])
    endpoint, _ = compile_table(member.snapshot, policy)
    assert rebuilt(policy, endpoint) == {"b"}
    member.hear(ChainWatch("c", "c"), routed_to("c", "d"))
    chained, _ = compile_table(member.snapshot, endpoint)
    assert rebuilt(endpoint, chained) == {"c"}
    upstream(member, "d", [4])
    both, _ = compile_table(member.snapshot, chained)
    assert rebuilt(chained, both) == {"c", "d"}, "a route of c leads to d"
    assert both == compile_table(member.snapshot)[0]


def routed_to(service: str, other: str) -> Json:
    whole, target = chain(service), target_row(other)
    routes = [
        {"NextNode": f"resolver:{target['ID']}", "Definition": {"Match": {"HTTP": {"PathPrefix": "/x"}}}},
        {"NextNode": whole["StartNode"]},
    ]
    whole["Nodes"] |= {**chain(other)["Nodes"], "router:r": {"Type": "router", "Routes": routes}}
    whole["Targets"][target["ID"]] = target
    return {**whole, "StartNode": "router:r"}


def test_clusters_that_have_not_changed_stay_where_another_one_does(authority: Authority) -> None:
    member = many(authority)
    member.hear(ChainWatch("c", "c"), routed_to("c", "d"))
    before, _ = compile_table(member.snapshot)
    upstream(member, "d", [4])
    after, _ = compile_table(member.snapshot, before)
    old, new = ({one.target: one for one in table.outbounds["c"].clusters} for table in (before, after))
    assert [target for target in new if new[target] is not old[target]] == ["d.default.default.dc1"]
    assert after.outbounds["d"].clusters == (new["d.default.default.dc1"],)


def test_an_upstream_that_keeps_its_last_good_state_is_told_of_again_at_every_change(authority: Authority) -> None:
    member = many(authority)
    before, _ = compile_table(member.snapshot)
    answer = routed_to("c", "d")
    answer["Nodes"]["splitter:top"] = {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "router:r"}]}
    member.hear(ChainWatch("c", "c"), {**answer, "StartNode": "splitter:top"})
    broken, told = compile_table(member.snapshot, before)
    assert rebuilt(before, broken) == set()
    again, told_again = compile_table(member.snapshot, broken)
    assert rebuilt(broken, again) == set()
    assert [problem.where for problem in told] == [problem.where for problem in told_again] == ["upstream c"]
    member.hear(ChainWatch("c", "c"), routed_to("c", "d"))
    assert rebuilt(again, compile_table(member.snapshot, again)[0]) == {"c"}


def test_what_several_routes_lead_to_is_made_once(authority: Authority) -> None:
    routes = [{"Definition": {"Match": {"HTTP": {"PathPrefix": f"/{number}"}}}} for number in range(50)]
    outbound = compile_table(web(authority, routed(*routes)).snapshot)[0].outbounds["api"]
    assert len(outbound.routes) == 50
    assert len({id(route.legs) for route in outbound.routes}) == 1
    assert len(outbound.clusters) == 1


def test_a_listener_of_a_gateway_that_has_not_changed_is_the_same(authority: Authority) -> None:
    listeners = [{"Port": port, "Protocol": "http", "Services": [{"Name": "web"}]} for port in (1, 2)]
    member = edge(authority, *listeners, protocols={"web": "http"})
    before, _ = compile_table(member.snapshot)
    upstream(member, "web", [7], chain("web"))
    after, _ = compile_table(member.snapshot, before)
    assert rebuilt(before, after) == {"web"}
    assert after.ingress is before.ingress


def test_an_equal_target_of_two_routes_is_one_cluster(authority: Authority) -> None:
    member = web(authority, routed({}, {"Definition": {"Match": {"HTTP": {"PathPrefix": "/x"}}}}))
    first, second = compile_table(member.snapshot)[0].outbounds["api"].routes
    assert first.legs[0].clusters[0] is second.legs[0].clusters[0]


def test_the_inbound_half_has_what_the_registration_says(authority: Authority) -> None:
    config = {"local_connect_timeout_ms": 100, "local_request_timeout_ms": 2000, "max_inbound_connections": 3}
    inbound = sidecar("web", authority, port=21000, local_port=8080, config=config).table().inbound
    assert inbound is not None
    assert (inbound.bind_address, inbound.bind_port, inbound.local_port) == ("127.0.0.1", 21000, 8080)
    assert (inbound.local_connect_timeout, inbound.local_request_timeout, inbound.max_connections) == (0.1, 2.0, 3)


def test_without_a_local_port_there_is_no_inbound_half(authority: Authority) -> None:
    assert sidecar("web", authority, local_port=0).table().inbound is None


# --- ingress -------------------------------------------------------------------------------------------------------


def edge(authority: Authority, *listeners: Json, protocols: dict[str, str] | None = None, rows: Any = ()) -> Member:
    member = ingress("edge", authority, list(listeners), rows)
    for service, protocol in (protocols or {}).items():
        upstream(member, service, [1], chain(service, protocol))
    return member


def test_a_listener_has_a_virtual_host_for_each_service(authority: Authority) -> None:
    services = [{"Name": "web", "Hosts": ["web.example"]}, {"Name": "api"}]
    listener = {"Port": 8080, "Protocol": "http", "Services": services}
    (compiled,) = edge(authority, listener, protocols={"web": "http", "api": "http"}).table().ingress
    assert {host.outbound: host.hosts for host in compiled.virtual_hosts} == {
        "web": ("web.example",),
        "api": ("api.ingress.*",),
    }


def test_a_tcp_listener_takes_every_host(authority: Authority) -> None:
    listener = {"Port": 9000, "Protocol": "tcp", "Services": [{"Name": "db"}]}
    (compiled,) = edge(authority, listener, protocols={"db": "tcp"}).table().ingress
    assert compiled.virtual_hosts[0].hosts == ("*",)


def test_an_http_listener_is_open_before_its_services_are_known(authority: Authority) -> None:
    tables = [
        edge(authority, {"Port": 8080, "Protocol": protocol, "Services": [{"Name": "web"}]}).table()
        for protocol in ("http", "tcp")
    ]
    assert [len(table.ingress) for table in tables] == [1, 0]


def test_a_service_of_another_protocol_is_left_out_and_told(authority: Authority) -> None:
    listener = {"Port": 8080, "Protocol": "http", "Services": [{"Name": "db"}]}
    table, problems = compile_table(edge(authority, listener, protocols={"db": "tcp"}).snapshot)
    assert table.ingress[0].virtual_hosts == ()
    assert problems[0].message == "db speaks tcp, the listener http"


def test_a_wildcard_leaves_out_other_protocols_without_a_word(authority: Authority) -> None:
    rows = [{"Service": {"Name": name}, "Port": 8080, "Protocol": "http"} for name in ("db", "web")]
    listener = {"Port": 8080, "Protocol": "http", "Services": [{"Name": "*"}]}
    table, problems = compile_table(
        edge(authority, listener, protocols={"db": "tcp", "web": "http"}, rows=rows).snapshot
    )
    assert [host.outbound for host in table.ingress[0].virtual_hosts] == ["web"]
    assert problems == ()


def test_tls_on_a_listener_is_told_and_the_listener_stays_closed(authority: Authority) -> None:
    listener = {"Port": 8443, "Protocol": "http", "TLS": {"Enabled": True}, "Services": [{"Name": "web"}]}
    table, problems = compile_table(edge(authority, listener, protocols={"web": "http"}).snapshot)
    assert table.ingress == ()
    assert problems[0].where == "ingress-gateway edge listener 8443"


def test_a_modifier_that_cannot_be_made_is_told_every_time_and_the_route_stays(authority: Authority) -> None:
    bad = {"RequestHeaders": {"Set": {"x-ok": "1", "x-sure": "100% sure"}}, "ResponseHeaders": {"Remove": ["Host"]}}
    member = web(authority, routed({"Definition": {"Destination": bad}}))
    table, told = compile_table(member.snapshot)
    texts = [(problem.where, problem.message.partition(":")[0]) for problem in told]
    assert texts == [("upstream api", "Set of header 'x-sure'"), ("upstream api", "Remove of header 'host'")]
    assert len(table.outbounds["api"].routes) == 1
    assert compile_table(member.snapshot, table)[1] == told


def test_a_modifier_of_the_gateway_that_cannot_be_made_is_told(authority: Authority) -> None:
    services = [{"Name": "web", "ResponseHeaders": {"Add": {"x-a": "%NOPE%"}}}]
    member = ingress("edge", authority, [{"Port": 8080, "Protocol": "http", "Services": services}])
    upstream(member, "web", [1])
    _, (problem,) = compile_table(member.snapshot)
    assert (problem.where, problem.message.endswith("not known here: NOPE")) == (
        "ingress-gateway edge listener 8080",
        True,
    )
