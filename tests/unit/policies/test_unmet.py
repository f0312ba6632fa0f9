from __future__ import annotations

from typing import Any

import pytest

from policies.proxies import parse_registration
from policies.unmet import unmet


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ({"Mode": "transparent"}, "transparent mode"),
        ({"MutualTLSMode": "permissive"}, "permissive mutual TLS"),
        ({"Expose": {"Paths": [{"Path": "/health"}]}}, "exposed path /health"),
        ({"Expose": {"Checks": True}}, "paths of checks"),
        ({"EnvoyExtensions": [{"Name": "builtin/ext-authz"}]}, "extension builtin/ext-authz"),
        ({"AccessLogs": {"Enabled": True}}, "access logs"),
        ({"Config": {"envoy_public_listener_json": "{}"}}, "envoy_public_listener_json"),
        ({"Upstreams": [{"DestinationName": "api", "Config": {"EnvoyClusterJSON": "{}"}}]}, "EnvoyClusterJSON"),
    ],
)
def test_what_is_asked_for_and_not_done_is_a_problem(proxy: dict[str, Any], told: str) -> None:
    (problem,) = unmet("web-proxy", proxy)
    assert told in problem.message
    assert (problem.where, bool(problem.fix)) == ("web-proxy", True)
    row = {"Kind": "connect-proxy", "ID": "web-proxy", "Proxy": {"DestinationServiceName": "web", **proxy}}
    assert parse_registration(row).problems == (problem,)


def test_what_agents_fill_in_is_no_problem() -> None:
    empty = {"Mode": "", "MutualTLSMode": "", "Expose": {}, "EnvoyExtensions": None, "AccessLogs": {"Enabled": False}}
    assert unmet("", {**empty, "Config": {"envoy_prometheus_bind_addr": ":9102", "envoy_cluster_json": ""}}) == ()
    assert unmet("", {"Mode": "direct", "MutualTLSMode": "strict", "Expose": {"Checks": False, "Paths": []}}) == ()
