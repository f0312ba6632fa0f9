"""Which of the instances outside are dialled when some of them are names, and what stands for a name."""

from __future__ import annotations

from dataclasses import replace

from policies.balance import Endpoint
from policies.egress.host_names import dialled, is_name, resolved

IP = Endpoint("n/1", "10.0.0.1", 443)
ONE = Endpoint("n/2", "one.example.com", 443)
TWO = Endpoint("n/3", "two.example.com", 8443, weight=3)
NAMED = tuple(replace(one, host=one.address) for one in (ONE, TWO))


def test_what_is_no_ip_is_a_name() -> None:
    assert not any(map(is_name, ("10.0.0.1", "::1", "2001:db8::1")))
    assert all(map(is_name, ("localhost", "10.0.0.1.example", "10.0.0", "[::1]")))


def test_ips_alone_are_all_dialled() -> None:
    both = (IP, Endpoint("n/4", "2001:db8::1", 443))
    assert dialled(both, strict=False) is both
    assert dialled(both, strict=True) is both


def test_of_names_and_ips_the_first_name_alone_is_dialled() -> None:
    assert dialled((IP, ONE, TWO), strict=False) == NAMED[:1]


def test_with_strict_dns_all_names_are_and_still_no_ip() -> None:
    assert dialled((IP, ONE, TWO), strict=True) == NAMED


def addresses(name: str) -> tuple[str, ...]:
    return {"one.example.com": ("192.0.2.1", "2001:db8::1")}.get(name, ())


def test_a_name_is_one_endpoint_and_one_without_an_address_gives_way_to_others() -> None:
    assert resolved((IP, *NAMED), addresses, strict=False) == (IP, NAMED[0])


def test_names_without_any_address_stay_to_fail_when_they_are_dialled() -> None:
    for strict in (False, True):
        assert resolved(NAMED, lambda _: (), strict=strict) == NAMED


def test_with_strict_dns_each_address_is_an_endpoint_with_the_weight_of_its_instance() -> None:
    assert resolved((IP, *NAMED), addresses, strict=True) == (
        IP,
        Endpoint("n/2", "192.0.2.1", 443, 1, "one.example.com"),
        Endpoint("n/2", "2001:db8::1", 443, 1, "one.example.com"),
    )
