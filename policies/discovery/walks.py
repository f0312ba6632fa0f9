"""Walks over the graph of a chain: circles, what is used, how a node is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.errors import ChainError
from policies.weak import items

Node = dict[str, Any]


def _below(node: Node) -> list[str]:
    return [str(part["NextNode"]) for part in items(node.get("Routes") or node.get("Splits"))]


def refuse_circles(nodes: Mapping[str, Node], start: str) -> None:
    """Refuse splitters that lead back to themselves. Walks the last leg first, as Consul's stack does."""
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            raise ChainError(f"detected circular reference: [{' -> '.join([*path, name])}]")
        path.append(name)
        for below in reversed(_below(nodes[name])):
            visit(below)
        path.pop()

    visit(start)


def reachable(nodes: Mapping[str, Node], start: str) -> set[str]:
    """Return the names of the nodes that a walk from `start` meets."""
    found: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _below(nodes[name])
    return found


def shown_node(node: Node) -> Node:
    """Return the node without what Consul's JSON leaves out: a weight of zero."""
    if node["Type"] != "splitter":
        return node
    splits = [{key: value for key, value in leg.items() if value} for leg in node["Splits"]]
    return {**node, "Splits": splits}
