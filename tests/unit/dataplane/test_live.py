from __future__ import annotations

import pytest

from dataplane.live import Live
from harness.certificates import Authority
from harness.meshes import sidecar
from policies.errors import BadLeaf
from policies.mesh import Mesh


def test_a_swap_is_one_reference_and_everybody_is_told_in_order(authority: Authority) -> None:
    live, told = Live(), []
    end = live.subscribe(lambda generation: told.append(generation.number))
    table, leaf, roots = sidecar("web", authority).table(), authority.leaf("web"), authority.roots()
    first = live.swap(table, leaf, roots, Mesh())
    second = live.swap(table, leaf, roots, Mesh())
    end()
    third = live.swap(table, authority.leaf("web"), roots, Mesh())
    assert told == [1, 2]
    assert live.current is third
    assert first.contexts is second.contexts
    assert third.contexts is not second.contexts
    assert first.leaf_ends == leaf.not_after.timestamp()


def test_a_leaf_that_does_not_fit_leaves_the_old_generation(authority: Authority, stranger: Authority) -> None:
    live = Live()
    table = sidecar("web", authority).table()
    first = live.swap(table, authority.leaf("web"), authority.roots(), Mesh())
    with pytest.raises(BadLeaf, match="cannot be used"):
        live.swap(table, authority.leaf("web"), stranger.roots(), Mesh())
    assert live.current is first
