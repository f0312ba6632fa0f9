"""auth/token: what makes, shows, renews and ends tokens. Source: Vault's HTTP API, "Token auth method"."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Ask, Failed, Internal, Json, Reply, keys_of, not_so
from lictor.dev.vault.fields import Unfit, parse_seconds
from lictor.dev.vault.routes import Call, Route, answer
from lictor.dev.vault.tokens import LONGEST_TTL, Token, Tokens, auth_of, life_of, row_of

_CREATE: fields.Kinds = {
    "display_name": fields.text,
    "entity_alias": fields.text,
    "explicit_max_ttl": fields.text,
    "id": fields.text,
    "lease": fields.text,
    "meta": fields.pairs,
    "no_default_policy": fields.flag,
    "no_parent": fields.flag,
    "num_uses": fields.number,
    "period": fields.text,
    "policies": fields.words,
    "renewable": fields.flag,
    "ttl": fields.text,
    "type": fields.text,
}
_TOKEN: fields.Kinds = {"token": fields.text}
_ACCESSOR: fields.Kinds = {"accessor": fields.text}
_INCREMENT: fields.Kinds = {"increment": fields.duration}
_UNASSIGNABLE = frozenset({"response-wrapping"})


class TokenAuth:
    """auth/token. `sudo`: whether a token may do more than others on a path. `policies`: the names of all."""

    def __init__(
        self, tokens: Tokens, sudo: Callable[[Token, str], bool], policies: Callable[[], Collection[str]]
    ) -> None:
        self._tokens = tokens
        self._sudo = sudo
        self._policies = policies
        self._routes = (
            Route("create", {"update": self._create}, _CREATE),
            Route("create-orphan", {"update": self._create}, _CREATE),
            Route("create/{role}", {"update": self._of_role}, _CREATE),
            Route("roles/?", {"list": lambda _: keys_of([])}),
            Route("lookup-self", {"read": self._lookup_self, "update": self._lookup_self}, _TOKEN),
            Route("lookup", {"read": self._lookup, "update": self._lookup}, _TOKEN),
            Route("lookup-accessor/?", {"update": self._lookup_accessor}, _ACCESSOR),
            Route("renew-self", {"update": self._renew_self}, {**_TOKEN, **_INCREMENT}),
            Route("renew", {"update": self._renew}, {**_TOKEN, **_INCREMENT}),
            Route("renew-accessor", {"update": self._renew_accessor}, {**_ACCESSOR, **_INCREMENT}),
            Route("revoke-self", {"update": self._revoke_self}),
            Route("revoke", {"update": self._revoke}, _TOKEN),
            Route("revoke-accessor", {"update": self._revoke_accessor}, _ACCESSOR),
            Route("revoke-orphan", {"update": self._revoke_orphan}, _TOKEN),
            Route("accessors/?", {"list": self._accessors}),
        )

    def answer(self, ask: Ask, own: Token) -> Reply:
        """Answer a request under auth/token; `own` is the token that asks."""
        return answer(self._routes, ask, ask.path.removeprefix("auth/token/"), own)

    # --- making one ---

    def _of_role(self, call: Call) -> Reply:
        raise Failed(400, f"unknown role {call.names['role']}")

    def _create(self, call: Call) -> Reply:
        own, word = call.own, call.ask.path.rpartition("/")[2]
        if own.uses_given:
            raise Failed(400, "restricted use token cannot generate child tokens")
        sudo = self._sudo(own, call.ask.path)
        period, ttl, explicit = self._times(call)
        self._check(call, period, sudo=sudo)
        orphan = word == "create-orphan" or call.flag("no_parent")
        policies = self._granted(call, sudo=sudo)
        for_ever = policies == ["root"] and not (ttl or period or explicit) and not own.expires
        life, warnings = (0.0, []) if for_ever else life_of(ttl or LONGEST_TTL, period, explicit, LONGEST_TTL)
        missing = [name for name in policies if name not in {*self._policies(), "root"}]
        name = re.sub(r"[^a-zA-Z0-9-]", "-", call.get("display_name"))
        token = self._tokens.make(
            policies,
            life,
            identifier=call.get("id"),
            period=period,
            longest=explicit,
            uses=call.get("num_uses", 0),
            orphan=orphan,
            parent="" if orphan else own.id,
            meta=call.get("meta", None),
            path=call.ask.path,
            display_name=f"token-{name}" if name else "token",
            renewable=not for_ever and call.flag("renewable", default=True),
        )
        told = (*warnings, *(f'Policy "{one}" does not exist' for one in missing))
        return Reply(auth=auth_of(token, life), accessor=token.accessor, warnings=told)

    def _times(self, call: Call) -> tuple[float, float, float]:
        """Return period, TTL and explicit longest life. Raise Failed."""
        found: Json = {}
        for name in ("period", "ttl", "lease", "explicit_max_ttl"):
            try:
                found[name] = parse_seconds(call.get(name) or 0)
            except Unfit as error:
                raise Failed(400, str(error)) from error
            if found[name] < 0:
                raise Failed(400, f"{name} must be positive")
        return found["period"], found["ttl"] or found["lease"], found["explicit_max_ttl"]

    def _check(self, call: Call, period: float, *, sudo: bool) -> None:
        if call.get("num_uses", 0) < 0:
            raise Failed(400, "number of uses cannot be negative")
        if call.get("entity_alias"):
            raise Failed(400, "'entity_alias' is only allowed in combination with token role")
        kind = call.get("type")
        if kind == "batch":
            raise not_so("batch tokens")
        if kind not in {"", "service"}:
            raise Failed(400, "invalid 'token_type' value")
        for asked, what in (
            (call.flag("no_parent"), "create orphan token"),
            (period, "create periodic token"),
            (call.get("id"), "specify token id"),
        ):
            if asked and not sudo:
                raise Failed(400, f"root or sudo privileges required to {what}")
        identifier = call.get("id")
        if identifier.startswith("s."):
            raise Failed(400, "custom token ID cannot have the 's.' prefix")
        if identifier and self._tokens.find(identifier) is not None:
            raise Failed(400, "cannot create a token with a duplicate ID")

    def _granted(self, call: Call, *, sudo: bool) -> list[str]:
        """Return the policies of a new token. Raise Failed for more than its maker may give."""
        own = call.own.policies
        asked = clean_policies(call.get("policies", None) or own)
        if not sudo and not set(asked) <= set(own):
            raise Failed(400, "child policies must be subset of parent")
        for name in sorted(_UNASSIGNABLE & set(asked)):
            raise Failed(400, f'cannot assign policy "{name}"')
        if "root" in asked:
            if "root" not in own:
                raise Failed(400, "root tokens may not be created without parent token being root")
            return ["root"]
        return asked if call.flag("no_default_policy") else sorted({*asked, "default"})

    # --- looking at one ---

    def _told(self, token: Token | None) -> Reply:
        if token is None:
            raise Failed(403, "bad token")
        return Reply(row_of(token, self._tokens.left(token)))

    def _lookup_self(self, call: Call) -> Reply:
        return self._told(call.own)

    def _lookup(self, call: Call) -> Reply:
        named = call.get("token") or str(call.ask.data.get("token") or "")
        return self._told(self._tokens.find(named) if named else call.own)

    def _lookup_accessor(self, call: Call) -> Reply:
        token = self._accessed(call)
        return Reply({**row_of(token, self._tokens.left(token)), "id": ""})

    def _accessed(self, call: Call) -> Token:
        accessor = call.get("accessor")
        if not accessor:
            raise Internal(400, "missing accessor")
        token = self._tokens.by_accessor(accessor)
        if token is None:
            raise Internal(400, "invalid accessor")
        return token

    def _accessors(self, _: Call) -> Reply:
        return keys_of(self._tokens.accessors())

    # --- renewing one ---

    def _renewed(self, token: Token | None, call: Call) -> Reply:
        if token is None:
            raise Failed(400, "token not found")
        life, warnings = self._tokens.renew(token, call.get("increment", 0.0))
        return Reply(auth=auth_of(token, life), warnings=tuple(warnings))

    def _renew_self(self, call: Call) -> Reply:
        return self._renewed(self._tokens.find(call.own.id), call)

    def _renew(self, call: Call) -> Reply:
        return self._renewed(self._tokens.find(self._named(call)), call)

    def _renew_accessor(self, call: Call) -> Reply:
        reply = self._renewed(self._accessed(call), call)
        return Reply(auth={**(reply.auth or {}), "client_token": ""}, warnings=reply.warnings)

    def _named(self, call: Call) -> str:
        if not call.get("token"):
            raise Failed(400, "missing token ID")
        return str(call.get("token"))

    # --- ending one ---

    def _revoke_self(self, call: Call) -> Reply:
        self._tokens.revoke(call.own)
        return NOTHING

    def _revoke(self, call: Call) -> Reply:
        token = self._tokens.find(self._named(call))
        if token is not None:
            self._tokens.revoke(token)
        return NOTHING

    def _revoke_accessor(self, call: Call) -> Reply:
        if not call.get("accessor"):
            raise Internal(400, "missing accessor")
        token = self._tokens.by_accessor(call.get("accessor"))
        if token is None:
            return Reply(warnings=("No token found with this accessor",))
        self._tokens.revoke(token)
        return NOTHING

    def _revoke_orphan(self, call: Call) -> Reply:
        named = self._named(call)
        if not self._sudo(call.own, call.ask.path):
            raise Failed(400, "root or sudo privileges required to revoke and orphan")
        token = self._tokens.find(named)
        if token is None:
            raise Failed(400, "token to revoke not found")
        self._tokens.revoke(token, alone=True)
        return NOTHING


def clean_policies(names: Collection[str]) -> list[str]:
    """Return names of policies as they are kept: small letters, each once, sorted."""
    return sorted({name.strip().lower() for name in names if name.strip()})
