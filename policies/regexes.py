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
SET_SIZE = 500
PATTERN_MEMORY = 64 << 10  # bytes for each of many patterns at once, before they are tried one by one
LEAST_MEMORY = 2 << 20  # for few; callers with strange paths fill it, and it is cleared in one go: 1 ms a MB


def full_match(pattern: str) -> Predicate:
    """Return a test for the whole of a value off the wire. Raise EntryError when RE2 does not take the pattern."""
    compiled = _compile(pattern)
    return lambda value: compiled.fullmatch(_bytes(value)) is not None


class FullMatches:
    """Many patterns at once: which of them match the whole of a value off the wire, in one pass over it.

    RE2 says nothing when it gives up for want of memory. So one more pattern is there that always matches: where even
    that is missing, or where the patterns are too large to be put together, they are tried one by one. They are put
    together some hundreds at a time, for nothing else in the process runs meanwhile: 3 ms for 500, once.
    """

    __slots__ = ("_sets",)

    def __init__(self, patterns: Sequence[str], memory: int | None = None, together: int = SET_SIZE) -> None:
        parts = [tuple(patterns[first : first + together]) for first in range(0, len(patterns), together)]
        self._sets = [
            (part, _set((*part, "(?s).*"), memory or max(LEAST_MEMORY, len(part) * PATTERN_MEMORY))) for part in parts
        ]

    def of(self, value: str) -> list[int]:
        """Return the positions of the patterns that match, in order."""
        text, first = _bytes(value), 0
        found: list[int] = []
        for patterns, together in self._sets:
            always = len(patterns)
            matched = together.Match(text) if together is not None else None
            if not matched or always not in matched:
                found += [first + number for number, pattern in enumerate(patterns) if full_match(pattern)(value)]
            elif len(matched) > 1:
                found += [first + position for position in sorted(matched) if position != always]
            first += always
        return found


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
