"""Chains of our own compiler: they end, name nothing that is not there, and do not depend on the order of writes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.chain import parse_chain
from policies.discovery import check_graph, compile_chain
from policies.entries import Entries, decode_entry, entry_name, normalise_entry
from policies.errors import EntryError

NAME = st.sampled_from(["a", "b", "c"])
MAYBE = st.sampled_from(["", "a", "b", "c"])
SUBSET = st.sampled_from(["", "", "v1"])


@st.composite
def chain_entries(draw: st.DrawFn) -> dict[str, Any]:
    """Return a router, splitter or resolver over few names."""
    name, place = draw(NAME), {"Service": draw(MAYBE), "ServiceSubset": draw(SUBSET)}
    kind = draw(st.sampled_from(["service-router", "service-splitter", "service-resolver"]))
    weight = draw(st.integers(0, 100))
    legs = [{"Weight": weight, **place}, {"Weight": 100 - weight, "Service": draw(MAYBE)}]
    also = [{}, {"DefaultSubset": "v1"}, {"Redirect": place}, {"Failover": {"*": {"Targets": [place]}}}]
    fields: dict[str, dict[str, Any]] = {
        "service-router": {"Routes": [{"Destination": place}]},
        "service-splitter": {"Splits": legs},
        "service-resolver": {"Subsets": {"v1": {}}, **draw(st.sampled_from(also))},
    }
    return {"Kind": kind, "Name": name, **fields[kind]}


def written(raw: list[dict[str, Any]]) -> Entries:
    """Return the entries after all writes that are taken."""
    stored = Entries().put({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
    for one in raw:
        try:
            entry = normalise_entry(decode_entry(one))
            after = stored.put(entry)
            check_graph(stored, after, entry["Kind"], entry_name(entry), trust_domain="td")
        except EntryError:
            continue
        stored = after
    return stored


def chain(stored: Entries, service: str, **overrides: Any) -> dict[str, Any]:
    return compile_chain(stored, service, datacenter="dc1", trust_domain="td", **overrides)


@given(st.lists(chain_entries(), max_size=10))
def test_what_the_checks_let_through_compiles_to_a_closed_graph_without_circles(raw: list[dict[str, Any]]) -> None:
    stored = written(raw)
    for service in ("a", "b", "c", "d"):
        compiled = chain(stored, service)
        parsed = parse_chain(compiled)
        assert parsed.start in parsed.nodes
        used = {node["Resolver"]["Target"] for node in compiled["Nodes"].values() if "Resolver" in node}
        assert used <= set(compiled["Targets"])


@given(st.lists(chain_entries(), max_size=10))
def test_no_leg_of_a_splitter_leads_to_a_splitter(raw: list[dict[str, Any]]) -> None:
    stored = written(raw)
    for service in ("a", "b", "c"):
        nodes = chain(stored, service)["Nodes"]
        for node in nodes.values():
            below = [nodes[split["NextNode"]]["Type"] for split in node.get("Splits", ())]
            assert set(below) <= {"resolver"}


@given(st.lists(chain_entries(), max_size=10))
def test_shares_of_a_splitter_are_a_hundred_within_rounding(raw: list[dict[str, Any]]) -> None:
    stored = written(raw)
    for service in ("a", "b", "c"):
        for node in chain(stored, service)["Nodes"].values():
            weights = [split.get("Weight", 0) for split in node.get("Splits", ())]
            assert not weights or abs(sum(weights) - 100) <= 0.01 * len(weights)


@given(st.lists(chain_entries(), max_size=8), st.randoms(use_true_random=False))
def test_a_chain_depends_on_the_entries_not_on_the_order_of_writes(raw: list[dict[str, Any]], order: Any) -> None:
    stored = written(raw)
    held = [
        entry for kind in ("service-router", "service-splitter", "service-resolver") for entry in stored.of_kind(kind)
    ]
    order.shuffle(held)
    again = Entries([*stored.of_kind("proxy-defaults"), *held])
    assert again == stored
    assert [chain(again, service) for service in ("a", "b", "c")] == [
        chain(stored, service) for service in ("a", "b", "c")
    ]


@given(st.lists(chain_entries(), max_size=8), NAME)
def test_a_tcp_override_leaves_neither_router_nor_splitter(raw: list[dict[str, Any]], service: str) -> None:
    compiled = chain(written(raw), service, override_protocol="tcp")
    assert {node["Type"] for node in compiled["Nodes"].values()} == {"resolver"}
    assert compiled["Protocol"] == "tcp"


@given(st.lists(chain_entries(), max_size=8))
def test_entries_that_the_chain_does_not_name_never_change_it(raw: list[dict[str, Any]]) -> None:
    stored = written(raw)
    stranger = stored.put({"Kind": "service-resolver", "Name": "stranger", "ConnectTimeout": "1s"})
    assert chain(stranger, "a") == chain(stored, "a")
