"""Tokens: how long they live, what they may use, who made them; and answers that wait in a wrapping token."""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lictor.dev.vault.answers import NOTHING, Ask, Failed, Json, Reply, not_here

LONGEST_TTL = 32 * 24 * 3600.0  # Vault's own default of default and max lease
_LETTERS = string.ascii_letters + string.digits


@dataclass(slots=True)
class Token:
    """A token. Times in seconds since 1970; `expires` 0 is never."""

    id: str = field(repr=False)
    accessor: str = field(repr=False)
    policies: list[str]
    created: float
    expires: float
    ttl: float
    period: float = 0.0
    longest: float = 0.0
    uses: int = 0
    orphan: bool = False
    renewable: bool = True
    parent: str = field(default="", repr=False)
    path: str = "auth/token/create"
    display_name: str = "token"
    meta: dict[str, str] | None = None
    entity: str = ""
    kind: str = "service"


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

    def make(self, policies: list[str], ttl: float, **more: Any) -> Token:
        """Return a new token."""
        now = self._clock()
        period = float(more.get("period") or 0.0)
        longest = float(more.get("longest") or 0.0)
        life = period or ttl or LONGEST_TTL
        life = min(life, longest) if longest else life
        token = Token(f"s.{_random(24)}", _random(24), policies, now, now + life, life, **more)
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
        """Return a token by its public name."""
        return next((token for token in self.by_id.values() if token.accessor == accessor), None)

    def spend(self, token: Token) -> None:
        """Count a use; the last one ends the token."""
        if token.uses:
            token.uses -= 1
            if not token.uses:
                self.revoke(token)

    def revoke(self, token: Token) -> None:
        """End a token and what it made."""
        self.by_id.pop(token.id, None)
        self.wrapped.pop(token.id, None)
        for child in [one for one in self.by_id.values() if one.parent == token.id and not one.orphan]:
            self.revoke(child)

    def renew(self, token: Token, increment: float) -> None:
        """Let a token live on."""
        now = self._clock()
        life = token.period or increment or token.ttl
        end = now + life
        token.expires = min(end, token.created + token.longest) if token.longest else end

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
        token.path, token.renewable = ask.path, False
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

    def unwrap(self, identifier: str) -> Json:
        """Return what waits in a wrapping token, once. Raise Failed."""
        token = self.find(identifier)
        if token is None or identifier not in self.wrapped:
            raise Failed(400, "wrapping token is not valid or does not exist")
        answer = self.wrapped[identifier]
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
        "num_uses": token.uses,
    }


class TokenAuth:
    """auth/token."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def answer(self, ask: Ask, own: Token) -> Reply:  # noqa: C901 - a table of paths
        """Answer a request under auth/token; `own` is the token that asks."""
        match ask.operation, ask.path.removeprefix("auth/token/"):
            case "update", "create" | "create-orphan" as word:
                return self._create(ask, own, orphan=word == "create-orphan")
            case "read" | "update", "lookup-self":
                return Reply(self._row(own))
            case "update", "lookup":
                return Reply(self._row(self._named(ask)))
            case "update", "lookup-accessor":
                return Reply({**self._row(self._by_accessor(ask)), "id": ""})
            case "update", "renew-self":
                return self._renew(own, ask)
            case "update", "renew":
                return self._renew(self._named(ask), ask)
            case "update", "revoke-self":
                self._tokens.revoke(own)
                return NOTHING
            case "update", "revoke":
                self._tokens.revoke(self._named(ask))
                return NOTHING
            case "update", "revoke-accessor":
                self._tokens.revoke(self._by_accessor(ask))
                return NOTHING
            case "list", "accessors":
                return Reply({"keys": [token.accessor for token in self._tokens.by_id.values()]})
        raise not_here(ask)

    def _create(self, ask: Ask, own: Token, *, orphan: bool) -> Reply:
        asked = ask.words("policies")
        if "root" not in own.policies and not set(asked) <= set(own.policies):
            raise Failed(400, "child policies must be subset of parent")
        policies = sorted({*(asked or own.policies)})
        if "root" not in policies and not ask.flag("no_default_policy"):
            policies = sorted({*policies, "default"})
        token = self._tokens.make(
            policies,
            ask.seconds("ttl"),
            period=ask.seconds("period"),
            longest=ask.seconds("explicit_max_ttl"),
            uses=int(ask.data.get("num_uses") or 0),
            orphan=orphan or ask.flag("no_parent"),
            parent=own.id,
            meta=ask.data.get("meta"),
            display_name=f"token-{ask.text('display_name')}" if ask.text("display_name") else "token",
            renewable=ask.flag("renewable", default=True),
        )
        return Reply(auth=auth_of(token, token.ttl), accessor=token.accessor)

    def _renew(self, token: Token, ask: Ask) -> Reply:
        if not token.renewable or not token.expires:
            raise Failed(400, "lease is not renewable")
        self._tokens.renew(token, ask.seconds("increment"))
        return Reply(auth=auth_of(token, round(token.expires - self._tokens._clock())))  # noqa: SLF001 - its own module

    def _named(self, ask: Ask) -> Token:
        token = self._tokens.find(ask.text("token"))
        if token is None:
            raise Failed(403, "bad token")
        return token

    def _by_accessor(self, ask: Ask) -> Token:
        token = self._tokens.by_accessor(ask.text("accessor"))
        if token is None:
            raise Failed(403, "invalid accessor")
        return token

    def _row(self, token: Token) -> Json:
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
            "ttl": self._tokens.left(token),
            "type": token.kind,
        }
        if not token.expires:
            del row["issue_time"], row["renewable"]
        return {**row, "period": int(token.period)} if token.period else row


def new_id() -> str:
    """Return a random identifier."""
    return str(uuid.uuid4())
