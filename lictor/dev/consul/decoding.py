"""Request bodies by tables of fields, as Go's decoder takes them when unknown fields are refused.

Keys match in any case. A mistake is noted and decoding goes on: the first is told in the end. But some structs decode
themselves: theirs is told at once, before any that was noted around them. Durations are texts or nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lictor.dev.consul.refusals import Refused
from policies.durations import parse_nanoseconds
from policies.errors import EntryError

Json = dict[str, Any]
TEXT, INTEGER, FLAG, FREE, DURATION = "string", "int", "bool", "any", "duration"
Shape = Any  # a word above, [shape of the elements], {"": shape of the values}, or {field: shape}
ENTERPRISE_FIELD = "Namespace"


class Own(dict[str, Shape]):
    """A struct that decodes itself. `snake` are keys that stand for a field besides its name.

    `dropped` are keys that it takes and forgets; a `lenient` one forgets all that it does not know.
    """

    def __init__(
        self, fields: Mapping[str, Shape], snake: str = "", *, dropped: str = "", lenient: bool = False
    ) -> None:
        super().__init__(fields)
        self.snake = {key: next(name for name in fields if name.lower() == plain(key)) for key in snake.split()}
        self.dropped = frozenset(dropped.split())
        self.lenient = lenient


class _Stop(Exception):
    """Decoding ends here."""


def plain(key: str) -> str:
    """Return a key in lower case without underscores."""
    return key.replace("_", "").lower()


def decode(raw: Any, shape: Shape, *, tell_enterprise: bool = False) -> Any:
    """Return a value with the canonical spelling of its keys. Raise Refused (400) as Consul's decoder.

    `tell_enterprise`: the refusal says that namespaces are a matter of Consul Enterprise.
    """
    noted: list[str] = []
    try:
        found = _decode(raw, shape, noted)
    except _Stop as stop:
        noted = [str(stop)]
    if noted:
        said = f"Request decode failed: {noted[0]}"
        if tell_enterprise and noted[0] == f'json: unknown field "{ENTERPRISE_FIELD}"':
            said += " - Namespaces are a Consul Enterprise feature"
        raise Refused(400, said)
    return found


def _decode(raw: Any, shape: Shape, noted: list[str]) -> Any:
    if raw is None or shape == FREE:
        return raw
    if shape == DURATION:
        return _duration(raw)
    if isinstance(shape, Own):
        own: list[str] = []
        found = _struct(raw, shape, own)
        if own:
            raise _Stop(own[0])
        return {name: _seconds(value) if shape[name] == DURATION else value for name, value in (found or {}).items()}
    if isinstance(shape, list):
        return _list(raw, shape[0], noted)
    return _struct(raw, shape, noted) if isinstance(shape, dict) else _scalar(raw, shape, noted)


def _list(raw: Any, of: Shape, noted: list[str]) -> Any:
    if not isinstance(raw, list):
        return _mismatch(raw, "[]" + (of if isinstance(of, str) else "structs"), noted)
    return [_decode(element, of, noted) for element in raw]


def _struct(raw: Any, shape: Mapping[str, Shape], noted: list[str]) -> Any:
    if not isinstance(raw, dict):
        return _mismatch(raw, "structs", noted)
    if "" in shape:
        return {key: _decode(value, shape[""], noted) for key, value in raw.items()}
    spelled = {name.lower(): name for name in shape}
    if isinstance(shape, Own):
        spelled |= shape.snake
    found: Json = {}
    for key, value in raw.items():
        name = spelled.get(key.lower())
        if name is not None:
            found[name] = _decode(value, shape[name], noted)
        elif not (isinstance(shape, Own) and (shape.lenient or key.lower() in shape.dropped)):
            noted.append(f'json: unknown field "{key}"')
    return found


def _duration(raw: Any) -> Any:
    """Return what a duration may be until the whole struct is read; of another type it counts for nothing."""
    return raw if isinstance(raw, str) or (isinstance(raw, int | float) and not isinstance(raw, bool)) else None


def _seconds(raw: Any) -> Any:
    if raw is None:
        return None
    if isinstance(raw, int | float):
        return int(raw) / 1e9
    try:
        return parse_nanoseconds(raw) / 1e9
    except EntryError as error:
        raise _Stop(str(error)) from error


def _scalar(raw: Any, shape: str, noted: list[str]) -> Any:
    good = {
        TEXT: isinstance(raw, str),
        FLAG: isinstance(raw, bool),
        INTEGER: isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 1 << 63,
    }
    return raw if good[shape] else _mismatch(raw, shape, noted)


def _mismatch(raw: Any, wanted: str, noted: list[str]) -> None:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    noted.append(f"json: cannot unmarshal {kinds.get(type(raw), 'value')} into Go value of type {wanted}")
