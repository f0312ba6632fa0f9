"""Reading the opaque parts of Consul's answers: keys in any case and with or without underscores, weak types.

A registration's `Proxy.Config` and an upstream's `Config` reach a proxy as the user wrote them (`connect_timeout_ms`)
or as central config renders them (`ConnectTimeoutMs`); both name the same setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def folded(key: str) -> str:
    """Return the form in which spellings of one key are equal."""
    return key.replace("_", "").lower()


class Opaque:
    """A mapping read by folded keys. Missing, null and empty values are all the default."""

    __slots__ = ("_values",)

    def __init__(self, values: object) -> None:
        pairs = values.items() if isinstance(values, Mapping) else ()
        self._values: dict[str, Any] = {folded(str(key)): value for key, value in pairs}

    def text(self, key: str, default: str = "") -> str:
        """Return the value as text; numbers and booleans become their usual spelling."""
        value = self._values.get(folded(key))
        if value is None or isinstance(value, Mapping | list):
            return default
        return str(value) or default

    def number(self, key: str, default: float) -> float:
        """Return the value as a number; what is no number is the default, as Consul's proxies do."""
        value = self._values.get(folded(key))
        try:
            number = float(value) if value is not None else default
        except (TypeError, ValueError, OverflowError):
            return default
        return number if math.isfinite(number) else default

    def value(self, key: str) -> object:
        """Return the value as it is; None when it is missing."""
        return self._values.get(folded(key))

    def values(self) -> tuple[object, ...]:
        """Return all values, as they are."""
        return tuple(self._values.values())

    def flag(self, key: str) -> bool:
        """Return whether the value says yes: true, "true", 1."""
        return self.text(key).lower() in {"true", "1", "t"}

    def has(self, key: str) -> bool:
        """Return whether the key is there with a value other than null."""
        return self._values.get(folded(key)) is not None

    def part(self, key: str) -> Opaque:
        """Return a nested mapping, empty when it is missing."""
        return Opaque(self._values.get(folded(key)))


def mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty one: null and missing are alike in Consul's answers."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> tuple[Any, ...]:
    """Return the elements if the value is a list, else none."""
    return tuple(value) if isinstance(value, list | tuple) else ()


def rows(value: object) -> Iterable[Any]:
    """Return the value if it can be gone through row by row, else nothing. Text and mappings are no rows."""
    return value if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) else ()
