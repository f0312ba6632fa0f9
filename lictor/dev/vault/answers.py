"""What goes in and out of the dev Vault, apart from HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from policies.errors import MeshError

Json = dict[str, Any]


class Failed(MeshError):
    """An answer that is an error: its status and Vault's texts."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__("; ".join(errors))
        self.status = status
        self.errors = errors


class Internal(Failed):
    """An error that Vault does not phrase for its caller: told in a list of one, except where no token is asked."""

    def listed(self) -> Failed:
        """Return it as one who has shown a token hears it."""
        return Failed(self.status, *(one_error(text) for text in self.errors))


def one_error(text: str) -> str:
    """Return a text in a list of one."""
    return f"1 error occurred:\n\t* {text}\n\n"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `operation`: read, update, list or delete. `wrap`: seconds, 0 is not at all. `remote`: who asks."""

    operation: str
    path: str
    data: Mapping[str, Any] = field(default_factory=dict)
    token: str = field(default="", repr=False)
    wrap: float = 0.0
    remote: str = "127.0.0.1"

    @property
    def route(self) -> str:
        """Return the path as Vault routes it: that of a list ends in a slash."""
        return f"{self.path}/" if self.operation == "list" else self.path


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    `flat` data stand at the top, without an envelope; `twice`: both there and in the envelope. `raw`: a body that is no
    JSON, and its type. `accessor`: of what a wrapped answer holds. `wrap_info`: of an answer that is wrapped already.
    """

    data: Json | None = None
    auth: Json | None = None
    flat: bool = False
    twice: bool = False
    status: int = 200
    raw: tuple[bytes, str] | None = None
    warnings: tuple[str, ...] = ()
    accessor: str = ""
    wrap_info: Json | None = None

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to tell."""
        return self.data is None and self.auth is None and not self.warnings and self.wrap_info is None

    def warned(self, *warnings: str) -> Self:
        """Return it with more warnings."""
        return replace(self, warnings=(*self.warnings, *warnings)) if warnings else self


NOTHING = Reply(status=204)


def keys_of(names: list[str], info: Json | None = None) -> Reply:
    """Return a list as Vault tells it: an empty one is 404."""
    if not names:
        raise Failed(404)
    return Reply({"keys": names, **({"key_info": info} if info is not None else {})})


def not_here(ask: Ask) -> Failed:
    """Return the error of an endpoint that the dev server has not: it cannot know whether a real Vault has it."""
    return Failed(404, f"{ask.operation} {ask.path}: the dev server of Lictor does not do this; a real Vault may")


def not_so(what: str) -> Failed:
    """Return the error of a use of an endpoint that the dev server has not."""
    return Failed(404, f"{what}: the dev server of Lictor does not do this; a real Vault may")
