"""What `lictor up` says: progress, lines of children in a colour each, one line a service when it is ready."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_BOLD, _DIM, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[0m"


class Console:
    """Writes lines. Colours only to a terminal."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._coloured = self._output.isatty()
        self._begun = time.monotonic()
        self._names: dict[str, int] = {}
        self._width = 0

    def introduce(self, *names: str) -> None:
        """Give each name a colour, and all of them one width."""
        for name in names:
            self._names.setdefault(name, COLOURS[len(self._names) % len(COLOURS)])
        self._width = max((len(name) for name in self._names), default=0)

    def progress(self, text: str) -> None:
        """Say what is done now."""
        self._write(self._paint(_DIM, f"[{time.monotonic() - self._begun:5.1f} s] {text}"))

    def ready(self, name: str, text: str) -> None:
        """Say that somebody is ready, and what to type."""
        mark = self._paint(f"\033[{self._names.get(name, 0)}m", name.ljust(self._width))
        self._write(f"{self._paint(_BOLD, 'ready')} {mark}  {text}")

    def line(self, name: str, text: str) -> None:
        """Pass on a line of a child; JSON of a proxy becomes a sentence."""
        mark = self._paint(f"\033[{self._names.get(name, 0)}m", f"{name.ljust(self._width)} |")
        self._write(f"{mark} {_told(text)}")

    def warn(self, name: str, text: str) -> None:
        """Say that something is not as it should be."""
        mark = self._paint(f"\033[{self._names.get(name, 0)}m", f"{name.ljust(self._width)} |")
        self._write(f"{mark} {self._paint(_RED, text)}")

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _write(self, text: str) -> None:
        print(text, file=self._output, flush=True)


def _told(text: str) -> str:
    """Return a proxy's JSON line as words, anything else as it is."""
    if not text.startswith("{"):
        return text
    try:
        row = json.loads(text)
    except ValueError:
        return text
    if not isinstance(row, dict) or "event" not in row:
        return text
    rest = " ".join(
        f"{key}={value}" for key, value in row.items() if key not in {"event", "level", "timestamp", "logger"}
    )
    return f"{row.get('level', '')} {row['event']} {rest}".strip()
