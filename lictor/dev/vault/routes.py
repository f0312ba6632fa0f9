"""Which path does what: a table of patterns, looked up from its top. A path that none of them fits is not done here."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.vault.answers import Ask, Internal, Json, Reply, not_here
from lictor.dev.vault.fields import Kinds, taken
from lictor.dev.vault.tokens import Token

_NAME = re.compile(r"\{(\w+)(\*?)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request at its handler: the names in its path, what was given by kind, and the token that asks."""

    ask: Ask
    own: Token
    names: Mapping[str, str] = field(default_factory=dict)
    given: Json = field(default_factory=dict)

    def get(self, name: str, default: Any = "") -> Any:
        """Return what was given by a name; "" if nothing was."""
        return self.given.get(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a flag that was given."""
        return bool(self.given.get(name, default))


Handler = Callable[[Call], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """A pattern such as `role/{name}`, `{path*}` for several segments; who answers which operation; what it takes.

    `prefix` begins the text about a field of the wrong kind. `loose`: what is given needs no kind.
    """

    pattern: str
    handlers: Mapping[str, Handler]
    kinds: Kinds = field(default_factory=dict)
    prefix: str = "Field validation failed: "
    loose: bool = False

    def names(self, path: str) -> dict[str, str] | None:
        """Return the names in a path, or None for one that does not fit."""
        fits = _compiled(self.pattern).fullmatch(path)
        return fits.groupdict() if fits is not None else None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_NAME.sub(lambda found: f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})", pattern))


def answer(routes: Sequence[Route], ask: Ask, path: str, own: Token) -> Reply:
    """Answer a request; `path` is that below the mount. Raise Failed."""
    for route in routes:
        names = route.names(path)
        if names is None:
            continue
        handler = route.handlers.get(ask.operation)
        if handler is None and ask.operation == "list":
            continue  # a list ends in a slash: another path
        if handler is None:
            raise Internal(405, "unsupported operation")
        if route.loose:
            return handler(Call(ask, own, names, dict(ask.data)))
        given, unknown = taken(ask.data, route.kinds, route.prefix)
        reply = handler(Call(ask, own, names, given))
        if unknown and ask.operation == "update" and not reply.empty:
            return reply.warned(f"Endpoint ignored these unrecognized parameters: [{' '.join(unknown)}]")
        return reply
    raise not_here(ask)
