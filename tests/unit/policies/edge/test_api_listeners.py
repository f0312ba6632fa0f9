from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from harness.certificates import Authority
from harness.meshes import Json, Member, api_gateway, chain, instance, split_chain, upstream
from policies.compiler import compile_table
from policies.mesh import TlsLimits
from policies.table import Outbound, Table
from policies.wanted import missing, waiting, wanted
from policies.watches import ChainWatch, EndpointsWatch, RoutesWatch

HTTP = [{"Name": "l", "Port": 8080, "Protocol": "http"}]


def rule(*services: str | Json, path: str = "/", **more: Any) -> Json:
    rows = [{"Name": one} if isinstance(one, str) else one for one in services]
    return {"Matches": [{"Path": {"Match": "prefix", "Value": path}}], "Services": rows, **more}


def route(*rules: Json, **more: Any) -> Json:
    return {"Name": "r", "Rules": list(rules), **more}


def gateway(authority: Authority, *routes: Json, listeners: list[Json] | None = None, tcp: Any = ()) -> Member:
    return api_gateway("gw", authority, listeners or HTTP, routes, tcp)


def host(table: Table, name: str = "*") -> Outbound:
    return table.outbounds[f"{name} on 8080"]


def test_a_rule_leads_to_its_service(authority: Authority) -> None:
    member = upstream(gateway(authority, route(rule("api"))), "api", [1])
    table = member.table()
    (listener,) = table.ingress
    assert (listener.address, listener.port, listener.protocol) == ("127.0.0.1", 8080, "http")
    assert [(one.outbound, one.hosts) for one in listener.virtual_hosts] == [("* on 8080", ("*",))]
    (only,) = host(table).routes
    assert [cluster.service for leg in only.legs for cluster in leg.clusters] == ["api"]
    assert (only.request_timeout, only.idle_timeout) == (15.0, 300.0)


def test_everything_that_it_needs_is_watched_and_waited_for(authority: Authority) -> None:
    member = gateway(authority, route(rule("api")))
    assert missing(member.snapshot) == ()
    assert ChainWatch("api", "api") in wanted(member.snapshot)
    assert waiting(member.snapshot) == (ChainWatch("api", "api"),)
    upstream(member, "api", [1])
    assert EndpointsWatch("api") in wanted(member.snapshot)
    assert waiting(member.snapshot) == ()


def test_below_a_service_its_splitter_counts_and_its_router_does_not(authority: Authority) -> None:
    answer = split_chain("api", {"v1": 75, "v2": 25})
    match = {"HTTP": {"PathPrefix": "/"}}
    answer["Nodes"]["router:api"] = {
        "Type": "router",
        "Routes": [
            {
                "NextNode": "resolver:v1.api.default.default.dc1",
                "Definition": {"Match": match, "Destination": {"PrefixRewrite": "/never"}},
            },
            {"NextNode": answer["StartNode"]},
        ],
    }
    rows = [instance("api", port, port, Meta={"version": version}) for port, version in ((1, "v1"), (2, "v2"))]
    member = gateway(authority, route(rule("api"), rule("api", {"Name": "web"}, path="/two")))
    member.hear(ChainWatch("api", "api"), {**answer, "StartNode": "router:api"}).hear(EndpointsWatch("api"), rows)
    upstream(member, "web", [3])
    two, one = host(member.table()).routes
    assert [(leg.weight, leg.clusters[0].subset) for leg in one.legs] == [(75, "v1"), (25, "v2")]
    assert one.prefix_rewrite == ""
    assert [(leg.weight, leg.clusters[0].service) for leg in two.legs] == [(37.5, "api"), (12.5, "api"), (50, "web")]


def test_weights_are_relative_and_a_share_that_nobody_serves_stays(authority: Authority) -> None:
    shares = ({"Name": "api", "Weight": 3}, {"Name": "web", "Weight": 1})
    member = upstream(upstream(gateway(authority, route(rule(*shares))), "api", [1]), "web", [], chain("web", "tcp"))
    table, problems = compile_table(member.snapshot)
    legs = host(table).routes[0].legs
    assert [(leg.weight, [cluster.service for cluster in leg.clusters]) for leg in legs] == [(75, ["api"]), (25, [])]
    assert [problem.message for problem in problems] == ["web speaks tcp, its http-route http"]


def test_filters_of_a_service_alone_are_the_routes_and_among_several_the_arms(authority: Authority) -> None:
    def filters(value: str) -> Json:
        return {"Headers": [{"Set": {"x": value}}], "URLRewrite": {"Path": f"/{value}"}}

    answers = {"Headers": [{"Set": {"y": "service"}}]}
    filtered = {"Name": "api", "Filters": filters("service"), "ResponseFilters": answers}
    member = gateway(
        authority,
        route(
            rule(filtered, path="/alone", Filters=filters("rule")),
            rule(filtered, "web", path="/both", Filters=filters("rule")),
        ),
    )
    alone, both = host(upstream(upstream(member, "api", [1]), "web", [2]).table()).routes
    assert alone.request_headers is not None
    assert (alone.prefix_rewrite, alone.request_headers.set) == ("/service", (("x", "service"),))
    assert both.request_headers is not None
    assert (both.prefix_rewrite, both.request_headers.set) == ("/rule", (("x", "rule"),))
    first, second = both.legs
    assert first.request_headers is not None
    assert (first.prefix_rewrite, first.request_headers.set) == ("/service", (("x", "service"),))
    assert first.response_headers is not None
    assert first.response_headers.set == (("y", "service"),)
    assert (second.prefix_rewrite, second.request_headers, second.response_headers) == ("", None, None)


def test_timeouts_are_the_rules_else_the_longest_of_the_services(authority: Authority) -> None:
    def with_timeout(service: str, timeout: str) -> Json:
        whole = chain(service)
        (node,) = whole["Nodes"].values()
        node["Resolver"]["RequestTimeout"] = timeout
        return whole

    own = {"TimeoutFilter": {"RequestTimeout": "2s", "IdleTimeout": "-1s"}}
    member = gateway(authority, route(rule("api", "web"), rule("api", path="/own", Filters=own)))
    upstream(member, "api", [1], with_timeout("api", "30s"))
    upstream(member, "web", [1], with_timeout("web", "20s"))
    with_own, longest = host(member.table()).routes
    assert (with_own.request_timeout, with_own.idle_timeout) == (2.0, None)
    assert longest.request_timeout == 30.0
    upstream(member, "web", [1], with_timeout("web", "-1s"))
    assert host(member.table()).routes[1].request_timeout is None


def test_a_rule_waits_for_its_services_and_meanwhile_does_what_it_did(authority: Authority) -> None:
    member = gateway(authority, route(rule("api"), rule("api", path="/old")))
    assert [leg.clusters for one in host(member.table()).routes for leg in one.legs] == []
    upstream(member, "api", [1])
    before = member.table()
    parents = {"Parents": [{"Name": "gw"}]}
    rules = (rule("web"), rule("web", path="/new"), rule("api", path="/api"))
    member.hear(RoutesWatch("http-route", "gw"), [parents | route(*rules)])
    waiting_for_web, _ = compile_table(member.snapshot, before)
    assert led_to(waiting_for_web) == {"/new": [], "/api": ["api"], "/": ["api"]}
    upstream(member, "web", [2])
    after, _ = compile_table(member.snapshot, waiting_for_web)
    assert led_to(after) == {"/new": ["web"], "/api": ["api"], "/": ["web"]}


def led_to(table: Table) -> dict[str, list[str]]:
    """Return the services behind each path."""
    return {
        one.match.path.source if one.match is not None and one.match.path is not None else "/": [
            cluster.service for leg in one.legs for cluster in leg.clusters
        ]
        for one in host(table).routes
    }


def test_what_has_not_changed_is_the_very_same_object(authority: Authority) -> None:
    member = gateway(
        authority,
        route(rule("api"), Name="r1", Hostnames=["a.example"]),
        route(rule("web"), Name="r2", Hostnames=["b.example"]),
    )
    before = upstream(upstream(member, "api", [1]), "web", [2]).table()
    upstream(member, "web", [2, 3])
    after, _ = compile_table(member.snapshot, before)
    assert host(after, "a.example") is host(before, "a.example")
    assert host(after, "b.example") is not host(before, "b.example")
    assert after.ingress is before.ingress


def test_a_tcp_route_leads_to_a_service_of_tcp_alone(authority: Authority) -> None:
    listeners = [{"Name": "t", "Port": 5432, "Protocol": "tcp"}]
    tcp = [{"Name": "t", "Services": [{"Name": "db"}]}]
    member = gateway(authority, listeners=listeners, tcp=tcp)
    assert [
        one.virtual_hosts[0].outbound for one in upstream(member, "db", [1], chain("db", "tcp")).table().ingress
    ] == ["db"]
    table, problems = compile_table(upstream(member, "db", [1]).snapshot)
    assert table.ingress == ()
    assert [problem.fix for problem in problems] == ["the port stays closed"]


def test_a_rule_that_is_refused_is_so_in_the_table(authority: Authority) -> None:
    member = upstream(gateway(authority, route(rule("api", Filters={"JWT": {}}))), "api", [1])
    table, problems = compile_table(member.snapshot)
    assert "JWT" in host(table).routes[0].refused
    assert len(problems) == 1


def test_a_rule_that_is_refused_does_not_go_on_as_before_while_its_service_is_unheard(authority: Authority) -> None:
    member = upstream(gateway(authority, route(rule("api"))), "api", [1])
    before = member.table()
    refused = {"Parents": [{"Name": "gw"}]} | route(rule("web", Filters={"JWT": {}}))
    member.hear(RoutesWatch("http-route", "gw"), [refused])
    table, _ = compile_table(member.snapshot, before)
    assert "JWT" in host(table).routes[0].refused


def test_modifiers_that_could_break_a_message_are_told(authority: Authority) -> None:
    filters = {"Headers": [{"Set": {"host": "evil"}}]}
    member = upstream(gateway(authority, route(rule("api", Filters=filters))), "api", [1])
    _, problems = compile_table(member.snapshot)
    assert [problem.where for problem in problems] == ["host * on 8080"]


def test_who_is_no_api_gateway_does_not_even_load_it() -> None:
    words = "import policies.compiler, sys; print(sorted(name for name in sys.modules if name.startswith('policies.')))"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert "policies.compiler" in loaded
    assert not re.search("http_routes|api_gateway|api_listeners", loaded)


def test_a_service_whose_chain_is_wrong_keeps_its_share_and_others_are_served(authority: Authority) -> None:
    member = upstream(gateway(authority, route(rule("api", "web"))), "api", [1])
    member.hear(ChainWatch("web", "web"), {**chain("web"), "StartNode": "nowhere"})
    table, problems = compile_table(member.snapshot)
    assert [(leg.weight, len(leg.clusters)) for leg in host(table).routes[0].legs] == [(50, 1), (50, 0)]
    assert len(problems) == 1


def test_a_tcp_port_waits_for_its_service(authority: Authority) -> None:
    listeners = [{"Name": "t", "Port": 5432, "Protocol": "tcp"}]
    member = gateway(authority, listeners=listeners, tcp=[{"Name": "t", "Services": [{"Name": "db"}]}])
    assert member.table().ingress == ()


def test_listeners_of_one_port_keep_their_versions_by_host(authority: Authority) -> None:
    strict, old = TlsLimits("TLSv1_3"), TlsLimits("TLSv1_1", "", ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",))
    certificates = [{"Kind": "inline-certificate", "Name": "all"}]

    def listener(name: str, host: str, **tls: Any) -> Json:
        more = {"TLS": {"Certificates": certificates, **tls}}
        return {"Name": name, "Port": 8443, "Protocol": "http", "Hostname": host, **more}

    one = listener("a", "a.example", MinVersion="TLSv1_3")
    other = listener("b", "*.b.example", MinVersion="TLSv1_1", CipherSuites=list(old.cipher_suites))
    for rows, by_host in (
        ([one, other], {"a.example": strict, "*.b.example": old}),
        ([one, listener("b", "*.b.example", MinVersion="TLSv1_3")], {}),
        ([one, {**other, "TLS": {}}], {}),
        ([one, other, {**other, "Name": "c", "TLS": one["TLS"]}], {"a.example": strict, "*.b.example": old}),
    ):
        member = upstream(gateway(authority, route(rule("api")), listeners=rows), "api", [1])
        (found,) = member.table().ingress
        assert found.tls is not None
        assert (found.tls.limits, found.tls.limits_by_host) == (strict, by_host)
