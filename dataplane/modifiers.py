"""Header modifiers on the wire: removes, then sets, then adds, level after level.

Values and variables are those of `policies.modifiers`, which also says which modifiers are left out. A value that comes
out empty changes nothing. The fields that REQ and RESP tell of are those of the level before.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dataplane.heads import RequestHead, ResponseHead, without
from policies.matching import on_the_wire
from policies.modifiers import Variable, touchable, usable
from policies.routes import HeaderModifiers, parameter

if TYPE_CHECKING:
    from dataplane.downstream import Downstream

_Pieces = tuple[str | Variable, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """What variables tell of: the caller's connection, its request, and the answer once there is one."""

    downstream: Downstream
    request: RequestHead | None
    response: ResponseHead | None = None

    def hiding(self, names: frozenset[bytes]) -> Moment:
        """Return the moment with fields taken out of the message that is being changed."""
        if self.response is not None:
            return replace(self, response=self.response.with_lines(without(self.response.lines, names)))
        if self.request is not None:
            self.request.change(without(self.request.lines, names))
        return self

    def value(self, variable: Variable) -> str:
        """Return what a variable stands for; empty where there is nothing to tell."""
        found = next(filter(None, (self._value(variable.name, other) for other in variable.others or ("",))), "")
        return found[: variable.length] if variable.length else found

    def _value(self, name: str, argument: str) -> str:  # a table in the form of a match
        request, response = self.request, self.response
        match name:
            case "PROTOCOL":
                return "HTTP/1.1"
            case "HOSTNAME":
                return socket.gethostname()
            case "RESPONSE_CODE":
                return str(response.status if response is not None else 0)
            case "START_TIME":
                return _start_time(argument)
            case "QUERY_PARAM":
                return (parameter(request.query, argument) or "") if request is not None else ""
            case "REQ":
                return _of_request(request, argument) if request is not None else ""
            case "RESP":
                return _of_response(response, argument) if response is not None else ""
            case _:
                return self._address(name)

    def _address(self, name: str) -> str:
        told = self.downstream.keeper.client if "_REMOTE_" in name and "_DIRECT_" not in name else None
        key = "peername" if "_REMOTE_" in name else "sockname"
        host, port = (*(told or self.downstream.transport.get_extra_info(key) or ("", 0)),)[:2]
        if name.endswith("_PORT") and not name.endswith("_WITHOUT_PORT"):
            return str(port)
        if name.endswith("_WITHOUT_PORT"):
            return str(host)
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _start_time(form: str) -> str:
    now = time.time()
    if form:
        return str(int(now))
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of_request(head: RequestHead, name: str) -> str:
    match name:
        case ":method":
            return head.method
        case ":path":
            return head.target.decode("latin-1")
        case ":authority":
            return _field(head.lines, "host")
        case _:
            return _field(head.lines, name)


def _of_response(head: ResponseHead, name: str) -> str:
    return str(head.status) if name == ":status" else _field(head.lines, name)


def _field(lines: bytes, name: str) -> str:
    """Return the value of the first line of a name."""
    pattern = rb"(?im)^%b:[ \t]*([^\r\n]*)" % re.escape(name.encode("latin-1", "replace"))
    found = re.search(pattern, lines)
    return found[1].decode("latin-1").rstrip(" \t") if found else ""


@dataclass(frozen=True, slots=True)
class Edit:
    """The modifiers of one level, ready to apply. `drop` goes away in any case, `fixed` comes in its place.

    `unseen` is what is removed before variables are looked at, as Envoy does: those of this level do not see it.
    """

    unseen: frozenset[bytes]
    drop: frozenset[bytes]
    fixed: bytes
    sets: tuple[tuple[bytes, _Pieces], ...]  # with variables
    adds: tuple[tuple[bytes, _Pieces], ...]

    @property
    def varies(self) -> bool:
        """Return whether there are variables in it."""
        return bool(self.sets) or any(_varies(pieces) for _, pieces in self.adds)

    def apply(self, lines: bytes, moment: Moment) -> bytes:
        """Return the field lines after this level."""
        if self.unseen:
            moment = moment.hiding(self.unseen)
        sets = [(name, text) for name, pieces in self.sets if (text := _text(pieces, moment))]
        adds = b"".join(_line(name, text) for name, pieces in self.adds if (text := _text(pieces, moment)))
        drop = self.drop | {name for name, _ in sets} if sets else self.drop
        if drop:
            lines = without(lines, drop)
        return lines + self.fixed + b"".join(_line(name, text) for name, text in sets) + adds


def compile_edits(levels: Sequence[HeaderModifiers | None]) -> tuple[Edit, ...]:
    """Return the edits of the levels that change something, in order."""
    return tuple(_edit(level) for level in levels if level is not None)


def _edit(modifiers: HeaderModifiers) -> Edit:
    sets, adds = _ready(modifiers.set), _ready(modifiers.add)
    removed = {name.encode() for name in modifiers.remove if touchable(name)}
    fixed = {name: "".join(map(str, pieces)) for name, pieces in sets if not _varies(pieces)}
    varies = any(_varies(pieces) for _, pieces in (*sets, *adds))
    return Edit(
        frozenset(removed if varies else ()),
        frozenset(removed | fixed.keys()),
        b"".join(_line(name, text) for name, text in fixed.items()),
        tuple((name, pieces) for name, pieces in sets if _varies(pieces)),
        adds,
    )


def _ready(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[bytes, _Pieces], ...]:
    return tuple(
        (name.encode(), tuple(on_the_wire(piece) if isinstance(piece, str) else piece for piece in pieces))
        for name, pieces in usable(pairs)
    )


def _varies(pieces: _Pieces) -> bool:
    return any(isinstance(piece, Variable) for piece in pieces)


def _text(pieces: _Pieces, moment: Moment) -> str:
    return "".join(piece if isinstance(piece, str) else moment.value(piece) for piece in pieces)


def _line(name: bytes, text: str) -> bytes:
    return b"%b: %b\r\n" % (name, text.encode("latin-1", "replace"))
