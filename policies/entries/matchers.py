"""Small matchers that note what they wanted, to tell of the furthest place that a parser reached.

Each takes a run and a place and returns the end of its match, or MISS. Source: the error texts of Consul's filters,
whose parser is made by pigeon: all that was wanted at the furthest place, sorted; `!` before what was not wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MISS = -1
Matcher = Callable[["Run", int], int]


class Run:
    """One pass over one text: the furthest failure, what was wanted there, and errors with a text of their own."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.furthest = 0
        self.wanted: set[str] = set()
        self.inverted = False
        self.errors: dict[str, None] = {}
        self.known: dict[tuple[str, int], int] = {}

    def note(self, position: int, want: str, *, matched: bool) -> None:
        """Note what was wanted at a place, if nothing was wanted further on."""
        if matched is not self.inverted or position < self.furthest:
            return
        if position > self.furthest:
            self.furthest = position
            self.wanted.clear()
        self.wanted.add(f"!{want}" if self.inverted else want)

    def refuse(self, position: int, message: str, rule: str = "") -> None:
        """Keep an error at a place."""
        before = self.source[: position + 1]
        column = position + 1 - (before.rfind("\n") + 1)
        offset = len(self.source[:position].encode())
        where = f"{before.count(chr(10)) + 1}:{column} ({offset})"
        self.errors[f'{where}: rule "{rule}": {message}' if rule else f"{where}: {message}"] = None

    def wanted_text(self) -> str:
        """Return what was wanted at the furthest place, as a list in words."""
        wanted = sorted(self.wanted - {"!."}) + (["EOF"] if "!." in self.wanted else [])
        return f"{', '.join(wanted[:-1])} or {wanted[-1]}" if len(wanted) > 1 else "".join(wanted)


def literal(text: str) -> Matcher:
    """Match this very text."""
    want = '"' + text.replace('"', r"\"") + '"'

    def match(run: Run, at: int) -> int:
        matched = run.source.startswith(text, at)
        run.note(at, want, matched=matched)
        return at + len(text) if matched else MISS

    return match


def one_of(want: str) -> Matcher:
    """Match one character of a class, which is also the words for what was wanted."""
    fits = re.compile(want).match

    def match(run: Run, at: int) -> int:
        matched = fits(run.source, at) is not None
        run.note(at, want, matched=matched)
        return at + 1 if matched else MISS

    return match


def anything(run: Run, at: int) -> int:
    """Match any character."""
    matched = at < len(run.source)
    run.note(at, ".", matched=matched)
    return at + 1 if matched else MISS


def sequence(*parts: Matcher) -> Matcher:
    """Match all parts, one after the other."""

    def match(run: Run, at: int) -> int:
        for part in parts:
            at = part(run, at)
            if at == MISS:
                return MISS
        return at

    return match


def first(*choices: Matcher) -> Matcher:
    """Match the first choice that fits."""

    def match(run: Run, at: int) -> int:
        return next((end for choice in choices if (end := choice(run, at)) != MISS), MISS)

    return match


def many(part: Matcher, least: int = 0) -> Matcher:
    """Match a part as often as it fits."""

    def match(run: Run, at: int) -> int:
        count = 0
        while (end := part(run, at)) != MISS:
            at, count = end, count + 1
        return at if count >= least else MISS

    return match


def maybe(part: Matcher) -> Matcher:
    """Match a part or nothing."""
    return first(part, lambda _run, at: at)


def unless(part: Matcher) -> Matcher:
    """Match nothing, where a part does not fit."""

    def match(run: Run, at: int) -> int:
        run.inverted = not run.inverted
        end = part(run, at)
        run.inverted = not run.inverted
        return at if end == MISS else MISS

    return match


def ahead(part: Matcher) -> Matcher:
    """Match nothing, where a part fits."""
    return lambda run, at: at if part(run, at) != MISS else MISS


def refusal(message: str, rule: str) -> Matcher:
    """Never match, and leave an error with a text of its own."""

    def match(run: Run, at: int) -> int:
        run.refuse(at, message, rule)
        return MISS

    return match


def remembered(name: str, part: Matcher) -> Matcher:
    """Match a part, once for each place."""

    def match(run: Run, at: int) -> int:
        if (name, at) not in run.known:
            run.known[name, at] = part(run, at)
        return run.known[name, at]

    return match
