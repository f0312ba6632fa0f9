"""The dev Vault itself: who asks, may he, and whose path it is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from lictor.dev.vault.acl import Acl
from lictor.dev.vault.answers import Ask, Failed, Internal, Json, Reply, not_here, one_error
from lictor.dev.vault.approle import AppRole
from lictor.dev.vault.approle_roles import within
from lictor.dev.vault.identity import Identity
from lictor.dev.vault.mounts import Mounts, new_approle, new_pki
from lictor.dev.vault.pki import Pki
from lictor.dev.vault.policies import Rule, may_sudo, permitted
from lictor.dev.vault.published import is_open
from lictor.dev.vault.system import OPEN, WHILE_SEALED, System
from lictor.dev.vault.token_auth import TokenAuth
from lictor.dev.vault.tokens import NOBODY, Token, Tokens

SIGNING = ("sign", "issue", "root", "intermediate")
_WRAPPING = frozenset({"sys/wrapping/lookup", "sys/wrapping/unwrap"})
_SEEN_MOUNTS = re.compile(r"sys/internal/ui/mounts(/.*)?")


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
        self.identity = Identity(clock)
        self.acl = Acl(clock, self.identity)
        self.mounts = Mounts(self)
        self.system = System(self)
        self._token_auth = TokenAuth(self.tokens, self.has_sudo, self.acl.names)

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
        return self.acl.of(token)

    def has_sudo(self, token: Token, path: str) -> bool:
        """Return whether a token may do more than others on a path."""
        rules = self.rules_of(token)
        return rules is None or may_sudo(rules, path)

    def signs(self, ask: Ask) -> bool:
        """Return whether a request makes a certificate, which a fault may slow down."""
        found = self.mounts.of(ask.path)
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
        if ask.path == "sys/seal" and (self.sealed or ask.operation != "update"):
            return self.system.seal(ask)
        if self._is_open(ask):
            return self._dispatch(ask, NOBODY)
        if _SEEN_MOUNTS.fullmatch(ask.path):
            return self._dispatch(ask, self.tokens.find(ask.token) or NOBODY)
        try:
            return self._dispatch(ask, self._permitted(ask))
        except Internal as error:
            raise error.listed() from error

    def _permitted(self, ask: Ask) -> Token:
        """Return the token that asks, a use of it spent. Raise Failed for one that is none, or that may not."""
        token = self.tokens.find(ask.token)
        if token is None or not within(ask.remote, token.cidrs):
            raise Failed(403, "permission denied")
        rules = self.rules_of(token)
        self.tokens.spend(token)
        if rules is not None and not permitted(rules, ask):
            raise Failed(403, one_error("permission denied"))
        return token

    def _is_open(self, ask: Ask) -> bool:
        """Return whether a path needs no token: logins, what a wrapping token is for, what a PKI mount publishes."""
        if ask.path in _WRAPPING:
            return True
        if ask.path.startswith("auth/") and ask.path.endswith("/login"):
            return ask.operation != "list" and self.mounts.login_of(ask.path) is not None
        found = self.mounts.of(ask.path)
        if found is None or not isinstance(found[1].engine, Pki):
            return False
        return is_open(ask.route.removeprefix(found[0]))

    def _dispatch(self, ask: Ask, own: Token) -> Reply:
        if ask.path == "sys/seal":
            return self.system.seal(ask)
        if ask.path.startswith("sys/"):
            return self.system.answer(ask, own)
        if ask.path.startswith("auth/token/"):
            return self._token_auth.answer(ask, own)
        if ask.path.startswith("identity/"):
            return self.identity.answer(ask, own)
        login = ask.path.startswith("auth/")
        found = self.mounts.login_of(ask.path) if login else self.mounts.of(ask.path)
        if found is None:
            raise Failed(404, f'no handler for route "{ask.route}". route entry not found.')
        engine = found[1].engine
        if isinstance(engine, AppRole):
            return engine.answer(ask, own)
        if isinstance(engine, Pki):
            return engine.answer(ask, ask.path.removeprefix(found[0]), own, self.identity)
        raise not_here(ask)

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, secrets and private keys included."""
        return {
            "tokens": self.tokens.dump(),
            "unseal_key": self.system.unseal_key,
            "policies": self.acl.dump(),
            "identity": self.identity.dump(),
            "mounts": {
                path: {
                    "accessor": one.accessor,
                    "config": one.config,
                    "about": one.description,
                    "pki": one.engine.dump(),
                }
                for path, one in self.mounts.secrets.items()
                if isinstance(one.engine, Pki)
            },
            "approles": {
                path: {
                    "accessor": one.accessor,
                    "config": one.config,
                    "about": one.description,
                    "approle": one.engine.dump(),
                }
                for path, one in self.mounts.auths.items()
                if isinstance(one.engine, AppRole)
            },
        }

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Self:
        """Return the Vault that `dump` described."""
        vault = cls()
        vault.tokens.load(kept["tokens"])
        vault.system.unseal_key = str(kept["unseal_key"])
        vault.acl.load(kept["policies"])
        vault.identity.load(kept["identity"])
        for path, row in kept["mounts"].items():
            mount = new_pki(row["accessor"], row["config"], row["about"])
            if isinstance(mount.engine, Pki):
                mount.engine.load(row["pki"])
            vault.mounts.secrets[path] = mount
        for path, row in kept["approles"].items():
            mount = new_approle(vault, path, row["accessor"], row["config"], row["about"])
            if isinstance(mount.engine, AppRole):
                mount.engine.load(row["approle"])
            vault.mounts.auths[path] = mount
        return vault
