"""Weak conversion of single values: what stands for a string, a number, a boolean, a duration.

Source: mapstructure 1.5 with weak input; numbers of JSON are 64-bit floats there.
"""

from __future__ import annotations

import re
from typing import Any

from policies.durations import parse_nanoseconds
from policies.entries import gotext
from policies.entries.shapes import Bytes, Flag, Fraction, Shape, Span, Text, Whole
from policies.errors import EntryError

_NUMBERS = (bool, int, float)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Refused(Exception):
    """Errors of one value, to be gathered."""

    def __init__(self, *errors: str) -> None:
        super().__init__(*errors)
        self.errors = errors


def scalar(name: str, data: Any, shape: Shape) -> Any:
    """Return the value in a shape without parts, or raise Refused."""
    try:
        match shape:
            case Text(go):
                return _text(name, data, go)
            case Flag():
                return _flag(name, data)
            case Whole(go):
                return _whole(name, data, shape)
            case Fraction():
                return _fraction(name, data)
            case Span():
                return _span(name, data)
            case Bytes():
                return _bytes(name, data)
            case _:
                return _moment(name, data)
    except EntryError as error:
        raise Refused(str(error)) from None


def _unconvertible(name: str, data: Any, go: str) -> Refused:
    held, text = gotext.type_of(data), gotext.plain(data)
    return Refused(f"'{name}' expected type '{go}', got unconvertible type '{held}', value: '{text}'")


def _text(name: str, data: Any, go: str) -> str:
    if isinstance(data, str):
        return data
    if isinstance(data, bool):
        return "1" if data else "0"
    if isinstance(data, int | float):
        return gotext.number_text(float(data))
    raise _unconvertible(name, data, go)


def _flag(name: str, data: Any) -> bool:
    if isinstance(data, _NUMBERS):
        return bool(data)
    if not isinstance(data, str):
        raise _unconvertible(name, data, "bool")
    try:
        return gotext.parse_flag(data)
    except EntryError as error:
        raise EntryError(f"cannot parse '{name}' as bool: {error}") from None


def _whole(name: str, data: Any, shape: Whole) -> int:
    if isinstance(data, _NUMBERS):
        value = float(data)
        return gotext.to_signed(value) if shape.signed else gotext.to_unsigned(value, shape.bits)
    if not isinstance(data, str):
        raise _unconvertible(name, data, shape.go)
    try:
        return gotext.parse_whole(data, shape.bits, signed=shape.signed)
    except EntryError as error:
        raise EntryError(f"cannot parse '{name}' as {'int' if shape.signed else 'uint'}: {error}") from None


def _fraction(name: str, data: Any) -> float:
    if isinstance(data, _NUMBERS):
        return gotext.single(float(data))
    if not isinstance(data, str):
        raise _unconvertible(name, data, "float32")
    try:
        return gotext.parse_fraction(data)
    except EntryError as error:
        raise EntryError(f"cannot parse '{name}' as float: {error}") from None


def _span(name: str, data: Any) -> int:
    if isinstance(data, _NUMBERS):
        return gotext.to_signed(float(data))
    if not isinstance(data, str):
        raise _unconvertible(name, data, "time.Duration")
    try:
        return parse_nanoseconds(data)
    except EntryError as error:
        raise EntryError(f"error decoding '{name}': {error}") from None


def _bytes(name: str, data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode()
    if data == {}:
        return b""
    elements = data if isinstance(data, list) else [data]
    return bytes(
        _whole(f"{name}[{place}]", element, Whole("uint8", 8, signed=False)) for place, element in enumerate(elements)
    )


def _moment(name: str, data: Any) -> str:
    if not isinstance(data, str):
        raise Refused(f"'{name}' expected a map, got '{gotext.kind_of(data)}'")
    if not _MOMENT.fullmatch(data):
        layout = "2006-01-02T15:04:05Z07:00"
        text = gotext.quote(data)
        raise EntryError(f'error decoding \'{name}\': parsing time {text} as "{layout}": cannot parse {text} as "2006"')
    return data
