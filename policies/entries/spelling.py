"""What a writer probably meant by a kind or a field that there is not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from policies.entries.schemas import SCHEMAS
from policies.entries.shapes import Listing, Optional, Shape, Struct, Table

_CONSULS_OWN = frozenset({"Hash", "RaftIndex"})
_INDEX = re.compile(r"\[[^\]]*\]")


def meant_kind(kind: str) -> str:
    """Return advice on a kind that there is not."""
    return _advice(kind, SCHEMAS)


def meant_field(kind: str, path: str) -> str:
    """Return advice on a field that there is not, "" if none. `path` is as in Consul's errors: `Splits[1].Wieght`."""
    *above, last = _INDEX.sub("", path).split(".")
    shape: Shape | None = _plain(SCHEMAS[kind])
    for step in above:
        fields = shape.fields if isinstance(shape, Struct) else ()
        shape = next((_plain(field.shape) for field in fields if field.name == step), None)
    return _advice(last, (field.name for field in shape.fields)) if isinstance(shape, Struct) else ""


def _plain(shape: Shape) -> Shape:
    """Return what a list, a map or an optional value is of."""
    while isinstance(shape, Listing | Optional | Table):
        shape = shape.of
    return shape


def _advice(word: str, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known if name not in _CONSULS_OWN}
    near = difflib.get_close_matches(word.replace("_", "").lower(), names, 1)
    return f"did you mean {names[near[0]]}?" if near else f"known here: {', '.join(names.values())}"
