"""Tokens: how long they live, what they may use, who made them; and answers that wait in a wrapping token."""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lictor.dev.vault.answers import Ask, Failed, Json
from lictor.dev.vault.fields import go_duration

LONGEST_TTL = 32 * 24 * 3600.0  # Vault's own default of default and max lease
_LETTERS = string.ascii_letters + string.digits


@dataclass(slots=True)
class Token:
    """A token. Times in seconds since 1970; `expires` 0 is never.

    `uses`: those left, `uses_given` at first. `longest`: its explicit longest life, `max_ttl` that of mount or role.
    `cidrs`: from where it may be used. `mount`: where it was made, such as auth/approle/.
    """

    id: str = field(repr=False)
    accessor: str = field(repr=False)
    policies: list[str]
    created: float
    expires: float
    ttl: float
    period: float = 0.0
    longest: float = 0.0
    max_ttl: float = LONGEST_TTL
    uses: int = 0
    uses_given: int = 0
    orphan: bool = False
    renewable: bool = True
    parent: str = field(default="", repr=False)
    path: str = "auth/token/create"
    display_name: str = "token"
    meta: dict[str, str] | None = None
    entity: str = ""
    kind: str = "service"
    renewed: float = 0.0
    cidrs: list[str] = field(default_factory=list)
    mount: str = "auth/token/"
    wrapped_accessor: str = field(default="", repr=False)


class Tokens:
    """Every token that is alive."""

    def __init__(self, root: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.by_id: dict[str, Token] = {}
        self.wrapped: dict[str, Json] = {}  # by the wrapping token
        now = clock()
        self.by_id[root] = Token(
            root, _random(24), ["root"], now, 0.0, 0.0, orphan=True, path="auth/token/root", display_name="root"
        )

    def make(self, policies: list[str], ttl: float, *, identifier: str = "", **more: Any) -> Token:
        """Return a new token that lives for `ttl` seconds; 0 is for ever."""
        now = self._clock()
        found = identifier or f"s.{_random(24)}"
        token = Token(found, _random(24), policies, now, now + ttl if ttl else 0.0, ttl, **more)
        token.uses_given = token.uses
        self.by_id[token.id] = token
        return token

    def find(self, identifier: str) -> Token | None:
        """Return a token that is alive."""
        token = self.by_id.get(identifier)
        if token is not None and token.expires and token.expires <= self._clock():
            self.revoke(token)
            return None
        return token

    def by_accessor(self, accessor: str) -> Token | None:
        """Return a token that is alive by its public name."""
        found = next((token for token in self.by_id.values() if token.accessor == accessor), None)
        return self.find(found.id) if found is not None else None

    def accessors(self) -> list[str]:
        """Return the public names of all that are alive."""
        return [token.accessor for token in list(self.by_id.values()) if self.find(token.id) is not None]

    def spend(self, token: Token) -> None:
        """Count a use. The last one ends the token at once: what it asks just now is answered all the same."""
        if token.uses:
            token.uses -= 1
            if not token.uses:
                self.revoke(token)
                token.uses = -1  # as a lookup of its own tells it, just this once

    def revoke(self, token: Token, *, alone: bool = False) -> None:
        """End a token and what it made; `alone`: that lives on without a parent."""
        self.by_id.pop(token.id, None)
        self.wrapped.pop(token.id, None)
        for child in [one for one in self.by_id.values() if one.parent == token.id and not one.orphan]:
            if alone:
                child.orphan = True
            else:
                self.revoke(child)

    def revoke_mount(self, mount: str) -> None:
        """End every token that was made at a mount."""
        for token in [one for one in self.by_id.values() if one.mount == mount]:
            self.revoke(token)

    def renew(self, token: Token, increment: float) -> tuple[float, list[str]]:
        """Let a token live on. Return for how long, and what to warn of. Raise Failed."""
        if not token.expires:
            raise Failed(400, "invalid lease ID")
        if not token.renewable:
            raise Failed(400, "lease is not renewable")
        now = self._clock()
        lived = now - token.created
        explicit = token.longest - lived if token.longest else 0.0
        life, warnings = life_of(increment or token.ttl, token.period, explicit, token.max_ttl - lived)
        token.expires, token.renewed = now + life, now
        return life, warnings

    def left(self, token: Token) -> int:
        """Return how many seconds a token has left; 0 for one that never ends."""
        return max(0, int(token.expires - self._clock())) if token.expires else 0

    # --- wrapping ---

    def wrap(self, answer: Json, ask: Ask, accessor: str) -> Json:
        """Return the `wrap_info` of an answer that waits for its one reader."""
        now = self._clock()
        token = Token(
            f"s.{_random(24)}", _random(24), ["response-wrapping"], now, now + ask.wrap, ask.wrap, uses=1, orphan=True
        )
        token.path, token.renewable, token.uses_given = ask.path, False, 1
        token.wrapped_accessor, token.longest = accessor, ask.wrap
        by = self.find(ask.token)
        token.display_name = by.display_name if by is not None else ""
        self.by_id[token.id] = token
        self.wrapped[token.id] = answer
        info = {
            "token": token.id,
            "accessor": token.accessor,
            "ttl": int(ask.wrap),
            "creation_time": stamp(now),
            "creation_path": ask.path,
        }
        return {**info, **({"wrapped_accessor": accessor} if accessor else {})}

    def wrapping(self, identifier: str) -> Token:
        """Return a wrapping token. Raise Failed for one that is none."""
        if not identifier:
            raise Failed(403, "error validating wrapping token: token is empty")
        token = self.find(identifier)
        if token is None or identifier not in self.wrapped:
            raise Failed(400, "wrapping token is not valid or does not exist")
        return token

    def unwrap(self, identifier: str) -> Json:
        """Return what waits in a wrapping token, once. Raise Failed."""
        token = self.wrapping(identifier)
        answer = self.wrapped[token.id]
        self.revoke(token)
        return answer

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, secrets included."""
        return {"tokens": [asdict(token) for token in self.by_id.values()], "wrapped": self.wrapped}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.by_id = {row["id"]: Token(**row) for row in kept["tokens"]}
        self.wrapped = dict(kept["wrapped"])


def stamp(moment: float) -> str:
    """Return a time as Vault writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def auth_of(token: Token, left: float) -> Json:
    """Return the `auth` of a login or of a new token."""
    return {
        "client_token": token.id,
        "accessor": token.accessor,
        "policies": token.policies,
        "token_policies": token.policies,
        "metadata": token.meta,
        "lease_duration": int(left),
        "renewable": token.renewable,
        "entity_id": token.entity,
        "token_type": token.kind,
        "orphan": token.orphan,
        "mfa_requirement": None,
        "num_uses": token.uses_given,
    }


def life_of(ttl: float, period: float, explicit: float, max_ttl: float) -> tuple[float, list[str]]:
    """Return how long a token may live, and what to warn of: a period is bound by the explicit limit alone."""
    wanted, what = (period, "period") if period else (ttl, "TTL")
    limits = [one for one in (explicit, 0.0 if period else max_ttl) if one]
    limit = round(min(limits, default=0.0))
    if not limit or wanted <= limit:
        return wanted, []
    told = f'"{go_duration(wanted, short=True)}" exceeded the effective max_ttl of "{go_duration(limit, short=True)}"'
    return float(limit), [f"{what} of {told}; {what} value is capped accordingly"]


def row_of(token: Token, left: int) -> Json:
    """Return what a lookup tells of a token."""
    row: Json = {
        "accessor": token.accessor,
        "creation_time": int(token.created),
        "creation_ttl": int(token.ttl),
        "display_name": token.display_name,
        "entity_id": token.entity,
        "expire_time": stamp(token.expires) if token.expires else None,
        "explicit_max_ttl": int(token.longest),
        "id": token.id,
        "issue_time": stamp(token.created),
        "meta": token.meta,
        "num_uses": token.uses,
        "orphan": token.orphan,
        "path": token.path,
        "policies": token.policies,
        "renewable": token.renewable,
        "ttl": left,
        "type": token.kind,
    }
    if not token.expires:
        del row["issue_time"], row["renewable"]
    if token.period:
        row["period"] = int(token.period)
    if token.renewed:
        row |= {"last_renewal": stamp(token.renewed), "last_renewal_time": int(token.renewed)}
    return row


def new_id() -> str:
    """Return a random identifier."""
    return str(uuid.uuid4())


NOBODY = Token("", "", [], 0.0, 0.0, 0.0)
