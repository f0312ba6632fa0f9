"""Checks of EnvoyExtensions: known names and version constraints. The arguments of an extension are not looked into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from policies.entries.gotext import quote

_BUILT_IN = frozenset(
    f"builtin/{name}" for name in ("aws/lambda", "ext-authz", "lua", "otel-access-logging", "property-override", "wasm")
)
_WORD = r"[0-9A-Za-z\-~]"
_VERSION = (
    r"v?[0-9]+(\.[0-9]+)*"
    rf"(-[0-9]+{_WORD}*(\.{_WORD}+)*|-?[A-Za-z\-~]+{_WORD}*(\.{_WORD}+)*)?"
    rf"(\+{_WORD}+(\.{_WORD}+)*)?"
)
_CONSTRAINT = re.compile(rf"\s*(|=|!=|>|<|>=|<=|~>)\s*({_VERSION})\s*", re.ASCII)


def extension_errors(entry: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the extensions of service-defaults or proxy-defaults, one text for each."""
    errors = []
    for position, extension in enumerate(entry["EnvoyExtensions"] or ()):
        wrong = _error(extension)
        errors += [f"invalid EnvoyExtensions[{position}]{wrong}"] if wrong else []
    return errors


def _error(extension: Mapping[str, Any]) -> str:
    name = extension["Name"]
    if not name:
        return ": Name is required"
    for field in ("EnvoyVersion", "ConsulVersion"):
        for constraint in extension[field].split(",") if extension[field] else ():
            if not _CONSTRAINT.fullmatch(constraint):
                return f".{field}: Malformed constraint: {constraint}"
    return "" if name in _BUILT_IN else f"[{name}]: name {quote(name)} is not a built-in extension"
