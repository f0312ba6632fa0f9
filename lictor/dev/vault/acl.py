"""sys/policies/acl and sys/policy: policies written, read, listed and removed, and what they give to a token."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Failed, Json, Reply
from lictor.dev.vault.identity import Identity
from lictor.dev.vault.policies import DEFAULT, Rule, parse_policy
from lictor.dev.vault.routes import Call, Route
from lictor.dev.vault.tokens import Token, stamp

_KINDS: fields.Kinds = {
    "policy": fields.text,
    "rules": fields.text,
    "cas": fields.number,
    "cas_required": fields.flag,
    "expiration": fields.text,
    "ttl": fields.duration,
    "allow_slashes_in_identity_templates": fields.flag,
    "allow_wildcards_in_identity_templates": fields.flag,
}
_PLAIN = {"allow_slashes_in_identity_templates": False, "allow_wildcards_in_identity_templates": False}


class Acl:
    """The policies."""

    def __init__(self, clock: Callable[[], float], identity: Identity) -> None:
        self._clock = clock
        self._identity = identity
        self.policies: dict[str, Json] = {}
        self.rules: dict[str, tuple[Rule, ...]] = {}
        self.write("default", DEFAULT)

    def routes(self) -> tuple[Route, ...]:
        """Return what is answered under sys/."""
        one = {"read": self._read, "update": self._write, "delete": self._delete}
        return (
            Route("policies/acl/?", {"list": self._list}),
            Route("policies/acl/{name}", one, _KINDS),
            Route("policy/?", {"read": self._list_both, "list": self._list_both}),
            Route("policy/{name}", one, _KINDS),
        )

    def names(self) -> list[str]:
        """Return the names of all policies, root's last."""
        return [*sorted(self.policies), "root"]

    def of(self, token: Token) -> tuple[Rule, ...] | None:
        """Return what a token may do, its templates filled; None is everything."""
        if "root" in token.policies:
            return None
        found = []
        for rule in (rule for name in token.policies for rule in self.rules.get(name, ())):
            path = self._identity.filled(rule.path, token, literal="/+*") if "{{" in rule.path else rule.path
            if path:
                found.append(rule if path == rule.path else replace(rule, path=path))
        return tuple(found)

    def raw(self, token: Token) -> tuple[Rule, ...]:
        """Return what the policies of a token say, templates as they are written."""
        return tuple(rule for name in token.policies for rule in self.rules.get(name, ()))

    def write(self, name: str, text: str) -> None:
        """Keep a policy. Raise Failed for one that cannot be read."""
        self.rules[name] = parse_policy(text)
        version = self.policies.get(name, {}).get("version", 0) + 1
        self.policies[name] = {"name": name, "policy": text, "modified": stamp(self._clock()), "version": version}

    # --- pages ---

    def _list(self, _: Call) -> Reply:
        return Reply({"keys": self.names()})

    def _list_both(self, _: Call) -> Reply:
        return Reply({"keys": self.names(), "policies": self.names()}, twice=True)

    def _read(self, call: Call) -> Reply:
        name = call.names["name"].lower()
        root: Json = {"name": "root", "policy": "", "version": 0}
        row = root if name == "root" else self.policies.get(name)
        if row is None:
            raise Failed(404)
        found = {**_PLAIN, "cas_required": False, **row}
        if call.ask.path.startswith("sys/policies/"):
            return Reply(found)
        text = found.pop("policy")
        return Reply({**found, "rules": text}, twice=True)

    def _write(self, call: Call) -> Reply:
        name, given = call.names["name"].lower(), call.given
        if name == "root":
            raise Failed(400, 'cannot update "root" policy')
        for word in ("cas_required", "expiration", "ttl", *_PLAIN):
            if given.get(word):
                raise Failed(404, f"policies with {word}: the dev server of Lictor does not do this; a real Vault may")
        old = call.ask.path.startswith("sys/policy/")
        text = str(given.get("policy") or (given.get("rules") if old else "") or "")
        if not text:
            raise Failed(400, "'policy' parameter not supplied or empty")
        version = self.policies.get(name, {}).get("version", 0)
        if given.get("cas", version) != version:
            told = f"check-and-set parameter {given['cas']} did not match the current version {version}"
            raise Failed(400, told)
        self.write(name, _decoded(text))
        if "policy" not in given:
            return Reply(warnings=("'rules' is deprecated, please use 'policy' instead",))
        return NOTHING

    def _delete(self, call: Call) -> Reply:
        name = call.names["name"].lower()
        if name in {"root", "default"}:
            raise Failed(400, 'cannot delete "root" policy' if name == "root" else "cannot delete default policy")
        self.policies.pop(name, None)
        self.rules.pop(name, None)
        return NOTHING

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON."""
        return dict(self.policies)

    def load(self, kept: dict[str, Any]) -> None:
        """Take what `dump` gave."""
        for name, row in kept.items():
            self.rules[name] = parse_policy(row["policy"])
            self.policies[name] = dict(row)


def _decoded(text: str) -> str:
    """Return a policy that may have come as base64."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return text
