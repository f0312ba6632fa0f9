"""What is given to an endpoint, turned into the kinds that it takes; the texts of refusal are Vault's.

Vault's clients send numbers as text and text as numbers, so each kind takes whatever may mean it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lictor.dev.vault.answers import Failed, Json
from policies.durations import parse_duration
from policies.errors import EntryError

DAY_SECONDS = 86400.0
_LARGEST = 2**63 - 1
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})
_GO_KINDS: Mapping[type, str] = {list: "[]interface {}", dict: "map[string]interface {}"}


class Unfit(Exception):
    """A value that a field does not take, and why."""


def text(value: Any) -> str:
    """Return text."""
    if isinstance(value, list | dict):
        message = f"'' expected type 'string', got unconvertible type '{_GO_KINDS[type(value)]}'"
        raise Unfit(message)
    return str(int(value)) if isinstance(value, bool) else str(value)


def number(value: Any) -> int:
    """Return a whole number."""
    if isinstance(value, str):
        if value.removeprefix("-").isdigit():
            if abs(int(value)) > _LARGEST:
                message = "'' cannot parse value as 'int': strconv.ParseInt: value out of range"
                raise Unfit(message)
            return int(value)
        if value:
            message = "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax"
            raise Unfit(message)
        return 0
    if isinstance(value, list | dict):
        message = f"'' expected type 'int', got unconvertible type '{_GO_KINDS[type(value)]}'"
        raise Unfit(message)
    return int(value)


def flag(value: Any) -> bool:
    """Return a flag."""
    if isinstance(value, str):
        if value not in _TRUE | _FALSE:
            message = "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax"
            raise Unfit(message)
        return value in _TRUE
    if isinstance(value, list | dict):
        message = f"'' expected type 'bool', got unconvertible type '{_GO_KINDS[type(value)]}'"
        raise Unfit(message)
    return bool(value)


def duration(value: Any) -> float:
    """Return seconds of `72h`, `1d`, `600`, 600: never fewer than none."""
    seconds = parse_seconds(value)
    if seconds < 0:
        message = f"cannot provide negative value '{seconds:g}'"
        raise Unfit(message)
    return seconds


def parse_seconds(value: Any) -> float:
    """Return seconds, maybe negative. Raise Unfit."""
    if isinstance(value, int | float):
        return float(value)
    words = str(value).strip()
    if words.removeprefix("-").isdigit():
        return float(words)
    if words.endswith("d") and words[:-1].isdigit():
        return float(words[:-1]) * DAY_SECONDS
    try:
        return parse_duration(words, "") if isinstance(value, str) else 0.0
    except EntryError as error:
        message = f'time: invalid duration "{words}"'
        raise Unfit(message) from error


def words(value: Any) -> list[str]:
    """Return a list of texts; a text is one of them."""
    return [text(one) for one in value] if isinstance(value, list) else [text(value)]


def commas(value: Any) -> list[str]:
    """Return a list of texts, of which a text may hold several between commas."""
    ones = value if isinstance(value, list) else text(value).split(",")
    return [one.strip() for one in map(text, ones) if one.strip()]


def pairs(value: Any) -> dict[str, str]:
    """Return names and texts, of an object or of `name=text` words."""
    if isinstance(value, Mapping):
        return {str(name): text(one) for name, one in value.items()}
    found = {}
    for at, word in enumerate(words(value)):
        name, equals, rest = word.partition("=")
        if not equals:
            message = f"invalid key pair at index {at}"
            raise Unfit(message)
        found[name] = rest
    return found


def mapping(value: Any) -> dict[str, Any]:
    """Return an object."""
    if isinstance(value, Mapping):
        return dict(value)
    listed = isinstance(value, list)
    one = (value[0] if value else "") if listed else value
    kind = _GO_KINDS.get(type(one)) or {str: "string", bool: "bool"}.get(type(one), "json.Number")
    where = "[0]" if listed else ""
    message = f"'{where}' expected type '{_GO_KINDS[dict]}', got unconvertible type '{kind}'"
    raise Unfit(message)


def anything(value: Any) -> Any:
    """Return a value as it came."""
    return value


Kind = Callable[[Any], Any]
Kinds = Mapping[str, Kind]


def taken(data: Mapping[str, Any], kinds: Kinds, prefix: str = "Field validation failed: ") -> tuple[Json, list[str]]:
    """Return what was given, by kind, and the names that an endpoint does not know. Raise Failed (400)."""
    found: Json = {}
    for name, value in data.items():
        if name not in kinds or value is None:
            continue
        try:
            found[name] = kinds[name](value)
        except Unfit as error:
            where = f' in field "{name}"' if kinds[name] is pairs and "key pair" in str(error) else ""
            said = f'{prefix}error converting input for field "{name}": {error}{where}'
            raise Failed(400, said) from error
    return found, sorted(name for name in data if name not in kinds)


def go_duration(seconds: float, *, short: bool = False) -> str:
    """Return seconds as Go prints them: `10h0m0s`; `short`: without parts that are none, `10h`."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if short:
        parts = [f"{amount}{unit}" for amount, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if amount]
        return "".join(parts) or "0s"
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
