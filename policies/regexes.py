"""Users' regular expressions, compiled in one place with a linear-time engine (RE2, as Envoy and Consul use)."""

from __future__ import annotations

from collections.abc import Callable

import re2

from policies.errors import EntryError

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_nl = False

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
    try:
        return re2.compile(pattern, options=_OPTIONS)
    except re2.error as error:
        message = f"regular expression {pattern!r} is not RE2: {_text(error)}"
        raise EntryError(message) from error


def _text(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    return detail.decode() if isinstance(detail, bytes) else str(detail)
