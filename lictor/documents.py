"""Files of operators: config entries, service definitions. JSON when the first sign is `{`, else HCL."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lictor.hcl import HclError, Located, decode_hcl
from policies.errors import ConfigError, Problem

_PATH = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\[[^\]]*\])*(?:\.\w+(?:\[[^\]]*\])*)*")
_STEP = re.compile(r"\[([^\]]*)\]|(\w+)")
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+)')


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `name` is the file for a person."""

    name: str
    text: str
    data: Located

    def line_of(self, path: str) -> int:
        """Return the line of `Splits[1].Weight`, of what is there of it; 0 when nothing is. Spelling counts little."""
        return _line(self.data, [index or name for index, name in _STEP.findall(path)])

    def place(self, path: str) -> str:
        """Return `file:line` of a path, or the file."""
        line = self.line_of(path)
        return f"{self.name}:{line}" if line else self.name

    def at(self, message: str) -> str:
        """Return `file:line` of the first field that a message names as one does: with a dot, an index or a capital."""
        for path in _PATH.findall(message):
            if (not path.islower() or not path.isalpha()) and self.line_of(path):
                return self.place(path)
        return self.name


def _line(tree: Any, steps: Sequence[str]) -> int:
    """Return the line of the last step that can be gone."""
    if not steps:
        return 0
    if isinstance(tree, list):
        if steps[0].isdigit():
            return _line(tree[int(steps[0])], steps[1:]) if int(steps[0]) < len(tree) else 0
        return next((line for element in tree if (line := _line(element, steps))), 0)
    if not isinstance(tree, Located):
        return 0
    key = next((key for key in tree if key == steps[0]), None) or _respelled(tree, steps[0])
    if key is None:
        return _line(tree, steps[1:]) if steps[0] == "0" else 0
    return _line(tree[key], steps[1:]) or tree.lines[key]


def _respelled(tree: Mapping[str, Any], step: str) -> str | None:
    wanted = step.replace("_", "").lower()
    return next((key for key in tree if key.replace("_", "").lower() == wanted), None)


def read_document(text: str, name: str) -> Document:
    """Return the document. Raise ConfigError that names the line for text that is none."""
    try:
        data = _parse_json(text) if text.lstrip().startswith("{") else decode_hcl(text)
    except HclError as error:
        raise ConfigError((Problem(f"{name}:{error.line}:{error.column}", error.message),)) from error
    except json.JSONDecodeError as error:
        raise ConfigError((Problem(f"{name}:{error.lineno}:{error.colno}", f"is no JSON: {error.msg}"),)) from error
    except RecursionError as error:
        raise ConfigError((Problem(name, "nests too deep"),)) from error
    return Document(name, text, data)


def read_file(name: str) -> Document:
    """Return the document in a file, or on the standard input for `-`. Raise ConfigError."""
    called = "the standard input" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode()
    except OSError as error:
        fix = "give a file of HCL or JSON, or - for the standard input"
        raise ConfigError((Problem(called, str(error.strerror).lower(), fix),)) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError((Problem(f"{called}:{line}", "is not UTF-8"),)) from error
    return read_document(text, called)


# --- JSON with lines -----------------------------------------------------------------------------------------------


def _parse_json(text: str) -> Located:
    """Return an object that knows its lines. Raise JSONDecodeError for text that is no JSON as Go reads it."""

    def refuse(number: str) -> NoReturn:
        raise json.JSONDecodeError(f"{number} is no number", text, text.find(number))

    def finite(digits: str) -> float:
        number = float(digits)
        return number if math.isfinite(number) else refuse(digits)

    json.loads(text, parse_constant=refuse, parse_float=finite)
    tree = _Lines(text).value()
    assert isinstance(tree, Located)  # noqa: S101 - it begins with a brace
    return tree


class _Lines:
    """Reads good JSON once more, for the lines of its keys."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position, self._line = 0, 1

    def value(self) -> Any:
        token = self._take()
        if token == "{":
            return self._object()
        if token != "[":
            return json.loads(token)
        values: list[Any] = []
        while self._peek() != "]":
            values.append(self.value())
            self._skip(",")
        self._take()
        return values

    def _object(self) -> Located:
        found = Located()
        while self._peek() != "}":
            key = json.loads(self._take())
            line = self._line
            self._skip(":")
            found[key], found.lines[key] = self.value(), line
            self._skip(",")
        self._take()
        return found

    def _skip(self, sign: str) -> None:
        if self._peek() == sign:
            self._take()

    def _peek(self) -> str:
        found = _TOKEN.match(self._text, self._position)
        return found[1] if found else ""

    def _take(self) -> str:
        found = _TOKEN.match(self._text, self._position)
        assert found is not None  # noqa: S101 - good JSON ends with what is open
        self._line += self._text.count("\n", self._position, found.end())
        self._position = found.end()
        return found[1]
