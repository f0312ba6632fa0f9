"""Paths of Consul's API, of which no part that came from outside can climb out."""

from __future__ import annotations

from urllib.parse import quote

from policies.errors import CatalogRefused


class Segment(str):
    """A path segment that came from outside; quoted as a whole."""

    __slots__ = ()


def path(*parts: str | Segment) -> str:
    """Return an API path. Raise CatalogRefused for a segment that could climb out of it."""
    quoted = []
    for part in parts:
        if isinstance(part, Segment) and (part in {"", ".", ".."} or "\x00" in part or "/" in part or "\\" in part):
            where = "/".join(parts)
            raise CatalogRefused(where, f"{str(part)!r} cannot be part of a path")
        quoted.append(quote(part, safe="") if isinstance(part, Segment) else part)
    return "/v1/" + "/".join(quoted)
