r"""Bringing a request's path to one form before intentions judge it, as Envoy does for a Consul sidecar.

Dot segments go (RFC 3986 section 5.2.4), `\` becomes `/`, an escape of an unreserved character is decoded (`%41` is
`A`, `%2e` a dot), and characters that no path may hold are escaped. `//`, `%2F`, case and `;` stay as they are unless
the `mesh` entry says otherwise. `%00` and `#` make a request that is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SEGMENT = r"[A-Za-z0-9\-_~!$&'()*+,;=:@][A-Za-z0-9\-._~!$&'()*+,;=:@]*"
_NORMAL = re.compile(rf"/|(?:/{_SEGMENT})+/?")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"%2[Ff]|%5[Cc]")
_TO_ESCAPE = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/%\[\]]")
_SLASHES = re.compile(r"/{2,}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
ESCAPED_SLASHES = frozenset(
    {"IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED", "REJECT_REQUEST"}
    | {"UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"}
)


@dataclass(frozen=True, slots=True)
class PathNormalization:
    """How paths are brought to one form (`mesh` HTTP.Incoming.RequestNormalization, Consul's names of the actions)."""

    enabled: bool = True
    merge_slashes: bool = False
    escaped_slashes: str = "IMPLEMENTATION_SPECIFIC_DEFAULT"
    underscores: str = "ALLOW"


def normalize(path: str, rules: PathNormalization) -> str | None:
    """Return the path to judge and to send on, or None when the request is to be answered with 400.

    `path` is origin-form without its query, latin-1 text. Normalising twice changes nothing more.
    """
    if not rules.enabled:
        return path
    if _NORMAL.fullmatch(path):
        return path
    if not path.startswith("/") or "#" in path or "%00" in path or "\x00" in path:
        return None
    if rules.escaped_slashes == "REJECT_REQUEST" and _ESCAPED_SLASH.search(path):
        return None
    if rules.escaped_slashes.startswith("UNESCAPE"):
        path = _ESCAPED_SLASH.sub("/", path)
    path = _ESCAPE.sub(_decode_unreserved, path.replace("\\", "/"))
    path = _TO_ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", path)
    if rules.merge_slashes:
        path = _SLASHES.sub("/", path)
    return _without_dots(path)


def must_redirect(path: str, rules: PathNormalization) -> bool:
    """Return whether the caller is to be sent to the unescaped path (`UNESCAPE_AND_REDIRECT`) instead of served."""
    return rules.enabled and rules.escaped_slashes == "UNESCAPE_AND_REDIRECT" and bool(_ESCAPED_SLASH.search(path))


def _decode_unreserved(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0]


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
            continue
        if last:
            kept.append("")
    return "/" + "/".join(kept)
