"""Which header modifiers can be made, and the variables in their values.

A modifier that would break a message (framing, Host, a line break) or that holds a variable which is not known here is
left out and told of; Envoy would throw the whole route table away for it. `%%` is one percent sign, `%NAME%` a
variable, `%NAME(argument)%` one with an argument, `%REQ(a?b):9%` the field `a` or else `b`, nine characters at most.

Known are, with the values that Envoy was seen to give them:

    DOWNSTREAM_REMOTE_ADDRESS, _WITHOUT_PORT, DOWNSTREAM_REMOTE_PORT    of the connection, or of the PROXY header before
                                                                        it, whatever X-Forwarded-For says
    DOWNSTREAM_LOCAL_ADDRESS, _WITHOUT_PORT, DOWNSTREAM_LOCAL_PORT      and DOWNSTREAM_DIRECT_… of all of these
    PROTOCOL   HOSTNAME   RESPONSE_CODE (0 in requests)   START_TIME, START_TIME(%s) (when the head is written)
    REQ(name), RESP(name), with `?other` and `:length`   QUERY_PARAM(name)
    DOWNSTREAM_PEER_…, DOWNSTREAM_LOCAL_URI_SAN, DOWNSTREAM_LOCAL_SUBJECT, DOWNSTREAM_TLS_…, REQUESTED_SERVER_NAME:
    nothing, for callers of these listeners speak plaintext

A value that comes out empty changes nothing. Not known are all others: of the endpoint (UPSTREAM_…, in requests empty
in Envoy too), of Envoy's own workings (filter state, metadata, flags), and ENVIRONMENT, which tells secrets.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policies.errors import EntryError
from policies.routes import HeaderModifiers

LEFT_OUT = "this modifier is left out"  # what is done about a complaint
_UNTOUCHABLE = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade"})
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t -~\x80-\U0010ffff]*")
_PIECE = re.compile(r"%(?:%|([A-Z][A-Z0-9_]*)(?:\(([^()]*)\))?(?::([0-9]{1,18}))?%)|([^%]+)")
_ADDRESSES = frozenset(
    f"DOWNSTREAM_{direct}{side}_{what}"
    for direct in ("", "DIRECT_")
    for side in ("REMOTE", "LOCAL")
    for what in ("ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT")
)
_ABSENT = frozenset(
    {"DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_LOCAL_SUBJECT", "REQUESTED_SERVER_NAME"}
    | {f"DOWNSTREAM_TLS_{what}" for what in ("VERSION", "CIPHER", "SESSION_ID")}
    | {f"DOWNSTREAM_PEER_{what}" for what in ("URI_SAN", "SUBJECT", "ISSUER", "SERIAL", "CERT")}
    | {f"DOWNSTREAM_PEER_{what}" for what in ("FINGERPRINT_1", "FINGERPRINT_256", "CERT_V_START", "CERT_V_END")}
)
_PLAIN = _ADDRESSES | _ABSENT | {"PROTOCOL", "HOSTNAME", "RESPONSE_CODE", "START_TIME"}
_WITH_ARGUMENT = frozenset({"REQ", "RESP", "QUERY_PARAM"})


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in a value. `others` are the names of fields or parameters to look at, `length` 0 is no limit."""

    name: str
    others: tuple[str, ...] = ()
    length: int = 0


@functools.lru_cache(maxsize=4096)  # every compile asks for the same ones again
def parse_value(text: str) -> tuple[str | Variable, ...]:
    """Return the pieces of a value, variables that are always empty left out. Raise EntryError for a bad one."""
    if not _VALUE.fullmatch(text):
        message = f"the value {text!r} holds a control character"
        raise EntryError(message)
    pieces: list[str | Variable] = []
    place = 0
    while place < len(text):
        found = _PIECE.match(text, place)
        if found is None:
            message = f"the value {text!r} has a lone % at position {place}: write %% for a percent sign"
            raise EntryError(message)
        place = found.end()
        if found[1] is not None:
            pieces.append(_variable(text, found[1], found[2], int(found[3] or 0)))
        else:
            pieces.append(found[4] or "%")
    return tuple(piece for piece in pieces if isinstance(piece, str) or piece.name not in _ABSENT)


def _variable(text: str, name: str, argument: str | None, length: int) -> Variable:
    others: tuple[str, ...] = ()
    if name in _WITH_ARGUMENT and argument:
        others = (argument,) if name == "QUERY_PARAM" else tuple(argument.lower().split("?"))
    elif name == "START_TIME" and argument == "%s":
        others = (argument,)
    elif name not in _PLAIN or argument is not None:
        message = f"the value {text!r} holds a variable that is not known here: {name}"
        raise EntryError(message)
    return Variable(name, others, length)


def complaints(levels: Iterable[HeaderModifiers | None]) -> tuple[str, ...]:
    """Return what is wrong with the modifiers that cannot be made."""
    return tuple(dict.fromkeys(text for level in levels if level is not None for text in _complaints(level)))


def _complaints(modifiers: HeaderModifiers) -> Iterator[str]:
    for word, pairs in (("Set", modifiers.set), ("Add", modifiers.add)):
        for name, text in pairs:
            try:
                check(name, text)
            except EntryError as error:
                yield f"{word} of header {name!r}: {error}"
    for name in modifiers.remove:
        if not touchable(name):
            yield f"Remove of header {name!r}: {_REFUSED}"


_REFUSED = "it is not for modifiers to change"


def touchable(name: str) -> bool:
    """Return whether a modifier may change a header of that (lower case) name."""
    return name not in _UNTOUCHABLE and _NAME.fullmatch(name) is not None


def check(name: str, text: str) -> tuple[str | Variable, ...]:
    """Return the pieces of the value of a header to be set or added. Raise EntryError when it cannot be."""
    if not touchable(name):
        raise EntryError(_REFUSED)
    return parse_value(text)


def usable(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, tuple[str | Variable, ...]]]:
    """Return those headers to be set or added that can be, with the pieces of their values."""
    for name, text in pairs:
        try:
            pieces = check(name, text)
        except EntryError:
            continue
        if pieces:
            yield name, pieces
