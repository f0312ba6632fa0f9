"""Users' regular expressions, compiled in one place with a linear-time engine (RE2, as Envoy and Consul use)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from policies.errors import EntryError

if TYPE_CHECKING:
    import re2

Predicate = Callable[[str], bool]


def full_match(pattern: str) -> Predicate:
    """Return a test for the whole value. Raise EntryError when RE2 does not take the pattern."""
    compiled = _compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


def search(pattern: str) -> Predicate:
    """Return a test for any part of the value (`matches` of filters). Raise EntryError for a bad pattern."""
    compiled = _compile(pattern)
    return lambda value: compiled.search(value) is not None


def _compile(pattern: str) -> re2._Regexp:
    import re2  # noqa: PLC0415 - 3 MB that only a mesh with regular expressions pays

    options = re2.Options()
    options.log_errors = False
    options.never_nl = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        message = f"regular expression {pattern!r} is not RE2: {_text(error)}"
        raise EntryError(message) from error


def _text(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    return detail.decode() if isinstance(detail, bytes) else str(detail)
