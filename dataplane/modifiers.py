"""Header modifiers on the wire: removes, then sets, then adds, level after level.

Values may hold the variables that Consul documents for Envoy; `%%` is one percent sign. A modifier that could break
the message (framing, Host, a line break) is left out when it is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dataplane.heads import without
from policies.routes import HeaderModifiers

_UNTOUCHABLE = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", ":path", ":method"})
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_VARIABLE = re.compile(r"%([A-Z_]*)%")

Variable = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Edit:
    """The modifiers of one level, ready to apply."""

    drop: frozenset[bytes]
    lines: tuple[tuple[bytes, str], ...]

    def apply(self, lines: bytes, variable: Variable) -> bytes:
        """Return the field lines after this level."""
        if self.drop:
            lines = without(lines, self.drop)
        for name, text in self.lines:
            lines += b"%b: %b\r\n" % (name, _expand(text, variable).encode("latin-1", "replace"))
        return lines


def compile_edits(levels: Sequence[HeaderModifiers | None]) -> tuple[Edit, ...]:
    """Return the edits of the levels that change something, in order."""
    return tuple(_edit(level) for level in levels if level is not None)


def _edit(modifiers: HeaderModifiers) -> Edit:
    sets, adds = _safe(modifiers.set), _safe(modifiers.add)
    removed = {name for name in modifiers.remove if name not in _UNTOUCHABLE}
    drop = frozenset(name.encode() for name in removed | {name for name, _ in sets})
    return Edit(drop, tuple((name.encode(), text) for name, text in (*sets, *adds) if text))


def _safe(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name, text)
        for name, text in pairs
        if name not in _UNTOUCHABLE and _NAME.fullmatch(name) and _VALUE.fullmatch(text)
    ]


def _expand(text: str, variable: Variable) -> str:
    if "%" not in text:
        return text
    return _VARIABLE.sub(lambda found: _value(found, variable), text)


def _value(found: re.Match[str], variable: Variable) -> str:
    if not found[1]:
        return "%"
    value = variable(found[1])
    return found[0] if value is None else value
