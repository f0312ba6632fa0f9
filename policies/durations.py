"""Durations as Consul writes them: Go strings such as `1m0s` or integer nanoseconds. Seconds as float come out.

Source: Go's `time.ParseDuration`, which Consul uses for config entries; on read some fields are strings and others
integers, so both are read everywhere.
"""

from __future__ import annotations

import re

from policies.errors import EntryError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = 1e9


def parse_duration(value: object, where: str) -> float:
    """Return seconds. None and "" are 0. Raise EntryError naming `where` for anything that Go would refuse."""
    if value is None:
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / _NANOSECONDS
    if isinstance(value, str):
        seconds = 0.0 if value in {"", "0"} else _parse_text(value)
        if seconds is not None:
            return seconds
    message = f"{where}: {value!r} is not a duration; write it as 5s, 1m30s or 250ms"
    raise EntryError(message)


def _parse_text(text: str) -> float | None:
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    parts = list(_PART.finditer(digits))
    if not parts or "".join(part[0] for part in parts) != digits:
        return None
    return sign * sum(float(part[1]) * _UNITS[part[2]] for part in parts)
