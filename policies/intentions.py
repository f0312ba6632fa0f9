"""Intentions: who may call whom, in Consul's precedence, with the reason of every answer.

The first intention whose source is the caller or `*` decides; nothing later is asked. At L4 its action is the answer.
At L7 its permissions are walked in order and the first that matches decides; when none does, the *default* decides, not
a lower intention. An L7 intention never allows a tcp connection. What cannot be understood fails closed: a permission
with a regular expression that does not compile never allows and always denies, and so does one that asks for a JWT.
Source: `GET /v1/connect/intentions/match`, Consul's documentation of intentions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from policies.errors import EntryError, Problem, unknown_field
from policies.matching import (
    Headers,
    PathMatch,
    RequestTest,
    ValueMatch,
    parse_methods,
    parse_path,
    parse_values,
    unknown,
    unknown_in_values,
)
from policies.weak import items, mapping

WILDCARD = "*"


class Action(enum.Enum):
    """What an intention or the default says."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Permission:
    """One L7 rule. `broken` says why it cannot be understood; then an allow never matches and a deny always does."""

    action: Action
    path: PathMatch | None
    methods: frozenset[str]
    headers: tuple[ValueMatch, ...]
    broken: str = ""

    def __str__(self) -> str:
        """Return the rule for a person: `deny GET,PUT prefix /admin`."""
        parts = [self.action.value]
        if self.methods:
            parts.append(",".join(sorted(self.methods)))
        if self.path is not None:
            parts.append(f"{self.path.kind} {self.path.source}")
        parts += [f"{'not ' if match.invert else ''}header {match.name}" for match in self.headers]
        return " ".join(parts) + (f" ({self.broken})" if self.broken else "")


@dataclass(frozen=True, slots=True)
class Intention:
    """One row. `action` is None when `permissions` decide."""

    source: str
    destination: str
    precedence: int
    action: Action | None
    permissions: tuple[Permission, ...]
    peer: str = ""
    broken: str = ""

    def __str__(self) -> str:
        """Return the intention for a person: `web => api (precedence 9)`."""
        source = f"peer:{self.peer}/{self.source}" if self.peer else self.source
        return f"{source} => {self.destination} (precedence {self.precedence})"


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer with its reason. `intention` None: the default decided."""

    allowed: bool
    because: str
    intention: Intention | None = None
    permission: int | None = None  # position in intention.permissions, from 0


class SourcePolicy:
    """What the intentions of a destination say to one source; made once per connection.

    `constant` is the answer that holds for every request, or None when each request is to be asked.
    `connection` is the answer to a tcp connection.
    """

    __slots__ = ("_fallback", "_rules", "connection", "constant")

    def __init__(
        self,
        connection: Decision,
        rules: tuple[tuple[RequestTest | None, Decision], ...] | None = None,
        fallback: Decision | None = None,
    ) -> None:
        self.connection = connection
        self.constant = connection if rules is None else None
        self._rules = rules or ()
        self._fallback = fallback or connection

    @property
    def denies_all(self) -> bool:
        """Return whether no request of this source is allowed, whatever it asks for."""
        return self.constant is not None and not self.constant.allowed

    def request(self, method: str, path: str, headers: Headers) -> Decision:
        """Return the answer to one HTTP request. `path` is normalised and without its query."""
        for test, decision in self._rules:
            if test is None or test(method, path, headers):
                return decision
        return self._fallback


class Policy(Protocol):
    """What is said to one source: of a `SourcePolicy`, or of a forward proxy."""

    @property
    def connection(self) -> Decision:
        """Return the answer to a tcp connection."""
        ...

    @property
    def constant(self) -> Decision | None:
        """Return the answer that holds for every request, if there is one."""
        ...

    @property
    def denies_all(self) -> bool:
        """Return whether no request is allowed, whatever it asks for."""
        ...

    def request(self, method: str, path: str, headers: Headers) -> Decision:
        """Return the answer to one HTTP request."""
        ...


class Rules(Protocol):
    """What says to a source what it may: the intentions of a destination, or of all that a gateway leads to."""

    def for_source(self, source: str, default: Action) -> Policy:
        """Return what holds for a local service of this name."""
        ...


@dataclass(frozen=True, slots=True)
class Intentions:
    """The intentions of one destination (its own rows and those of `*`), in order of precedence."""

    rows: tuple[Intention, ...] = ()
    _first: Mapping[str, int] = field(init=False, repr=False, compare=False)  # row of a local source, by its name

    def __post_init__(self) -> None:
        """Find the first row of every source: of 5,000 rows a connection asks for one."""
        first: dict[str, int] = {}
        for position, row in enumerate(self.rows):
            if not row.peer:
                first.setdefault(row.source, position)
        object.__setattr__(self, "_first", first)

    def for_source(self, source: str, default: Action) -> SourcePolicy:
        """Return what holds for a local service of this name."""
        nobody = len(self.rows)
        position = min(self._first.get(source, nobody), self._first.get(WILDCARD, nobody))
        if position == nobody:
            return SourcePolicy(_by_default(default, f"no intention has source {source} or *"))
        return _policy(self.rows[position], default)


def _by_default(default: Action, why: str) -> Decision:
    return Decision(default is Action.ALLOW, f"{why}: the default is {default.value}")


def _policy(intention: Intention, default: Action) -> SourcePolicy:
    if intention.broken:
        return SourcePolicy(Decision(False, f"intention {intention}: {intention.broken}, denied", intention))
    if intention.action is not None:
        allowed = intention.action is Action.ALLOW
        return SourcePolicy(Decision(allowed, f"intention {intention}: {intention.action.value}", intention))
    refused = Decision(False, f"intention {intention} has HTTP permissions, which never allow tcp", intention)
    rules = tuple(
        (_test(permission), _rule_decision(intention, position, permission))
        for position, permission in enumerate(intention.permissions)
        if not (permission.broken and permission.action is Action.ALLOW)
    )
    fallback = _by_default(default, f"no permission of intention {intention} matches")
    return SourcePolicy(refused, rules, fallback)


def _test(permission: Permission) -> RequestTest | None:
    if permission.broken:
        return None
    denies = permission.action is Action.DENY
    return RequestTest(permission.path, permission.methods, permission.headers, denies=denies)


def _rule_decision(intention: Intention, position: int, permission: Permission) -> Decision:
    because = f"intention {intention}, permission {position + 1}: {permission}"
    return Decision(permission.action is Action.ALLOW, because, intention, position)


# --- parsing -------------------------------------------------------------------------------------------------------


def parse_intentions(
    rows: Sequence[Mapping[str, Any]], before: Intentions = Intentions()
) -> tuple[Intentions, tuple[Problem, ...]]:
    """Return the intentions in order and what could not be understood. The order of the rows does not matter.

    An intention that has not changed is the very object of before.
    """
    problems: list[Problem] = []
    known = {(row.peer, row.source, row.destination): row for row in before.rows}
    parsed = [_kept(known, _intention(row, problems)) for row in rows]
    parsed.sort(key=lambda row: (-row.precedence, row.peer, row.source, row.destination))
    return Intentions(tuple(parsed)), tuple(problems)


def _kept(known: Mapping[tuple[str, str, str], Intention], new: Intention) -> Intention:
    old = known.get((new.peer, new.source, new.destination))
    return old if old is not None and old == new else new


_KNOWN = frozenset(
    {"SourceName", "SourcePeer", "SourceNS", "SourcePartition", "SourceType"}
    | {"DestinationName", "DestinationNS", "DestinationPartition"}
)
_DESCRIBING = frozenset(
    {"ID", "Description", "Meta", "Precedence", "CreatedAt", "UpdatedAt", "Hash", "CreateIndex", "ModifyIndex"}
    | {"LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime", "Action", "Permissions", "JWT"}
)
_KNOWN_IN_PERMISSION = frozenset({"Action", "HTTP", "JWT"})
_KNOWN_IN_HTTP = frozenset({"PathExact", "PathPrefix", "PathRegex", "Header", "Methods"})


def _unknown_in(permission: Mapping[str, Any]) -> str:
    http = mapping(permission.get("HTTP"))
    return (
        unknown(permission, _KNOWN_IN_PERMISSION)
        or unknown(http, _KNOWN_IN_HTTP)
        or unknown_in_values(http.get("Header"))
    )


def _unknown_of(row: Mapping[str, Any]) -> str:
    """Return what narrows an intention down by something unknown; what only describes it has other names."""
    return unknown({key: row[key] for key in row if key.startswith(("Source", "Destination"))}, _KNOWN)


def _intention(row: Mapping[str, Any], problems: list[Problem]) -> Intention:
    source, destination = str(row.get("SourceName") or ""), str(row.get("DestinationName") or "")
    where = f"intention {source} => {destination}"
    permissions = tuple(
        _permission(mapping(permission), f"{where} permission {position + 1}", problems)
        for position, permission in enumerate(items(row.get("Permissions")))
    )
    broken = ""
    action = None if permissions else _action(row.get("Action"))
    if row.get("JWT"):
        broken = "it asks for a JWT, which is not supported"
    elif criterion := _unknown_of(row):
        broken = f"its {criterion} is not understood"
    elif action is None and not permissions:
        broken = f"its action {row.get('Action')!r} is not allow or deny"
    if broken:
        problems.append(Problem(where, broken, "every request of this source is denied"))
    elif strange := unknown(row, _KNOWN | _DESCRIBING):
        problems.append(unknown_field(where, strange))
    return Intention(
        source=source,
        destination=destination,
        precedence=int(row.get("Precedence") or _precedence(source, destination)),
        action=action,
        permissions=permissions,
        peer=str(row.get("SourcePeer") or ""),
        broken=broken,
    )


def _precedence(source: str, destination: str) -> int:
    """Return Consul's precedence: the destination's exactness outranks the source's."""
    return (9 if destination != WILDCARD else 6) - (1 if source == WILDCARD else 0)


def _action(value: object) -> Action | None:
    return {"allow": Action.ALLOW, "deny": Action.DENY}.get(str(value).lower())


def _permission(row: Mapping[str, Any], where: str, problems: list[Problem]) -> Permission:
    http = mapping(row.get("HTTP"))
    action = _action(row.get("Action"))
    broken, path = "", parse_path(http)
    headers: tuple[ValueMatch, ...] = ()
    try:
        headers = parse_values(http.get("Header"))
        RequestTest(path, frozenset(), headers)
    except EntryError as error:
        broken = str(error)
    if row.get("JWT"):
        broken = "it asks for a JWT, which is not supported"
    elif criterion := _unknown_in(row):
        broken = f"its {criterion} is not understood"
    elif action is None:
        broken = f"its action {row.get('Action')!r} is not allow or deny"
    if broken:
        effect = "it never allows" if action is Action.ALLOW else "it always denies"
        problems.append(Problem(where, broken, effect))
    return Permission(action or Action.DENY, path, parse_methods(http), headers, broken)
