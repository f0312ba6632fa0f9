from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane.live import Generation, Live
from harness.certificates import Authority
from harness.halves import swap
from harness.meshes import intention, sidecar, upstream
from policies.errors import BadLeaf
from policies.identity import Leaf, Roots
from policies.mesh import Mesh, TlsLimits
from policies.table import Table
from policies.watches import IntentionsWatch, RootsWatch


def follow(live: Live, table: Table, leaf: Leaf, roots: Roots, mesh: Mesh) -> Generation | None:
    """Prepare and put in force, as the process does."""
    generation = live.prepare(table, leaf, roots, mesh)
    if generation is not None:
        live.put_in_force(generation)
    return generation


def test_a_swap_is_one_reference_and_everybody_is_told_in_order(authority: Authority) -> None:
    live, told = Live(), []
    end = live.subscribe(lambda generation: told.append(generation.number))
    table, leaf, roots = sidecar("web", authority).table(), authority.leaf("web"), authority.roots()
    first = swap(live, table, leaf, roots, Mesh())
    second = swap(live, table, leaf, roots, Mesh())
    end()
    third = swap(live, table, authority.leaf("web"), roots, Mesh())
    assert told == [1, 2]
    assert live.current is third
    assert first.contexts is second.contexts
    assert third.contexts is not second.contexts
    assert first.leaf_ends == leaf.not_after.timestamp()


def test_a_leaf_that_does_not_fit_leaves_the_old_generation(authority: Authority, stranger: Authority) -> None:
    live = Live()
    table = sidecar("web", authority).table()
    first = swap(live, table, authority.leaf("web"), authority.roots(), Mesh())
    with pytest.raises(BadLeaf, match="cannot be used"):
        swap(live, table, authority.leaf("web"), stranger.roots(), Mesh())
    assert live.current is first


def test_who_may_call_does_not_wait_for_a_leaf_that_fits(authority: Authority, stranger: Authority) -> None:
    live, member = Live(), sidecar("web", authority)
    leaf, roots, wrong = authority.leaf("web"), authority.roots(), stranger.roots()
    first = follow(live, member.table(), leaf, roots, Mesh())
    assert first is not None
    assert follow(live, member.table(), leaf, wrong, Mesh()) is None
    denied = member.hear(IntentionsWatch("web"), [intention("*", "web", "deny")]).table()
    second = follow(live, denied, leaf, wrong, Mesh())
    assert second is live.current
    assert second is not None
    assert (second.table, second.contexts, second.roots) == (denied, first.contexts, roots)
    assert follow(live, denied, leaf, wrong, Mesh()) is None


def test_tls_versions_that_do_not_fit_each_other_leave_the_ones_of_before(authority: Authority) -> None:
    live, member = Live(), sidecar("web", authority)
    leaf, roots = authority.leaf("web"), authority.roots()
    follow(live, member.table(), leaf, roots, Mesh())
    apart = Mesh(TlsLimits(minimum="TLSv1_3"), TlsLimits(maximum="TLSv1_2"))
    denied = member.hear(IntentionsWatch("web"), [intention("*", "web", "deny")]).table()
    after = follow(live, denied, leaf, roots, apart)
    assert after is not None
    assert (after.table, after.mesh) == (denied, Mesh())


def test_of_another_trust_domain_only_the_inbound_half_is_put_in_force(
    authority: Authority, stranger: Authority
) -> None:
    live, member = Live(), upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    leaf = authority.leaf("web")
    follow(live, member.table(), leaf, authority.roots(), Mesh())
    assert live.current is not None
    known = live.current.table.outbounds
    elsewhere = replace(stranger.roots(), trust_domain="elsewhere.consul")
    member.hear(RootsWatch(), {"TrustDomain": "elsewhere.consul", "Roots": [{"RootCert": stranger.pem}]})
    moved = member.hear(IntentionsWatch("web"), [intention("*", "web", "deny")]).table()
    after = follow(live, moved, leaf, elsewhere, Mesh())
    assert after is not None
    assert moved.outbounds != known
    assert (after.table.inbound, after.table.outbounds) == (moved.inbound, known)


def test_without_a_first_leaf_that_fits_nothing_is_in_force(authority: Authority, stranger: Authority) -> None:
    live = Live()
    assert follow(live, sidecar("web", authority).table(), authority.leaf("web"), stranger.roots(), Mesh()) is None
    assert live.current is None


def test_what_is_prepared_is_not_in_force_before_it_is_put_there(authority: Authority) -> None:
    live, member = Live(), sidecar("web", authority)
    leaf, roots = authority.leaf("web"), authority.roots()
    first = live.prepare(member.table(), leaf, roots, Mesh())
    assert first is not None
    assert live.current is None
    live.put_in_force(first)
    assert live.current is first
    renewed = live.prepare(member.table(), authority.leaf("web"), roots, Mesh())
    assert renewed is not None
    assert (live.current, renewed.contexts is first.contexts) == (first, False)
    live.put_in_force(renewed)
    with pytest.raises(AssertionError, match="prepared for another generation"):
        live.put_in_force(renewed)
