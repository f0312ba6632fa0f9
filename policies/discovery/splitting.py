"""Splitters that lead to splitters: their legs are multiplied out until none is left.

Weights are 32-bit floats cut to hundredths of a percent at every step, as Consul has them. With three or more nested
splitters Consul's steps run at random, so its last digit is random; here the outermost splitter goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.entries.check_chains import normal_weight
from policies.entries.gotext import single, single_text

Node = dict[str, Any]


def flatten_splitters(nodes: Mapping[str, Node]) -> None:
    """Replace, in place, every leg that leads to a splitter by that splitter's legs."""
    changed = True
    while changed:
        changed = False
        for node in nodes.values():
            if node["Type"] == "splitter" and any(
                nodes[leg["NextNode"]]["Type"] == "splitter" for leg in node["Splits"]
            ):
                node["Splits"] = [flat for leg in node["Splits"] for flat in _flat_legs(leg, nodes[leg["NextNode"]])]
                changed = True


def _flat_legs(leg: Mapping[str, Any], below: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if below["Type"] != "splitter":
        return [leg]
    return [
        {
            "Definition": _merged_definition(leg["Definition"], inner["Definition"]),
            "Weight": single_text(normal_weight(_share(leg["Weight"], inner["Weight"]))),
            "NextNode": inner["NextNode"],
        }
        for inner in below["Splits"]
    ]


def _share(outer: float, inner: float) -> float:
    return single(single(single(outer) * single(inner)) / 100.0)


def _merged_definition(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inner definition with the outer's header modifiers.

    A request passes the outer splitter first, so the inner one overrides; a response passes it last.
    """
    merged = {key: value for key, value in inner.items() if key not in {"RequestHeaders", "ResponseHeaders"}}
    pairs = {
        "RequestHeaders": (outer.get("RequestHeaders"), inner.get("RequestHeaders")),
        "ResponseHeaders": (inner.get("ResponseHeaders"), outer.get("ResponseHeaders")),
    }
    for field, (base, overrides) in pairs.items():
        modifiers = _merged_modifiers(base, overrides)
        if modifiers is not None:
            merged[field] = modifiers
    return merged


def _merged_modifiers(base: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not base:
        return overrides
    if not overrides:
        return base
    removed = [*base.get("Remove", ())]
    removed += [name for name in overrides.get("Remove", ()) if name not in base.get("Remove", ())]
    merged = {
        "Add": {**base.get("Add", {}), **overrides.get("Add", {})},
        "Set": {**base.get("Set", {}), **overrides.get("Set", {})},
        "Remove": removed,
    }
    return {key: value for key, value in merged.items() if value}
