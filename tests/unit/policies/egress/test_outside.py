"""What the entries of a service outside say."""

from __future__ import annotations

from harness.certificates import Authority
from harness.meshes import terminating
from policies.balance import LoadBalancer
from policies.egress.outside import (
    Defaults,
    OutsideResolver,
    Subset,
    parse_proxy_defaults,
    parse_resolver,
    parse_service_defaults,
)
from policies.filters import parse_filter
from policies.watches import DefaultsWatch


def test_a_resolver_says_subsets_balancing_and_timeouts() -> None:
    entry = {
        "Kind": "service-resolver",
        "Name": "ext",
        "ConnectTimeout": "2s",
        "RequestTimeout": 3_000_000_000,
        "Subsets": {"v2": {"Filter": "Service.Meta.v == 2", "OnlyPassing": True}, "all": {}},
        "LoadBalancer": {"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 5}},
    }
    assert parse_resolver(entry) == OutsideResolver(
        subsets=(Subset("all"), Subset("v2", parse_filter("Service.Meta.v == 2"), only_passing=True)),
        balancer=LoadBalancer("least_request", choice_count=5),
        connect_timeout=2.0,
        request_timeout=3.0,
    )


def test_no_entry_is_all_defaults() -> None:
    assert parse_resolver(None) == OutsideResolver()
    assert parse_service_defaults(None) == parse_proxy_defaults(None) == Defaults("")


def test_a_destination_by_address_is_told(authority: Authority) -> None:
    gateway = terminating("egress", authority, [{"Name": "ext"}])
    entry = {"Kind": "service-defaults", "Name": "ext", "Destination": {"Addresses": ["10.0.0.1"], "Port": 443}}
    gateway.hear(DefaultsWatch("ext"), entry)
    (problem,) = gateway.snapshot.problems[DefaultsWatch("ext")]
    assert problem.where == "service-defaults ext"
    gateway.hear(DefaultsWatch("ext"), {**entry, "Destination": None})
    assert not gateway.snapshot.problems


def test_a_filter_that_cannot_be_asked_costs_its_subset() -> None:
    bad, good = parse_resolver({"Subsets": {"bad": {"Filter": "Service.Nope == 1"}, "good": {}}}).subsets
    assert bad.filter is None
    assert "Selector 'Service.Nope' is not valid" in bad.broken
    assert good == Subset("good")


def test_protocols_are_lower_case_and_proxy_defaults_has_its_own_in_config() -> None:
    assert parse_service_defaults({"Protocol": "HTTP"}) == Defaults("http")
    assert parse_proxy_defaults({"Config": {"Protocol": "http"}}) == Defaults("http")
    assert parse_proxy_defaults({"Config": None}) == Defaults("")
