"""Files of operators: config entries, service definitions. JSON when the first sign is `{`, else HCL."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lictor.hcl import HclError, Located, parse_hcl
from policies.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `name` is the file for a person."""

    name: str
    text: str
    data: Mapping[str, Any]

    def line_of(self, key: str) -> int:
        """Return the line on which a key stands first, 0 when it is not found. Case counts, underscores do too."""
        if isinstance(self.data, Located):
            return _line_in(self.data, key)
        found = re.search(rf'"{re.escape(key)}"\s*:', self.text)
        return self.text.count("\n", 0, found.start()) + 1 if found else 0

    def place(self, key: str) -> str:
        """Return `file:line` of a key, or the file."""
        line = self.line_of(key)
        return f"{self.name}:{line}" if line else self.name


def _line_in(tree: object, key: str) -> int:
    if isinstance(tree, Located):
        if key in tree.lines:
            return tree.lines[key]
        return next((line for value in tree.values() if (line := _line_in(value, key))), 0)
    if isinstance(tree, list):
        return next((line for value in tree if (line := _line_in(value, key))), 0)
    return 0


def read_document(text: str, name: str) -> Document:
    """Return the document. Raise ConfigError that names the line for text that is none."""
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else parse_hcl(text)
    except HclError as error:
        raise ConfigError((Problem(f"{name}:{error.line}:{error.column}", error.message),)) from error
    except json.JSONDecodeError as error:
        raise ConfigError((Problem(f"{name}:{error.lineno}:{error.colno}", f"is no JSON: {error.msg}"),)) from error
    return Document(name, text, data)


def read_file(name: str) -> Document:
    """Return the document in a file, or on the standard input for `-`. Raise ConfigError."""
    if name == "-":
        return read_document(sys.stdin.read(), "the standard input")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(
            (Problem(name, str(reason).lower(), "give a file of HCL or JSON, or - for the standard input"),)
        ) from error
    return read_document(text, name)
