from __future__ import annotations

from typing import Any

import pytest

from policies.errors import FilterError
from policies.filters import MAX_NESTING, parse_filter

ROW: dict[str, Any] = {
    "Node": {"Node": "n1", "Datacenter": "dc1", "Meta": {"rack": "r1"}},
    "Service": {
        "ID": "api-1",
        "Service": "api",
        "Port": 8080,
        "Tags": ["primary", "eu"],
        "Meta": {"version": "v1", "empty": ""},
        "Weights": {"Passing": 10, "Warning": 1},
        "EnableTagOverride": False,
        "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 443}},
        "Proxy": {"DestinationServiceName": "api", "Upstreams": [{"DestinationName": "db", "LocalBindPort": 9191}]},
        "Connect": {},
    },
    "Checks": [{"CheckID": "c1", "Status": "passing"}, {"CheckID": "c2", "Status": "warning"}],
}


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("Service.Meta.version == v1", True),
        ('Service.Meta.version == "v1"', True),
        ("Service.Meta.version == `v1`", True),
        ("Service.Meta.version != v1", False),
        ('Service.Meta["version"] == v1', True),
        ("Service.Meta[`version`] == v1", True),
        ("Service.Meta.missing == x", False),
        ("Service.Meta.missing != x", True),
        ('Service.Meta.missing contains "x"', False),
        ('Service.Meta.missing not contains "x"', True),
        ("Service.Meta.missing matches x", True),
        ("Service.Meta.version matches `v[0-9]`", True),
        ("Service.Meta.version not matches `v[0-9]`", False),
        ("Service.Meta.version contains v", True),
        ("v in Service.Meta.version", True),
        ("x not in Service.Meta.version", True),
        ("version in Service.Meta", True),
        ("nothing not in Service.Meta", True),
        ("Service.Meta is empty", False),
        ("Service.Meta is not empty", True),
        ("Service.Tags is not empty", True),
        ("eu in Service.Tags", True),
        ("Service.Tags contains us", False),
        ("Service.Tags not contains us", True),
        ("Service.Port == 8080", True),
        ("Service.Port != 8080", False),
        ("Service.Weights.Passing == 10", True),
        ("Service.EnableTagOverride == false", True),
        ("Service.EnableTagOverride == T", False),
        ("Service.Connect.Native == 0", True),
        ("Service.TaggedAddresses.wan.Port == 443", True),
        ("Service.TaggedAddresses.lan.Port == 443", False),
        ("Service.TaggedAddresses.lan.Port != 443", True),
        ("Service.Proxy.Upstreams.DestinationName == db", True),
        ("Service.Proxy.Upstreams.LocalBindPort == 1", False),
        ("Checks.Status == warning", True),
        ("Checks.Status == critical", False),
        ("Checks.Status != passing", True),
        ("Checks is empty", False),
        ("Node.Meta.rack == r1 and Service.Port == 8080", True),
        ("Node.Meta.rack == r2 or Service.Port == 8080", True),
        ("Node.Meta.rack == r1 or Service.Port == 1 and Service.Port == 2", True),
        ("(Node.Meta.rack == r1 or Service.Port == 1) and Service.Port == 2", False),
        ("not Service.Port == 1", True),
        ("not not Service.Port == 1", False),
        ("not (Service.Port == 1 or Service.Port == 8080)", False),
        ("Service.PeerName == ``", True),
        ("Service.SocketPath contains x", False),
    ],
)
def test_filters_answer_as_consul_does(text: str, taken: bool) -> None:  # noqa: FBT001
    assert parse_filter(text).matches(ROW) is taken


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a selector or a value was expected"),
        ("Service.Meta.version", "an operator was expected"),
        ("Service.Meta.version = v1", "was expected"),
        ("Service.Meta.version ==", "a value was expected"),
        ("Service.Meta.version == v1 Service.Port == 1", "the end, `and` or `or` was expected"),
        ("Service.Meta.version == v1 and", "a selector or a value was expected"),
        ("(Service.Port == 1", "`)` was expected"),
        ("Service.Nothing == 1", "a row has no such field"),
        ("Service.Meta.version.more == 1", "a row has no such field"),
        ("Service == api", "this field cannot be asked so"),
        ("Service.Meta == api", "this field cannot be asked so"),
        ("Service.Tags == api", "this field cannot be asked so"),
        ("Service.Service is empty", "this field cannot be asked so"),
        ("Service.Port matches 1", "only == and != can be asked"),
        ("Service.Port == x", "is no whole number"),
        ("Service.Port == 1.5", "is no whole number"),
        ("Service.EnableTagOverride == maybe", "neither true nor false"),
        ("Service.Meta.version matches `(`", "is not RE2"),
        ("Service.Port == 08", "invalid number literal"),
        ("Service.Meta.version == v-1", "put it in quotes"),
        ("Service.Meta.version == %", "a selector, a value or an operator was expected"),
        ("Service.Meta.version not == v1", "an operator was expected"),
        ("Service.Meta.version is full", "an operator was expected"),
        ("Service.Meta.version v1", "an operator was expected"),
        ("1 in 2", "a selector such as Service.Meta.version was expected"),
        ('"quoted" == x', "a selector such as Service.Meta.version was expected"),
        ("== x", "a selector or a value was expected"),
    ],
)
def test_what_consul_would_refuse_is_an_error_that_shows_the_filter(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def test_parentheses_nest_up_to_the_limit() -> None:
    inner = "Service.Port == 8080"
    assert parse_filter("(" * MAX_NESTING + inner + ")" * MAX_NESTING).matches(ROW)
    with pytest.raises(FilterError, match="nests deeper than 32"):
        parse_filter("(" * (MAX_NESTING + 1) + inner + ")" * (MAX_NESTING + 1))


def test_a_long_filter_is_read_in_linear_time() -> None:
    text = " or ".join(["Service.Port == 1"] * 5000)
    assert not parse_filter(text).matches(ROW)


def test_null_collections_are_empty_ones() -> None:
    row = {"Node": None, "Service": {"Tags": None, "Meta": None}, "Checks": None}
    assert not parse_filter("eu in Service.Tags").matches(row)
    assert parse_filter("Service.Tags is empty").matches(row)
    assert not parse_filter("Service.Meta.version == v1").matches(row)
    assert not parse_filter("Checks.Status == passing").matches(row)
    assert not parse_filter("Node.Node == n1").matches(row)


def test_filters_are_equal_by_their_text() -> None:
    assert parse_filter("Service.Port == 1") == parse_filter("Service.Port == 1")


@pytest.mark.parametrize("number", ["1" * 20, "1" * 5000])
def test_a_number_larger_than_any_is_refused_as_a_filter(number: str) -> None:
    with pytest.raises(FilterError, match="whole number"):
        parse_filter(f"Service.Port == {number}")
