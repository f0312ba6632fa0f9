from __future__ import annotations

import pytest

from policies.chain import Target
from policies.snapshot import Role, Snapshot
from policies.wanted import chain_watches, endpoint_watch, missing, of_links, of_role, waiting, wanted
from policies.watches import ChainWatch, EndpointsWatch, MeshWatch, OutsideWatch, RegistrationWatch, RootsWatch, Watch


def target(service: str, datacenter: str) -> Target:
    return Target("id", service, "", datacenter, sni="", filter=None, only_passing=False, connect_timeout=5.0)


@pytest.mark.parametrize("role", Role)
def test_who_has_heard_nothing_asks_who_it_is(role: Role) -> None:
    empty = Snapshot(role, "a-proxy")
    assert wanted(empty) == {RootsWatch(), MeshWatch(), RegistrationWatch("a-proxy")}
    assert (tuple(of_role(empty)), tuple(of_links(empty)), chain_watches(empty)) == ((), (), {})
    assert set(missing(empty)) == {"CA roots", "leaf certificate", "mesh entry", "registration a-proxy"}
    assert waiting(empty) == ()


@pytest.mark.parametrize(
    ("datacenter", "here", "expected"),
    [
        ("", "dc1", EndpointsWatch("api")),
        ("dc1", "dc1", EndpointsWatch("api")),
        ("dc1", "", EndpointsWatch("api")),
        ("dc2", "dc1", EndpointsWatch("api", "dc2")),
    ],
)
def test_instances_are_asked_for_where_they_are(datacenter: str, here: str, expected: Watch) -> None:
    assert endpoint_watch(ChainWatch("key", "api"), target("api", datacenter), here) == expected


def test_behind_a_forward_proxy_the_instances_of_the_gateway_itself_are_meant() -> None:
    watch = ChainWatch("key", "egress", forward_proxy=True)
    assert endpoint_watch(watch, target("egress", "dc1"), "dc1") == OutsideWatch("egress")
