"""The table as plain data and as text: one form for logs, diffs, golden tests and the admin endpoint."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any

from policies.identity import SpiffeId
from policies.table import Table


def plain(value: object) -> Any:
    """Return a value of this package as JSON data: no defaults of the language, no private fields, keys in order."""
    if isinstance(value, SpiffeId):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (field for field in dataclasses.fields(value) if field.repr and not field.name.startswith("_"))
        return {field.name: plain(getattr(value, field.name)) for field in shown}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def table_text(table: Table) -> str:
    """Return the table as text that is equal for equal tables."""
    return json.dumps(plain(table), indent=1, ensure_ascii=False)
