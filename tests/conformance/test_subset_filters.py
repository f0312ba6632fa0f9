"""Subset filters against the server that they come from: every filter asked of Consul and of our own parser."""

from __future__ import annotations

import urllib.error
from urllib.parse import quote

import pytest

from harness.servers import ConsulServer
from policies.errors import FilterError
from policies.filters import parse_filter

NAME = "filtered"
FILTERS = [
    "Service.Meta.version == v1",
    "Service.Meta.version != v1",
    "Service.Meta.missing == x",
    "Service.Meta.missing != x",
    "Service.Meta.version matches `v[0-9]`",
    "Service.Meta.version not matches `v[0-9]`",
    "version in Service.Meta",
    "missing not in Service.Meta",
    "Service.Meta is empty",
    "Service.Tags is not empty",
    "eu in Service.Tags",
    "Service.Tags not contains us",
    "Service.Tags contains eu",
    "Service.Port == 2001",
    "Service.Port != 2001",
    "Service.Weights.Passing == 1",
    "Checks.Status == passing",
    "Checks is empty",
    "Node.Datacenter == dc1",
    "not Service.Port == 2001",
    "not (Service.Port == 2001 or Service.Port == 2002)",
    "Service.Port == 2001 or Service.Port == 2002 and Service.Meta.version == v1",
    "(Service.Port == 2001 or Service.Port == 2002) and Service.Meta.version == v1",
    'Service.Meta["version"] == "v1"',
    "Service.Proxy.DestinationServiceName == filtered",
    "Service.Kind == `connect-proxy`",
    "Service.EnableTagOverride == false",
    "Service.Meta.version contains v",
    "Service.Connect.Native == true",
    # what both refuse
    "",
    "Service.Nothing == 1",
    "Service.Meta == x",
    "Service.Port matches x",
    "Service.Port == x",
    "Service.Meta.version = v1",
    "Service.Meta.version ==",
    "Service.Meta.version matches `(`",
    "(Service.Port == 1",
    "Service.Tags == eu",
    "Service.Meta.version == v-1",
]


@pytest.fixture(scope="module", autouse=True)
def rows(consul: ConsulServer) -> None:
    for number in (1, 2):
        consul.api(
            "agent/service/register",
            "PUT",
            {
                "Kind": "connect-proxy",
                "Name": f"{NAME}-proxy",
                "ID": f"{NAME}-{number}",
                "Port": 2000 + number,
                "Tags": ["eu"] if number == 1 else [],
                "Meta": {"version": f"v{number}"} if number == 1 else {},
                "Proxy": {"DestinationServiceName": NAME},
            },
        )
    consul.program.wait_until(lambda: len(consul.api(f"health/connect/{NAME}")) == 2)  # an agent syncs a moment later


@pytest.mark.parametrize("text", FILTERS)
def test_our_answer_is_the_servers(consul: ConsulServer, text: str) -> None:
    everything = consul.api(f"health/connect/{NAME}")
    assert len(everything) == 2
    try:
        theirs: list[int] | None = sorted(
            row["Service"]["Port"] for row in consul.api(f"health/connect/{NAME}?filter={quote(text)}")
        )
    except urllib.error.HTTPError:
        theirs = None
    try:
        parsed = parse_filter(text)
        ours: list[int] | None = sorted(row["Service"]["Port"] for row in everything if parsed.matches(row))
    except FilterError:
        ours = None
    if not text:
        theirs = None  # an empty ?filter is none at all; an empty filter of a subset is never parsed
    assert ours == theirs
