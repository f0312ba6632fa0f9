"""The dev Vault itself: who asks, may he, and whose path it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from lictor.dev.vault import pki
from lictor.dev.vault.answers import Ask, Failed, Json, Reply
from lictor.dev.vault.approle import AppRole
from lictor.dev.vault.pki import Pki
from lictor.dev.vault.policies import Rule, permitted
from lictor.dev.vault.system import OPEN, WHILE_SEALED, Mount, System
from lictor.dev.vault.tokens import LONGEST_TTL, Token, TokenAuth, Tokens

SIGNING = ("sign", "issue", "root", "intermediate")


class Vault:
    """The state, in memory. `sealed` and `signing_delay` (seconds) are switches for faults."""

    def __init__(
        self,
        root_token: str = "root",  # noqa: S107 - the root token of `vault server -dev`
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.sealed = False
        self.signing_delay = 0.0
        self.changes = 0  # grows with everything but a read
        self.tokens = Tokens(root_token, clock)
        self.system = System(self)
        self._token_auth = TokenAuth(self.tokens)

    def __repr__(self) -> str:
        """Return nothing secret."""
        return f"Vault(sealed={self.sealed})"

    def revoke(self, token: str) -> None:
        """End a token, whoever holds it."""
        found = self.tokens.find(token)
        if found is not None:
            self.tokens.revoke(found)

    def rules_of(self, token: Token) -> tuple[Rule, ...] | None:
        """Return what a token may do; None is everything."""
        if "root" in token.policies:
            return None
        return tuple(rule for name in token.policies for rule in self.system.rules.get(name, ()))

    def signs(self, ask: Ask) -> bool:
        """Return whether a request makes a certificate, which a fault may slow down."""
        found = self.system.mount_of(ask.path)
        if ask.operation != "update" or found is None or found[1].engine is None:
            return False
        return ask.path.removeprefix(found[0]).partition("/")[0] in SIGNING

    def answer(self, ask: Ask) -> Reply:
        """Answer a request. Raise Failed."""
        if ask.operation not in {"read", "list"}:
            self.changes += 1
        if self.sealed and ask.path not in WHILE_SEALED:
            raise Failed(503, "Vault is sealed")
        if ask.path in OPEN:
            return self.system.open(ask)
        if ask.path == "sys/wrapping/unwrap" and ask.operation == "update":
            return self._unwrap(ask)
        if self._is_open(ask):
            return self._dispatch(ask, None)
        token = self.tokens.find(ask.token)
        if token is None or token.policies == ["response-wrapping"]:
            raise Failed(403, "permission denied")
        rules = self.rules_of(token)
        if rules is not None and not permitted(rules, ask):
            raise Failed(403, "1 error occurred:\n\t* permission denied\n\n")
        self.tokens.spend(token)
        return self._dispatch(ask, token)

    def _is_open(self, ask: Ask) -> bool:
        """Return whether a path needs no token: logins, lookups of a wrapping token, and what a PKI mount publishes."""
        if ask.path == "sys/wrapping/lookup":
            return True
        if ask.path.startswith("auth/") and ask.path.endswith("/login"):
            return True
        found = self.system.mount_of(ask.path)
        if ask.operation != "read" or found is None or found[1].engine is None:
            return False
        below = ask.path.removeprefix(found[0])
        issuer_pem = below.startswith("issuer/") and below.endswith(("/pem", "/der"))
        return issuer_pem or any(below == one or (one.endswith("/") and below.startswith(one)) for one in pki.OPEN)

    def _unwrap(self, ask: Ask) -> Reply:
        answer = self.tokens.unwrap(ask.text("token") or ask.token)
        return Reply(answer.get("data"), auth=answer.get("auth"))

    def _dispatch(self, ask: Ask, token: Token | None) -> Reply:
        anybody = token or Token("", "", [], 0.0, 0.0, 0.0)
        if ask.path.startswith("sys/"):
            return self.system.answer(ask, anybody)
        if ask.path.startswith("auth/token/"):
            return self._token_auth.answer(ask, anybody)
        if ask.path.startswith("auth/"):
            mount = ask.path.removeprefix("auth/").partition("/")[0] + "/"
            approle = self.system.approles.get(mount)
            if approle is None:
                raise _no_route(ask)
            return approle.answer(ask)
        found = self.system.mount_of(ask.path)
        if found is None or found[1].engine is None:
            raise _no_route(ask)
        return found[1].engine.answer(ask, ask.path.removeprefix(found[0]), self._metadata(anybody))

    def _metadata(self, token: Token) -> Mapping[str, Mapping[str, str]]:
        """Return the metadata of a token's aliases, by the accessor of the mount that it logged in at."""
        if not token.entity or not token.meta:
            return {}
        mount = token.path.removeprefix("auth/").removesuffix("login")
        auth = self.system.auths.get(mount)
        return {auth.accessor: token.meta} if auth is not None else {}

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, secrets and private keys included."""
        system = self.system
        return {
            "tokens": self.tokens.dump(),
            "unseal_key": system.unseal_key,
            "policies": {name: row["policy"] for name, row in system.policies.items()},
            "mounts": {
                path: {"accessor": mount.accessor, "config": mount.config, "pki": mount.engine.dump()}
                for path, mount in system.mounts.items()
                if mount.engine is not None
            },
            "approles": {
                path: {"accessor": system.auths[path].accessor, "approle": approle.dump()}
                for path, approle in system.approles.items()
            },
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Self:
        """Return the Vault that `dump` described."""
        vault = cls()
        vault.tokens.load(kept["tokens"])
        system = vault.system
        system.unseal_key = str(kept["unseal_key"])
        for name, text in kept["policies"].items():
            system.write_policy(name, text)
        for path, row in kept["mounts"].items():
            mount = Mount("pki", row["accessor"], dict(row["config"]))
            mount.engine = _engine(mount)
            mount.engine.load(row["pki"])
            system.mounts[path] = mount
        for path, row in kept["approles"].items():
            system.auths[path] = Mount(
                "approle", row["accessor"], {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0}
            )
            system.approles[path] = AppRole(path.rstrip("/"), vault.tokens, vault.clock)
            system.approles[path].load(row["approle"])
        return vault


def _engine(mount: Mount) -> Pki:
    return Pki(lambda: float(mount.config["max_lease_ttl"]) or LONGEST_TTL)


def _no_route(ask: Ask) -> Failed:
    return Failed(404, f'no handler for route "{ask.path}". route entry not found.')
