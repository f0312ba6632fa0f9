from __future__ import annotations

from typing import Any, cast

import pytest

from dataplane.heads import parse_request
from dataplane.live import Live
from dataplane.plans import MAX_HEAD, MAX_ONCE, MAX_PLANS, Key, Plan, Plans
from harness.certificates import Authority
from harness.halves import swap
from harness.meshes import sidecar
from policies.mesh import Mesh


def key(head: bytes) -> Key:
    return cast("Any", keep), False, "10.0.0.1", b"", head


def plan() -> Plan:
    head = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
    return Plan(parse_request(head), cast("Any", None), head, None)


def keep(plans: Plans, *heads: bytes) -> None:
    for head in heads:
        plans.keep(key(head), plan())


def test_what_comes_once_is_not_kept() -> None:
    plans = Plans()
    keep(plans, b"a", b"b")
    assert not plans.known
    keep(plans, b"a")
    assert list(plans.known) == [key(b"a")]


def test_what_never_comes_again_drives_nothing_out() -> None:
    plans = Plans()
    keep(plans, b"a", b"a", *(b"%d" % number for number in range(MAX_ONCE * 3)))
    assert list(plans.known) == [key(b"a")]


def test_plans_are_few() -> None:
    plans = Plans()
    for number in range(MAX_PLANS * 3):
        keep(plans, b"%d" % number, b"%d" % number)
        assert key(b"%d" % number) in plans.known
        assert len(plans.known) <= MAX_PLANS


@pytest.mark.parametrize(("size", "kept"), [(MAX_HEAD, 1), (MAX_HEAD + 1, 0)])
def test_a_long_head_is_not_kept(size: int, kept: int) -> None:
    plans = Plans()
    keep(plans, b"x" * size, b"x" * size)
    assert len(plans.known) == kept


def test_a_swap_forgets_them(authority: Authority) -> None:
    live, table = Live(), sidecar("web", authority).table()
    swap(live, table, authority.leaf("web"), authority.roots(), Mesh())
    keep(live.plans, b"x", b"x")
    assert live.plans.known
    swap(live, table, authority.leaf("web"), authority.roots(), Mesh())
    assert not live.plans.known
