"""Placeholder."""

from __future__ import annotations


def syntax_error(source: str) -> str:
    """Return why the text is no filter, or ""."""
    return "" if source else "empty"
