from __future__ import annotations

from typing import Any

import pytest

from harness.meshes import chain, split_chain, target_row
from policies.balance import HashPolicy
from policies.chain import Resolver, Router, Splitter, next_nodes, parse_chain, parse_load_balancer, passed_over
from policies.errors import ChainError

TARGET = "api.default.default.dc1"


def with_node(name: str, row: dict[str, Any], **more: Any) -> dict[str, Any]:
    whole = chain("api", **more)
    return {**whole, "StartNode": name, "Nodes": {**whole["Nodes"], name: row}}


def test_a_service_without_entries_is_one_resolver() -> None:
    parsed = parse_chain(chain("api"))
    assert (parsed.service, parsed.protocol, parsed.datacenter) == ("api", "http", "dc1")
    node = parsed.nodes[parsed.start]
    assert isinstance(node, Resolver)
    assert (node.target, node.connect_timeout, node.failover) == (TARGET, 5.0, ())
    assert parsed.targets[TARGET].sni.startswith("api.default.dc1.internal.")
    assert next_nodes(node) == ()


@pytest.mark.parametrize(
    ("datacenter", "mode", "told"),
    [
        ("dc2", "local", True),
        ("dc2", "remote", True),
        ("dc2", "none", False),
        ("dc2", "", False),
        ("dc1", "local", False),
    ],
)
def test_a_target_that_wants_a_mesh_gateway_is_told_where_there_would_be_one(
    datacenter: str,
    mode: str,
    told: bool,  # noqa: FBT001
) -> None:
    row = target_row("api", Datacenter=datacenter, MeshGateway={"Mode": mode} if mode else {})
    problems = passed_over(parse_chain(chain("api", Targets={TARGET: row})))
    assert [problem.where for problem in problems] == ([f"target {TARGET}"] if told else [])


def test_a_namespace_and_a_partition_are_told() -> None:
    row = target_row("api", Namespace="team", Partition="default")
    (problem,) = passed_over(parse_chain(chain("api", Targets={TARGET: row})))
    assert problem.message == "its Namespace team is of Consul Enterprise"


def test_a_splitter_names_its_arms_and_their_weights() -> None:
    parsed = parse_chain(split_chain("api", {"v1": 80, "v2": 20}))
    node = parsed.nodes[parsed.start]
    assert isinstance(node, Splitter)
    assert [split.weight for split in node.splits] == [80, 20]
    target = parsed.targets["v1.api.default.default.dc1"]
    assert target.filter is not None
    assert target.filter.source == "Service.Meta.version == v1"
    assert len(next_nodes(node)) == 2


def test_a_router_keeps_matches_rewrites_timeouts_and_modifiers() -> None:
    route = {
        "Definition": {
            "Match": {"HTTP": {"PathPrefix": "/v1"}},
            "Destination": {
                "PrefixRewrite": "/",
                "RequestTimeout": "3s",
                "IdleTimeout": 2_000_000_000,
                "NumRetries": 2,
                "RetryOnConnectFailure": True,
                "RequestHeaders": {"Set": {"X-A": "1"}},
                "ResponseHeaders": {"Remove": ["X-B"]},
            },
        },
        "NextNode": f"resolver:{TARGET}",
    }
    rest = {"Definition": {"Match": {"HTTP": {"PathPrefix": "/"}}}, "NextNode": f"resolver:{TARGET}"}
    parsed = parse_chain(with_node("router:api", {"Type": "router", "Routes": [route, rest]}))
    node = parsed.nodes[parsed.start]
    assert isinstance(node, Router)
    first, last = node.routes
    assert first.match is not None
    assert first.match.path is not None
    assert (first.match.path.kind, first.match.path.source) == ("prefix", "/v1")
    assert (first.prefix_rewrite, first.request_timeout, first.idle_timeout) == ("/", 3.0, 2.0)
    assert first.retry is not None
    assert first.retry.count == 2
    assert first.request_headers is not None
    assert first.response_headers is not None
    assert (last.match, last.retry, last.request_headers) == (None, None, None)
    assert next_nodes(node) == (f"resolver:{TARGET}",)


def test_a_resolver_keeps_failover_timeouts_and_balancing() -> None:
    backup = target_row("backup")
    row = {
        "Type": "resolver",
        "Resolver": {
            "Target": TARGET,
            "ConnectTimeout": "250ms",
            "RequestTimeout": "7s",
            "Failover": {"Targets": [backup["ID"]]},
        },
        "LoadBalancer": {"Policy": "ring_hash", "HashPolicies": [{"Field": "header", "FieldValue": "X-User"}]},
    }
    parsed = parse_chain(
        with_node(f"resolver:{TARGET}", row, Targets={TARGET: target_row("api"), backup["ID"]: backup})
    )
    node = parsed.nodes[parsed.start]
    assert isinstance(node, Resolver)
    assert (node.connect_timeout, node.request_timeout, node.failover) == (0.25, 7.0, (backup["ID"],))
    assert node.balancer.policy == "ring_hash"
    assert node.balancer.hash_policies == (HashPolicy("header", "X-User"),)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (chain("api", StartNode="resolver:gone"), "names node 'resolver:gone'"),
        (chain("api", Targets={}), "target"),
        (chain("api", Nodes={f"resolver:{TARGET}": {"Type": "magic"}}), "unknown type 'magic'"),
        (
            with_node("splitter:a", {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "splitter:a"}]}),
            "runs in a circle",
        ),
        (chain("api", Targets={TARGET: {**target_row("api"), "Peer": "far"}}), "cluster peering is not supported"),
        (chain("api", Targets={TARGET: target_row("api", "v1", "Service.Nothing == 1")}), "no such field"),
        (
            with_node(
                f"resolver:{TARGET}", {"Type": "resolver", "Resolver": {"Target": TARGET, "ConnectTimeout": "soon"}}
            ),
            "not a duration",
        ),
    ],
)
def test_a_chain_that_cannot_be_followed_is_an_error_that_names_the_place(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(ChainError, match=message):
        parse_chain(answer)


def test_load_balancers_are_read_with_consuls_defaults() -> None:
    assert parse_load_balancer({}).policy == "round_robin"
    assert parse_load_balancer({"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 5}}).choice_count == 5
    ring = parse_load_balancer({"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 2048}})
    assert (ring.minimum_ring_size, ring.maximum_ring_size) == (2048, 8 << 20)


def test_hash_policies_read_source_ip_and_cookies() -> None:
    parsed = parse_load_balancer(
        {
            "Policy": "maglev",
            "HashPolicies": [
                {"SourceIP": True, "Terminal": True},
                {"Field": "cookie", "FieldValue": "c", "CookieConfig": {"TTL": "1m", "Path": "/x"}},
                {"Field": "cookie", "FieldValue": "s", "CookieConfig": {"Session": True}},
            ],
        }
    )
    source, cookie, session = parsed.hash_policies
    assert (source.field_name, source.terminal) == ("source_ip", True)
    assert (cookie.cookie_ttl, cookie.cookie_path) == (60.0, "/x")
    assert session.cookie_session
    assert session.cookie_ttl is None
