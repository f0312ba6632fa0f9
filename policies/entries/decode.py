"""The weak decoder of `PUT /v1/config`: keys in any spelling, values of nearly any type, and Consul's error texts.

Keys are CamelCase, any case of it, or the snake_case alias of a field; a key that no field takes is an error. A number
or boolean stands for a string, a string for a number, a list of one for its element, a single value for a list.
Source: mapstructure 1.5 as Consul configures it (section 1.7 of the project's notes on Consul); seen on 1.21.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.entries import gotext
from policies.entries.scalars import Refused, scalar
from policies.entries.schemas import SCHEMAS
from policies.entries.shapes import Anything, Bytes, Listing, Moment, Optional, Shape, Struct, Table, zero
from policies.errors import EntryError

_NOT_A_KEY = frozenset({"CreateIndex", "ModifyIndex", "kind", "Kind"})


class DecodeError(EntryError):
    """The text that Consul puts after `Request decoding failed: ` (HTTP 400).

    `unknown`: what is said of each key that no field takes.
    """

    def __init__(self, text: str, unknown: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.unknown = unknown or {}


def decode_entry(raw: object) -> dict[str, Any]:
    """Return the entry in the decoded JSON body of `PUT /v1/config`, with CamelCase keys and typed values.

    Durations are integers of nanoseconds; fields that were not given, or null, are missing. Raise DecodeError.
    """
    if raw is not None and not isinstance(raw, dict):
        raise DecodeError(f"'' expected a map, got '{gotext.kind_of(raw)}'")
    body: dict[str, Any] = raw or {}
    kind = body.get("Kind", body.get("kind", _NOT_A_KEY))
    if kind is _NOT_A_KEY:
        raise DecodeError("Payload does not contain a kind/Kind key at the top level")
    if not isinstance(kind, str):
        raise DecodeError("Kind value in payload is not a string")
    if kind not in SCHEMAS:
        raise DecodeError(f"invalid config entry kind: {kind}")
    decoder = _Decoder()
    try:
        entry: dict[str, Any] = decoder.value("", body, SCHEMAS[kind])
    except Refused as refused:
        points = "\n".join(sorted(f"* {error}" for error in refused.errors))
        raise DecodeError(f"{len(refused.errors)} error(s) decoding:\n\n{points}") from None
    _refuse_unused(decoder.unused)
    return {"Kind": kind, **entry}


def _refuse_unused(keys: list[str]) -> None:
    said = {key: _unknown(key) for key in keys if key not in _NOT_A_KEY}
    if said:
        raise DecodeError(gotext.several(list(said.values())), said)


def _unknown(key: str) -> str:
    text = f"invalid config key {gotext.quote(key)}"
    if key.lower().endswith("namespace"):
        return f"{text}, namespaces are a consul enterprise feature"
    return f"{text}, api-gateway jwt validation is a consul enterprise feature" if "jwt" in key.lower() else text


class _Decoder:
    """One pass over one entry; gathers the keys that no field takes."""

    def __init__(self) -> None:
        self.unused: list[str] = []

    def value(self, name: str, data: Any, shape: Shape) -> Any:
        """Return the value in `shape`, or raise Refused. `data` is not None."""
        if isinstance(data, list) and len(data) == 1 and not isinstance(shape, Listing | Bytes):
            data = _unpacked(data[0]) if isinstance(shape, Anything) else data[0]
            if data is None:
                raise Refused(f"'{name}' is a list of one null")
        match shape:
            case Optional(of):
                return self.value(name, data, of)
            case Struct():
                return self._struct(name, data, shape)
            case Listing(of):
                return self._list(name, data, of)
            case Table(of):
                return self._table(name, data, of)
            case Anything():
                return data
            case Moment() if isinstance(data, dict):
                self._struct(name, data, Struct({}))  # a time has no fields that could be given
                return ""
            case _:
                return scalar(name, data, shape)

    def _struct(self, name: str, data: Any, shape: Struct) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise Refused(f"'{name}' expected a map, got '{gotext.kind_of(data)}'")
        given = _canonical(data, shape)
        left = dict.fromkeys(sorted(given))
        decoded: dict[str, Any] = {}
        errors: list[str] = []
        for field in shape.fields:
            key = field.name if field.name in given else _any_case(given, field.name)
            if key is None:
                continue
            left.pop(key, None)
            if given[key] is None:
                continue
            try:
                decoded[field.name] = self.value(
                    f"{name}.{field.name}" if name else field.name, given[key], field.shape
                )
            except Refused as refused:
                errors += refused.errors
        if errors:
            raise Refused(*errors)
        self.unused += [f"{name}.{key}" if name else key for key in left]
        return decoded

    def _list(self, name: str, data: Any, of: Shape) -> list[Any]:
        if isinstance(data, dict) and not data:
            return []
        elements = data if isinstance(data, list) else [data]
        return self._gather((f"{name}[{place}]", element, of) for place, element in enumerate(elements))

    def _gather(self, values: Any) -> list[Any]:
        decoded: list[Any] = []
        errors: list[str] = []
        for name, data, of in values:
            try:
                decoded.append(zero(of) if data is None else self.value(name, data, of))
            except Refused as refused:
                errors += refused.errors
        if errors:
            raise Refused(*errors)
        return decoded

    def _table(self, name: str, data: Any, of: Shape) -> dict[str, Any]:
        if isinstance(data, list):
            merged: dict[str, Any] = {}
            for place, part in enumerate(data):
                merged |= {} if part is None else self.value(f"{name}[{place}]", part, Table(of))
            return merged
        if not isinstance(data, dict):
            raise Refused(f"'{name}' expected a map, got '{gotext.kind_of(data)}'")
        return dict(
            zip(data, self._gather((f"{name}[{key}]", element, of) for key, element in data.items()), strict=True)
        )


def _canonical(data: dict[str, Any], shape: Struct) -> dict[str, Any]:
    """Return the map with aliases replaced by the (lower-case) name of their field."""
    if not shape.aliases:
        return data
    given: dict[str, Any] = {}
    for key in sorted(data):
        canonical = shape.aliases.get(key.lower())
        if canonical is None:
            given[key] = data[key]
        else:
            given[canonical] = data.get(canonical, data[key])
    return given


def _any_case(given: dict[str, Any], name: str) -> str | None:
    lower = name.lower()
    return next((key for key in sorted(given) if key.lower() == lower), None)


def _unpacked(data: Any) -> Any:
    """Return a value whose lists of one, as values of maps at any depth, are their elements."""
    if isinstance(data, dict):
        return {
            key: _unpacked(value)[0] if isinstance(value, list) and len(value) == 1 else _unpacked(value)
            for key, value in data.items()
        }
    return [_unpacked(element) for element in data] if isinstance(data, list) else data
