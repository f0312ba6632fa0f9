"""Fields of an entry, as Consul shows it, that are not known here: a later Consul may have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.entries.schemas import SCHEMAS
from policies.entries.shapes import Listing, Optional, Shape, Struct, Table
from policies.weak import items, mapping

_CONSULS_OWN = frozenset({"CreateIndex", "ModifyIndex"})
_ONLY = {"Namespace": "default", "Partition": "default"}  # what there is without Enterprise


def strangers(kind: str, entry: object) -> tuple[str, ...]:
    """Return the paths of what holds a value and is no field of its kind: `Listeners[0].Quic`."""
    return tuple(_in(SCHEMAS[kind], entry, ""))


def _in(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape:
        case Optional(of):
            yield from _in(of, value, path)
        case Listing(of):
            for at, element in enumerate(items(value)):
                yield from _in(of, element, f"{path}[{at}]")
        case Table(of):
            for key, element in mapping(value).items():
                yield from _in(of, element, f"{path}[{key}]")
        case Struct() if shape.fields:  # one without fields is of Enterprise, and refused as a whole
            shapes = {field.name: field.shape for field in shape.fields}
            for key, element in mapping(value).items():
                where = f"{path}.{key}" if path else key
                if key in shapes:
                    yield from _in(shapes[key], element, where)
                elif element and key not in _CONSULS_OWN and _ONLY.get(key) != element:
                    yield where
