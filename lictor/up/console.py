"""What `lictor up` says: progress, lines of children in a colour each, one line a service when it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_BOLD, _DIM, _RED, _GREEN, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[1;32m", "\033[0m"


class Console:
    """Writes lines. Colours only to a terminal, unless NO_COLOR or FORCE_COLOR says other.

    A terminal that is gone is no reason to stop: what would be said then is not said.
    """

    def __init__(
        self,
        output: TextIO | None = None,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output or sys.stdout
        self._coloured = _coloured(self._output, environment)
        self._now = now
        self._begun = now()
        self._names: dict[str, int] = {}
        self._width = 0

    def introduce(self, *names: str) -> None:
        """Give each name a colour, and all of them one width. `web/sidecar` has the colour of `web`."""
        for name in names:
            owner = name.partition("/")[0]
            colour = self._names.get(owner) or COLOURS[len({*self._names.values()}) % len(COLOURS)]
            self._names.setdefault(name, colour)
        self._width = max((len(name) for name in self._names), default=0)

    def progress(self, text: str) -> None:
        """Say what is done now."""
        self._write(self._paint(_DIM, f"{self._now() - self._begun:5.1f} s  {text}"))

    def note(self, text: str) -> None:
        """Say something that is worth to be read."""
        self._write(f"         {text}")

    def ready(self, name: str, text: str) -> None:
        """Say that somebody is ready, and what to type."""
        time_told = self._paint(_DIM, f"{self._now() - self._begun:5.1f} s")
        self._write(f"{time_told}  {self._mark(name)} {self._paint(_GREEN, 'ready')}  {self._paint(_BOLD, text)}")

    def line(self, name: str, text: str) -> None:
        """Pass on a line of a child; JSON of a proxy becomes a sentence."""
        self._write(f"{self._mark(name)} | {told(text)}")

    def warn(self, name: str, text: str) -> None:
        """Say that something is not as it should be."""
        self._write(f"{self._mark(name)} | {self._paint(_RED, text)}")

    def _mark(self, name: str) -> str:
        return self._paint(f"\033[{self._names.get(name, 0)}m", name.ljust(self._width))

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._output, flush=True)


def _coloured(output: TextIO, environment: Mapping[str, str]) -> bool:
    if environment.get("NO_COLOR"):
        return False
    return bool(environment.get("FORCE_COLOR")) or (output.isatty() and environment.get("TERM") != "dumb")


def told(text: str) -> str:
    """Return a proxy's JSON line as words, anything else as it is."""
    if not text.startswith("{"):
        return text
    try:
        row = json.loads(text)
    except ValueError:
        return text
    if not isinstance(row, dict) or "event" not in row:
        return text
    words = str(row.pop("event"))
    if " " not in words:  # of ours; what libraries say are sentences
        words = words.replace("_", " ")
    if raised := _raised(row.pop("exception", None)):
        row["raised"] = raised
    rest = " ".join(f"{key}={value}" for key, value in row.items() if key not in {"level", "timestamp", "logger"})
    return f"{row.get('level', '')}: {words} {rest}".strip(": ")


def _raised(exceptions: Any) -> str:
    """Return what an exception says and where it was raised, as structlog writes it; "" where there is none."""
    try:
        last, *_ = exceptions
        frame = last["frames"][-1]
        return f"{last['exc_type']}: {last['exc_value']} ({frame['filename']}:{frame['lineno']})"
    except (TypeError, ValueError, LookupError):
        return ""
