"""The reducer over any sequence of answers: replay, order, and garbage that costs only itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.certificates import Authority
from harness.meshes import chain, instance, intention, link, sidecar, split_chain, target_row, terminating
from policies.compiler import compile_table
from policies.reducer import apply
from policies.snapshot import Snapshot
from policies.updates import Heard
from policies.wanted import wanted
from policies.watches import (
    ChainWatch,
    DefaultsWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IntentionsWatch,
    MeshWatch,
    OutsideWatch,
    ResolverWatch,
    TerminatingWatch,
)

AUTHORITY = Authority()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["Type", "Nodes", "x"]), inner),
    max_leaves=5,
)
API = ChainWatch("api", "api")
UPDATES = st.one_of(
    st.sampled_from([chain("api"), split_chain("api", {"v1": 50, "v2": 50}), chain("api", "tcp")]).map(
        lambda answer: Heard(API, answer)
    ),
    st.integers(0, 2).map(
        lambda count: Heard(EndpointsWatch("api"), [instance("api", 1 + number, number) for number in range(count)])
    ),
    st.sampled_from(["allow", "deny"]).map(
        lambda action: Heard(IntentionsWatch("web"), [{"SourceName": "*", "DestinationName": "web", "Action": action}])
    ),
    st.tuples(st.sampled_from([API, EndpointsWatch("api"), MeshWatch()]), JSON).map(lambda pair: Heard(*pair)),
)


def replay(updates: list[Any]) -> Snapshot:
    snapshot = sidecar("web", AUTHORITY, upstreams={"api": 9191}).snapshot
    for update in updates:
        snapshot = apply(snapshot, update)
    return snapshot


@settings(max_examples=60)
@given(st.lists(UPDATES, max_size=6))
def test_whatever_is_heard_what_is_kept_was_asked_for_and_compiles(updates: list[Any]) -> None:
    snapshot = replay(updates)
    assert set(snapshot.heard) <= wanted(snapshot)
    table, _ = compile_table(snapshot)
    for outbound in table.outbounds.values():
        for route in outbound.routes:
            assert all(leg.clusters for leg in route.legs)
    assert compile_table(snapshot)[0] == table


@settings(max_examples=60)
@given(st.lists(UPDATES, max_size=6))
def test_hearing_the_last_answer_again_changes_nothing(updates: list[Any]) -> None:
    snapshot = replay(updates)
    if updates:
        assert apply(snapshot, updates[-1]) == apply(apply(snapshot, updates[-1]), updates[-1])


CHAINS = st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("abcd"), max_size=3))


@settings(max_examples=60)
@given(st.lists(CHAINS | st.sampled_from("abcd"), max_size=12))
def test_what_is_asked_for_is_what_the_chains_that_were_heard_name(steps: list[Any]) -> None:
    member = sidecar("web", AUTHORITY, upstreams={"a": 1, "b": 2, "c": 3})
    fixed, named = wanted(member.snapshot), dict[str, set[str]]()
    for step in steps:
        if isinstance(step, str):
            member.hear(EndpointsWatch(step), [instance(step, 1)])
            continue
        service, others = step
        answer = chain(service)
        answer["Targets"] |= {row["ID"]: row for row in map(target_row, others)}
        member.hear(ChainWatch(service, service), answer)
        named[service] = {service, *others}
    expected = {EndpointsWatch(name) for names in named.values() for name in names}
    assert wanted(member.snapshot) == fixed | expected
    assert set(member.snapshot.heard) <= fixed | expected


OUTSIDE = st.one_of(
    st.tuples(
        st.sampled_from([IntentionsWatch("ext"), OutsideWatch("ext"), ResolverWatch("ext"), DefaultsWatch("ext")]), JSON
    ),
    st.tuples(st.sampled_from([TerminatingWatch("egress"), GatewayServicesWatch("egress"), MeshWatch()]), JSON),
    st.lists(st.sampled_from(["ext", "*", "other", ""]), max_size=3).map(
        lambda names: (TerminatingWatch("egress"), {"Name": "egress", "Services": [{"Name": name} for name in names]})
    ),
    st.lists(st.sampled_from(["ext", "", "*", "a/b"]), max_size=3).map(
        lambda names: (GatewayServicesWatch("egress"), [{"Service": {"Name": name}} for name in names])
    ),
    st.sampled_from(["allow", "deny"]).map(lambda action: (IntentionsWatch("ext"), [intention("*", "ext", action)])),
)


@settings(max_examples=100)
@given(st.lists(OUTSIDE, max_size=6))
def test_whatever_a_terminating_gateway_hears_only_what_is_linked_and_known_is_open(heard: list[Any]) -> None:
    member = link(terminating("egress", AUTHORITY, [{"Name": "ext"}]), "ext", [1], intentions=[])
    for watch, answer in heard:
        member.hear(watch, answer)
    snapshot = member.snapshot
    assert set(snapshot.heard) <= wanted(snapshot)
    assert set(snapshot.leaves) <= set(snapshot.links)
    table, _ = compile_table(snapshot)
    assert table.egress is not None
    for chain_ in table.egress.chains.values():
        assert chain_.service in snapshot.links
        assert chain_.intentions is snapshot.intentions_of(chain_.service)
    assert compile_table(snapshot, table)[0].egress is table.egress
