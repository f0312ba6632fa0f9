from __future__ import annotations

import ipaddress

import pytest

from policies.edge.forwarding import (
    client_chain,
    forwarded_value,
    is_request_id,
    is_traceparent,
    is_within,
)

TRUSTED = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8::/32")))


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("2001:db8::1%eth0", True),
        ("unknown", False),
        ("", False),
    ],
)
def test_who_is_trusted_is_told_by_networks(address: str, within: bool) -> None:  # noqa: FBT001 - a table
    assert is_within(address, TRUSTED) is within
    assert not is_within(address, ())


@pytest.mark.parametrize(
    ("said", "chain"),
    [
        ([], ("10.0.0.1",)),
        (["192.0.2.1"], ("192.0.2.1", "10.0.0.1")),
        (["6.6.6.6, 192.0.2.1"], ("192.0.2.1", "10.0.0.1")),  # the client's own claim stands left of it
        (["6.6.6.6", "192.0.2.1"], ("192.0.2.1", "10.0.0.1")),
        (["192.0.2.1, 10.9.9.9"], ("192.0.2.1", "10.9.9.9", "10.0.0.1")),
        (["6.6.6.6, 192.0.2.1, 10.9.9.9", "10.8.8.8"], ("192.0.2.1", "10.9.9.9", "10.8.8.8", "10.0.0.1")),
        (["10.9.9.9"], ("10.9.9.9", "10.0.0.1")),
        (["unknown, 10.9.9.9"], ("10.9.9.9", "10.0.0.1")),
        (["_hidden"], ("10.0.0.1",)),
        (["192.0.2.1, "], ("10.0.0.1",)),
        (["192.0.2.1:4711"], ("192.0.2.1", "10.0.0.1")),
        (["[2001:db9::7]:4711"], ("2001:db9::7", "10.0.0.1")),
        (["2001:DB9::7"], ("2001:db9::7", "10.0.0.1")),
        (["::ffff:192.0.2.1"], ("192.0.2.1", "10.0.0.1")),
        (["1.2.3.4.5"], ("10.0.0.1",)),
        (["192.0.2.1\x00"], ("10.0.0.1",)),
    ],
)
def test_the_client_is_the_last_that_a_trusted_hop_names(said: list[str], chain: tuple[str, ...]) -> None:
    assert client_chain(said, "10.0.0.1", TRUSTED) == chain


def test_forwarded_is_written_by_the_letter() -> None:
    assert (
        forwarded_value(("192.0.2.1", "2001:db8::1"), "shop.example:8443", "https")
        == 'for=192.0.2.1, for="[2001:db8::1]";host="shop.example:8443";proto=https'
    )


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "values",
    [[GOOD], [GOOD[:-2] + "00"], [GOOD[:-2] + "ff"], ["01" + GOOD[2:]], ["cc" + GOOD[2:] + "-what-will-be"]],
)
def test_a_traceparent_of_this_version_or_a_later_one_is_good(values: list[str]) -> None:
    assert is_traceparent(values)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [GOOD, GOOD],
        [GOOD + ","],
        [GOOD + "-x"],
        [GOOD.upper()],
        ["ff" + GOOD[2:]],
        ["cc" + GOOD[2:] + ".x"],
        ["00-" + "0" * 32 + GOOD[35:]],
        [GOOD[:36] + "0" * 16 + "-01"],
        [GOOD[:-1]],
        [""],
    ],
)
def test_any_other_is_not(values: list[str]) -> None:
    assert not is_traceparent(values)


def test_a_request_id_is_one_visible_word() -> None:
    assert is_request_id(["2f1c-7"])
    for values in ([], ["a", "b"], [""], ["a b"], ["a\xff"], ["a" * 129]):
        assert not is_request_id(values)
