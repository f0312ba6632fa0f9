"""An entry between its two forms: every field present with its zero value (to decide on), and as it is read back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from policies.durations import format_duration, parse_nanoseconds
from policies.entries import gotext
from policies.entries.shapes import Bytes, Fraction, Listing, Optional, Shape, Span, Struct, Table, zero
from policies.errors import EntryError


def complete(value: Any, shape: Shape) -> Any:
    """Return a deep copy in which every field of every struct is present; absent lists, maps and options are None.

    Takes what `decode_entry` returns and what is read back alike: durations may be nanoseconds or Go strings.
    """
    match shape:
        case Struct():
            given: Mapping[str, Any] = value or {}
            return {field.name: complete(given.get(field.name), field.shape) for field in shape.fields}
        case Optional(of):
            return None if value is None else complete(value, of)
        case Listing(of):
            if isinstance(of, Optional) and None in (value or ()):
                raise EntryError("null stands for an element of a list: Consul gives no answer to it")
            return None if value is None else [complete(element, of) for element in value]
        case Table(of):
            return None if value is None else {key: complete(element, of) for key, element in value.items()}
        case Span() if isinstance(value, str):
            return parse_nanoseconds(value)
        case Bytes() if isinstance(value, str):
            return base64.b64decode(value)
        case Fraction() if value is not None:
            return gotext.single(value)
        case _:
            return zero(shape) if value is None else value


def render(value: Any, shape: Shape) -> Any:
    """Return a complete value as Consul's JSON shows it."""
    match shape:
        case Struct():
            return {
                field.name: render(value[field.name], field.shape)
                for field in shape.fields
                if not field.hidden and not (field.omit and _is_zero(value[field.name], field.shape))
            }
        case Optional(of):
            return None if value is None else render(value, of)
        case Listing(of):
            return None if value is None else [render(element, of) for element in value]
        case Table(of):
            return None if value is None else {key: render(value[key], of) for key in sorted(value)}
        case Span(text=True):
            return format_duration(value)
        case Fraction():
            return gotext.single_text(value)
        case Bytes():
            return None if value is None else base64.b64encode(value).decode()
        case _:
            return value


def _is_zero(value: Any, shape: Shape) -> bool:
    match shape:
        case Optional():
            return value is None
        case Struct():
            return False
        case _:
            return not value
