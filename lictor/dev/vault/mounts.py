"""Which engine is at which path: sys/mounts for secrets, sys/auth for logins. Source: Vault's API, "System backend"."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Failed, Json, Reply, not_so
from lictor.dev.vault.approle import AppRole
from lictor.dev.vault.fields import Unfit
from lictor.dev.vault.pki import Pki
from lictor.dev.vault.routes import Call, Route
from lictor.dev.vault.tokens import LONGEST_TTL, new_id

if TYPE_CHECKING:
    from lictor.dev.vault.core import Vault

VERSION = "2.7.2"
# Engines of a real Vault that are none of the dev server's: named, so that nobody takes them for a slip of the pen.
_OF_VAULT = frozenset({"database", "kubernetes", "kv", "kv-v2", "rabbitmq", "ssh", "totp", "transit", "generic"})
_AUTHS_OF_VAULT = frozenset({"cert", "jwt", "kubernetes", "ldap", "oidc", "radius", "userpass"})
_PROTECTED = ("sys/", "auth/", "cubbyhole/", "identity/")
_CONFIG = {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0}
_ENABLE: fields.Kinds = {
    "type": fields.text,
    "description": fields.text,
    "config": fields.mapping,
    "options": fields.pairs,
    "local": fields.flag,
    "seal_wrap": fields.flag,
    "external_entropy_access": fields.flag,
    "plugin_name": fields.text,
    "plugin_version": fields.text,
}
_TUNE: fields.Kinds = {
    "default_lease_ttl": fields.text,
    "max_lease_ttl": fields.text,
    "description": fields.text,
    "token_type": fields.text,
}


@dataclass(slots=True)
class Mount:
    """An engine at a path that ends in a slash. `engine` is None for those that are always there."""

    kind: str
    accessor: str
    config: Json
    engine: Pki | AppRole | None = None
    description: str = ""
    local: bool = False
    seal_wrap: bool = False
    id: str = field(default_factory=new_id)

    @property
    def default_ttl(self) -> float:
        """Return how long a lease lives that asks for nothing."""
        return float(self.config["default_lease_ttl"] or LONGEST_TTL)

    @property
    def longest_ttl(self) -> float:
        """Return how long a lease may live at most."""
        return float(self.config["max_lease_ttl"] or LONGEST_TTL)

    def row(self) -> Json:
        """Return the mount as sys/mounts tells it."""
        row: Json = {
            "accessor": self.accessor,
            "config": self.config,
            "description": self.description,
            "external_entropy_access": False,
            "local": self.local,
            "options": None if self.engine is None else {},
            "plugin_version": "",
            "running_plugin_version": f"v{VERSION}+lictor",
            "running_sha256": "",
            "seal_wrap": self.seal_wrap,
            "type": self.kind,
            "uuid": self.id,
        }
        return row if self.engine is None else {**row, "deprecation_status": "supported"}

    def tuned(self) -> Json:
        """Return what may be tuned, as it is in force."""
        times = {"default_lease_ttl": int(self.default_ttl), "max_lease_ttl": int(self.longest_ttl)}
        return {**self.config, **times, "description": self.description}


def always_there() -> dict[str, Mount]:
    """Return the engines of a Vault on which nothing was enabled."""
    rows = {
        "sys/": ("system", "system endpoints used for control, policy and debugging", ["Accept"]),
        "identity/": ("identity", "identity store", ["Authorization"]),
        "cubbyhole/": ("cubbyhole", "per-token private secret storage", None),
    }
    found = {}
    for path, (kind, description, headers) in rows.items():
        config = {**_CONFIG, **({"passthrough_request_headers": headers} if headers else {})}
        accessor = f"{kind}_{secrets.token_hex(4)}"
        found[path] = Mount(kind, accessor, config, None, description, path == "cubbyhole/", path == "sys/")
    return found


def token_mount() -> Mount:
    """Return the login that is always there."""
    config = {**_CONFIG, "token_type": "default-service"}
    return Mount("token", f"auth_token_{secrets.token_hex(4)}", config, None, "token based credentials")


def new_pki(accessor: str = "", config: Mapping[str, Any] | None = None, description: str = "") -> Mount:
    """Return a PKI mount."""
    mount = Mount("pki", accessor or f"pki_{secrets.token_hex(4)}", {**_CONFIG, **(config or {})}, None, description)
    mount.engine = Pki(lambda: mount.default_ttl, lambda: mount.longest_ttl)
    return mount


def new_approle(
    vault: Vault, path: str, accessor: str = "", config: Mapping[str, Any] | None = None, description: str = ""
) -> Mount:
    """Return a mount of AppRole."""
    accessor = accessor or f"auth_approle_{secrets.token_hex(4)}"
    mount = Mount(
        "approle", accessor, {**_CONFIG, "token_type": "default-service", **(config or {})}, None, description
    )
    mount.engine = AppRole(
        path.rstrip("/"),
        vault.tokens,
        vault.clock,
        lambda name, metadata: vault.identity.seen(accessor, f"auth/{path}", "approle", name, metadata),
        lambda: (mount.default_ttl, mount.longest_ttl),
    )
    return mount


class Mounts:
    """sys/mounts and sys/auth."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.secrets = always_there()
        self.auths = {"token/": token_mount()}

    def routes(self) -> tuple[Route, ...]:
        """Return what is answered under sys/."""
        tune = {"read": self._tuned, "update": self._tune}
        one = {"read": self._read, "update": self._enable, "delete": self._disable}
        return (
            Route("mounts", {"read": self._all}),
            Route("auth", {"read": self._all}),
            Route("(?P<table>mounts)/auth/{path*}/tune", tune, _TUNE),
            Route("(?P<table>mounts|auth)/{path*}/tune", tune, _TUNE),
            Route("(?P<table>mounts|auth)/{path*}", one, _ENABLE),
        )

    def of(self, path: str) -> tuple[str, Mount] | None:
        """Return the secrets engine that a path is under, and its own path."""
        found = [mount for mount in self.secrets if f"{path}/".startswith(mount)]
        longest = max(found, key=len, default=None)
        return None if longest is None else (longest, self.secrets[longest])

    def login_of(self, path: str) -> tuple[str, Mount] | None:
        """Return the login that a path under auth/ is under, and its own path without auth/."""
        below = path.removeprefix("auth/")
        found = [mount for mount in self.auths if f"{below}/".startswith(mount)]
        longest = max(found, key=len, default=None)
        return None if longest is None else (longest, self.auths[longest])

    # --- what is there ---

    def _all(self, call: Call) -> Reply:
        table = self.secrets if call.ask.path == "sys/mounts" else self.auths
        return Reply({path: mount.row() for path, mount in sorted(table.items())}, twice=True)

    def _table(self, call: Call) -> tuple[dict[str, Mount], str, str]:
        """Return the table that a path is about, the mount's path, and that path as the texts of errors have it."""
        path = call.names["path"].rstrip("/") + "/"
        if call.ask.path.startswith("sys/mounts/auth/"):
            path = path.removeprefix("auth/")
            return self.auths, path, f"auth/{path}"
        if call.names["table"] == "auth":
            return self.auths, path, f"auth/{path}"
        return self.secrets, path, path

    def _read(self, call: Call) -> Reply:
        table, path, _ = self._table(call)
        if path not in table:
            kind = "auth" if table is self.auths else "secret"
            raise Failed(400, f"No {kind} engine {'at' if kind == 'auth' else 'mount at'} {path}")
        return Reply(table[path].row(), twice=True)

    def _tuned(self, call: Call) -> Reply:
        table, path, whole = self._table(call)
        if path not in table:
            raise Failed(400, f'cannot fetch sysview for path "{whole}"')
        return Reply(table[path].tuned(), twice=True)

    # --- changes ---

    def _enable(self, call: Call) -> Reply:
        table, path, whole = self._table(call)
        kind = call.get("type")
        logins = table is self.auths
        if not kind:
            raise Failed(400, "backend type must be specified as a string")
        config = _given_config(call.get("config") or {})
        if whole.startswith(_PROTECTED) and call.names["table"] == "mounts":
            raise Failed(400, f'cannot mount "{whole}"')
        taken = next((one for one in table if path.startswith(one) or one.startswith(path)), None)
        if taken is not None:
            raise Failed(400, f"path is already in use at {taken}")
        if kind != ("approle" if logins else "pki"):
            if kind in (_AUTHS_OF_VAULT if logins else _OF_VAULT):
                raise not_so(f"an engine of type {kind}")
            raise Failed(400, f"plugin not found in the catalog: {kind}")
        description = call.get("description")
        if logins:
            table[path] = new_approle(self._vault, path, config=config, description=description)
        else:
            table[path] = new_pki(config=config, description=description)
        return NOTHING

    def _disable(self, call: Call) -> Reply:
        table, path, whole = self._table(call)
        if table is self.auths:
            if path == "token/":
                raise Failed(400, "token credential backend cannot be disabled")
            self._vault.tokens.revoke_mount(whole)
        elif path.startswith(_PROTECTED):
            raise Failed(400, f'cannot unmount "{whole}"')
        table.pop(path, None)
        return NOTHING

    def _tune(self, call: Call) -> Reply:
        table, path, whole = self._table(call)
        if path not in table:
            raise Failed(400, f'tune of path "{whole}" failed: no mount entry found')
        mount = table[path]
        times: Json = {}
        for name in ("default_lease_ttl", "max_lease_ttl"):
            if name in call.given:
                try:
                    times[name] = int(fields.parse_seconds(call.given[name]))
                except Unfit as error:
                    raise Failed(400, str(error)) from error
        config: Json = {**mount.config, **times}
        longest, default = config["max_lease_ttl"], config["default_lease_ttl"]
        if longest and default > longest:
            told = f"backend max lease TTL of {longest} would be less than backend default lease TTL of {default}"
            raise Failed(400, told)
        mount.config = config
        if "description" in call.given:
            mount.description = call.given["description"]
        return NOTHING


def _given_config(given: Mapping[str, Any]) -> Json:
    found: Json = {}
    for name, what in (("default_lease_ttl", "default TTL"), ("max_lease_ttl", "max TTL")):
        if given.get(name) is None or given[name] == "":
            continue
        if isinstance(given[name], list | dict):
            raise Failed(400, "unable to convert given mount config information")
        try:
            found[name] = int(fields.parse_seconds(given[name]))
        except Unfit as error:
            raise Failed(400, f"unable to parse {what} of {given[name]}: {error}") from error
    if found.get("max_lease_ttl") and found.get("default_lease_ttl", 0) > found["max_lease_ttl"]:
        raise Failed(400, "given default lease TTL greater than given max lease TTL")
    return found
