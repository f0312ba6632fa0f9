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


def limit(seconds: float, default: float) -> float | None:
    """Return a limit of time as Consul means it: 0 is the default, negative is none."""
    if seconds < 0:
        return None
    return seconds or default


def _parse_text(text: str) -> float | None:
    sign, digits = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    parts = list(_PART.finditer(digits))
    if not parts or "".join(part[0] for part in parts) != digits:
        return None
    return sign * sum(float(part[1]) * _UNITS[part[2]] for part in parts)


# --- as Go reads and prints them, exactly ----------------------------------------------------------------------------

_UNIT_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PIECE = re.compile(r"(?P<whole>[0-9]*)(?P<point>\.(?P<fraction>[0-9]*))?(?P<unit>[^.0-9]*)")
_LONGEST = 1 << 63


def parse_nanoseconds(text: str) -> int:
    """Return nanoseconds for a Go duration such as `1m0.5s`. Raise EntryError with the text of `time.ParseDuration`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    invalid = EntryError(f"time: invalid duration {_quote(text)}")
    if not rest:
        raise invalid
    total = 0
    position = 0
    while position < len(rest):
        piece = _PIECE.match(rest, position)
        if piece is None or not (piece["whole"] or piece["fraction"]):
            raise invalid
        total += _piece_nanoseconds(text, piece)
        position = piece.end()
        if total > _LONGEST:
            raise invalid
    if total == _LONGEST and sign > 0:
        raise invalid
    return sign * total


def _piece_nanoseconds(text: str, piece: re.Match[str]) -> int:
    if int(piece["whole"] or 0) > _LONGEST:
        raise EntryError(f"time: invalid duration {_quote(text)}")
    if not piece["unit"]:
        raise EntryError(f"time: missing unit in duration {_quote(text)}")
    unit = _UNIT_NANOSECONDS.get(piece["unit"])
    if unit is None:
        raise EntryError(f"time: unknown unit {_quote(piece['unit'])} in duration {_quote(text)}")
    if int(piece["whole"] or 0) > _LONGEST // unit:
        raise EntryError(f"time: invalid duration {_quote(text)}")
    fraction = piece["fraction"] or ""
    below_one = int(int(fraction) * (unit / 10.0 ** len(fraction))) if fraction else 0
    return int(piece["whole"] or 0) * unit + below_one


def _quote(text: str) -> str:
    """Return the text in quotes as Go's package `time` prints it: bytes that are not plain ASCII in hexadecimal."""
    shown = (chr(byte) if 0x20 <= byte < 0x80 else f"\\x{byte:02x}" for byte in text.encode())  # noqa: PLR2004 - ASCII
    return '"' + "".join("\\" + part if part in {'"', "\\"} else part for part in shown) + '"'


def format_duration(nanoseconds: int) -> str:
    """Return the duration as Go prints it: `1m0s`, `1.5ms`, `0s`."""
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest == 0:
        return "0s"
    if rest < _UNIT_NANOSECONDS["s"]:
        unit = next(unit for unit in ("ms", "µs", "ns") if rest >= _UNIT_NANOSECONDS[unit])
        return f"{sign}{_decimal(rest, _UNIT_NANOSECONDS[unit])}{unit}"
    minutes, below = divmod(rest, _UNIT_NANOSECONDS["m"])
    text = f"{_decimal(below, _UNIT_NANOSECONDS['s'])}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
