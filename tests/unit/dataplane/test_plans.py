from __future__ import annotations

from typing import Any, cast

import pytest

from dataplane.heads import parse_request
from dataplane.live import Live
from dataplane.plans import MAX_HEAD, MAX_PLANS, Key, Plan, Plans
from harness.certificates import Authority
from harness.meshes import sidecar
from policies.mesh import Mesh


def key(head: bytes) -> Key:
    return cast("Any", test_plans_are_few), False, "10.0.0.1", b"", head


def plan() -> Plan:
    head = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"
    return Plan(parse_request(head), cast("Any", None), head, None)


def test_plans_are_few() -> None:
    plans = Plans()
    for number in range(MAX_PLANS * 3):
        plans.keep(key(b"%d" % number), plan())
        assert key(b"%d" % number) in plans.known
        assert len(plans.known) <= MAX_PLANS


@pytest.mark.parametrize(("size", "kept"), [(MAX_HEAD, 1), (MAX_HEAD + 1, 0)])
def test_a_long_head_is_not_kept(size: int, kept: int) -> None:
    plans = Plans()
    plans.keep(key(b"x" * size), plan())
    assert len(plans.known) == kept


def test_a_swap_forgets_them(authority: Authority) -> None:
    live, table = Live(), sidecar("web", authority).table()
    live.swap(table, authority.leaf("web"), authority.roots(), Mesh())
    live.plans.keep(key(b"x"), plan())
    live.swap(table, authority.leaf("web"), authority.roots(), Mesh())
    assert not live.plans.known
