"""What goes in and out of the dev Vault, apart from HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.durations import parse_duration
from policies.errors import EntryError, MeshError

Json = dict[str, Any]


class Failed(MeshError):
    """An answer that is an error: its status and Vault's texts."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__("; ".join(errors))
        self.status = status
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `operation`: read, update, list or delete. `wrap`: seconds, 0 is not at all."""

    operation: str
    path: str
    data: Mapping[str, Any] = field(default_factory=dict)
    token: str = field(default="", repr=False)
    wrap: float = 0.0

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter as text."""
        value = self.data.get(name)
        return default if value is None else str(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a parameter as a flag."""
        value = self.data.get(name)
        return default if value is None else str(value).lower() in {"true", "1"}

    def words(self, name: str) -> list[str]:
        """Return a parameter as a list: of JSON, or of text between commas."""
        value = self.data.get(name)
        if isinstance(value, list):
            return [str(one) for one in value]
        return [part.strip() for part in str(value or "").split(",") if part.strip()]

    def seconds(self, name: str) -> float:
        """Return a parameter as seconds. Raise Failed for one that is no duration."""
        return seconds(self.data.get(name), name)


def seconds(value: object, name: str) -> float:
    """Return seconds of `72h`, `600`, 600. Raise Failed."""
    if value is None or value == "":
        return 0.0
    text = str(value)
    if text.lstrip("-").isdigit():
        return float(text)
    if text.endswith("d") and text[:-1].isdigit():
        return float(text[:-1]) * 86400
    try:
        return parse_duration(text, name)
    except EntryError as error:
        raise Failed(400, f"Field validation failed: error converting input {text!r} for field {name!r}") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `flat` data stand at the top, without an envelope. `raw`: a body that is no JSON, and its type."""

    data: Json | None = None
    auth: Json | None = None
    flat: bool = False
    status: int = 200
    raw: tuple[bytes, str] | None = None
    warnings: tuple[str, ...] = ()
    accessor: str = ""  # of what a wrapped answer holds


NOTHING = Reply(status=204)


def not_here(ask: Ask) -> Failed:
    """Return the error of an endpoint that Vault has and the dev server has not."""
    return Failed(404, f"{ask.operation} {ask.path}: the dev server of Lictor does not do this; a real Vault does")
