from __future__ import annotations

from typing import Any

import pytest

from harness.meshes import instance
from policies.filters import parse_filter
from policies.instances import healthy_endpoints, parse_instances, steadied


def ports(rows: list[dict[str, Any]], *, subset: str = "", only_passing: bool = False) -> list[int]:
    endpoints = healthy_endpoints(
        parse_instances(rows),
        subset=parse_filter(subset) if subset else None,
        only_passing=only_passing,
        local_datacenter="dc1",
    )
    return [endpoint.port for endpoint in endpoints]


def test_the_order_of_the_answer_does_not_matter() -> None:
    rows = [instance("api", 1, 1), instance("api", 2, 2)]
    assert parse_instances(rows) == parse_instances(rows[::-1])


@pytest.mark.parametrize(
    ("status", "only_passing", "taken"),
    [
        ("passing", False, True),
        ("warning", False, True),
        ("critical", False, False),
        ("maintenance", False, False),
        ("passing", True, True),
        ("warning", True, False),
    ],
)
def test_health_decides_who_may_be_dialled(status: str, only_passing: bool, taken: bool) -> None:  # noqa: FBT001
    assert bool(ports([instance("api", 1, status=status)], only_passing=only_passing)) is taken


def test_no_check_at_all_is_healthy() -> None:
    assert ports([{**instance("api", 1), "Checks": []}], only_passing=True) == [1]


def test_one_critical_check_of_the_node_takes_an_instance_out() -> None:
    row = instance("api", 1)
    row["Checks"].append({"CheckID": "serfHealth", "Status": "critical"})
    assert ports([row]) == []


def weight(row: dict[str, Any]) -> list[int]:
    return [
        endpoint.weight
        for endpoint in healthy_endpoints(
            parse_instances([row]), subset=None, only_passing=False, local_datacenter="dc1"
        )
    ]


@pytest.mark.parametrize(
    ("weights", "status", "expected"),
    [
        ({"Passing": 10, "Warning": 2}, "passing", [10]),
        ({"Passing": 10, "Warning": 2}, "warning", [2]),
        ({"Passing": 1000, "Warning": 1}, "passing", [128]),
        ({"Passing": 0, "Warning": 1}, "passing", []),
        (None, "passing", [1]),
    ],
)
def test_weights_follow_health_and_are_bounded(weights: Any, status: str, expected: list[int]) -> None:
    assert weight(instance("api", 1, status=status, Weights=weights)) == expected


def test_the_filter_of_a_subset_looks_at_the_proxys_row() -> None:
    rows = [instance("api", 1, 1, Meta={"version": "v1"}), instance("api", 2, 2, Meta={"version": "v2"})]
    assert ports(rows, subset="Service.Meta.version == v2") == [2]


def test_a_terminating_gateway_is_exempt_from_the_subset() -> None:
    row = instance("api", 1, Kind="terminating-gateway")
    assert ports([row], subset="Service.Meta.version == v2") == [1]


def test_an_instance_without_an_address_has_its_nodes() -> None:
    row = instance("api", 1, Address="")
    row["Node"]["Address"] = "10.1.1.1"
    assert parse_instances([row])[0].address == "10.1.1.1"


def test_an_instance_of_another_datacenter_is_dialled_at_its_wan_address() -> None:
    row = instance("api", 1, TaggedAddresses={"wan": {"Address": "198.51.100.7", "Port": 443}})
    row["Node"]["Datacenter"] = "dc2"
    endpoint = healthy_endpoints(parse_instances([row]), subset=None, only_passing=False, local_datacenter="dc1")[0]
    assert (endpoint.address, endpoint.port) == ("198.51.100.7", 443)


def test_health_that_got_worse_is_not_believed_while_the_agents_checks_have_not_run() -> None:
    before = parse_instances([instance("api", 1, 1), instance("api", 2, 2, "critical"), instance("api", 3, 3)])
    now = parse_instances([instance("api", 1, 1, "critical"), instance("api", 2, 2, "critical"), instance("api", 4, 4)])
    found = steadied(now, before)
    assert [(one.id, one.critical) for one in found] == [
        ("api-1-sidecar-proxy", False),
        ("api-2-sidecar-proxy", True),
        ("api-4-sidecar-proxy", False),
    ]
    assert steadied(now, ()) == now


def test_what_changes_without_meaning_is_not_kept() -> None:
    row, later = instance("api", 1), instance("api", 1)
    later["Service"]["ModifyIndex"] = 99
    later["Checks"][0]["Output"] = "another text"
    assert parse_instances([row]) == parse_instances([later])


def test_an_instance_that_has_not_changed_is_the_object_of_before() -> None:
    before = parse_instances([instance("api", number, number) for number in (1, 2, 3)])
    assert parse_instances([instance("api", number, number) for number in (3, 1, 2)], before) is before
    now = parse_instances([instance("api", 1, 1), instance("api", 2, 2, "critical"), instance("api", 4, 4)], before)
    assert [one is old for one, old in zip(now, before, strict=True)] == [True, False, False]
    assert now == parse_instances([instance("api", 1, 1), instance("api", 2, 2, "critical"), instance("api", 4, 4)])
