"""Users' regular expressions, compiled in one place with a linear-time engine (RE2, as Envoy and Consul use).

What comes off the wire is text of one character a byte (latin-1); it is matched as the bytes that it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from policies.errors import EntryError

if TYPE_CHECKING:
    import re2

Predicate = Callable[[str], bool]
SET_MEMORY = 32 << 20  # bytes that many patterns at once may take before they are tried one by one


def full_match(pattern: str) -> Predicate:
    """Return a test for the whole of a value off the wire. Raise EntryError when RE2 does not take the pattern."""
    compiled = _compile(pattern)
    return lambda value: compiled.fullmatch(_bytes(value)) is not None


class FullMatches:
    """Many patterns at once: which of them match the whole of a value off the wire, in one pass over it.

    RE2 says nothing when it gives up for want of memory. So one more pattern is there that always matches: where even
    that is missing, or where the patterns are too large to be put together, they are tried one by one.
    """

    __slots__ = ("_any", "_patterns")

    def __init__(self, patterns: Sequence[str], memory: int = SET_MEMORY) -> None:
        self._patterns = tuple(patterns)
        self._any = _set((*patterns, "(?s).*"), memory) if patterns else None

    def of(self, value: str) -> list[int]:
        """Return the positions of the patterns that match, in order."""
        if self._any is not None:
            found: list[int] = sorted(self._any.Match(_bytes(value)) or ())
            if found and found[-1] == len(self._patterns):
                return found[:-1]
        return [position for position, pattern in enumerate(self._patterns) if full_match(pattern)(value)]


def search(pattern: str) -> Predicate:
    """Return a test for any part of the value (`matches` of filters). Raise EntryError for a bad pattern."""
    compiled = _compile(pattern)
    return lambda value: compiled.search(value) is not None


def _bytes(value: str) -> bytes:
    return value.encode("latin-1", "replace")


def _set(patterns: Sequence[str], memory: int) -> re2.Set | None:
    import re2  # noqa: PLC0415 - as below

    options = _options()
    options.max_mem = memory
    made = re2.Set.FullMatchSet(options)
    try:
        for pattern in patterns:
            made.Add(pattern)
        made.Compile()
    except re2.error:
        return None
    return made


def _compile(pattern: str) -> re2._Regexp:
    import re2  # noqa: PLC0415 - 3 MB that only a mesh with regular expressions pays

    try:
        return re2.compile(pattern, options=_options())
    except re2.error as error:
        message = f"regular expression {pattern!r} is not RE2: {_text(error)}"
        raise EntryError(message) from error


def _options() -> re2.Options:
    import re2  # noqa: PLC0415 - as above

    options = re2.Options()
    options.log_errors = False
    options.never_nl = False
    return options


def _text(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    return detail.decode() if isinstance(detail, bytes) else str(detail)
