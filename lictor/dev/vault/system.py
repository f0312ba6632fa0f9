"""sys/: health, seal, mounts, policies, wrapping, capabilities. Source: Vault's HTTP API, "System backend"."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lictor.dev.vault.answers import NOTHING, Ask, Failed, Json, Reply, not_here, seconds
from lictor.dev.vault.approle import AppRole
from lictor.dev.vault.pki import Pki
from lictor.dev.vault.policies import DEFAULT, Rule, capabilities, parse_policy
from lictor.dev.vault.tokens import LONGEST_TTL, Token, new_id, stamp

if TYPE_CHECKING:
    from lictor.dev.vault.core import Vault

VERSION = "2.7.2"
OPEN = frozenset({"sys/health", "sys/seal-status", "sys/init", "sys/leader", "sys/unseal"})
WHILE_SEALED = OPEN
_FIXED_MOUNTS = {"sys/": "system", "identity/": "identity", "cubbyhole/": "cubbyhole"}


@dataclass(slots=True)
class Mount:
    """A secrets engine at a path that ends in a slash."""

    kind: str
    accessor: str
    config: Json
    engine: Pki | None = None
    description: str = ""
    id: str = field(default_factory=new_id)

    def row(self) -> Json:
        """Return the mount as sys/mounts tells it."""
        return {
            "accessor": self.accessor,
            "config": self.config,
            "deprecation_status": "supported",
            "description": self.description,
            "external_entropy_access": False,
            "local": False,
            "options": None,
            "plugin_version": "",
            "running_plugin_version": f"v{VERSION}+lictor",
            "running_sha256": "",
            "seal_wrap": False,
            "type": self.kind,
            "uuid": self.id,
        }


class System:
    """The paths under sys/."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.mounts = {
            path: Mount(kind, f"{kind}_{secrets.token_hex(4)}", _config({})) for path, kind in _FIXED_MOUNTS.items()
        }
        self.auths = {
            "token/": Mount("token", f"auth_token_{secrets.token_hex(4)}", _config({}, token_type="default-service"))
        }
        self.approles: dict[str, AppRole] = {}
        self.policies: dict[str, Json] = {}
        self.rules: dict[str, tuple[Rule, ...]] = {}
        self.unseal_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.cluster = new_id()
        self.write_policy("default", DEFAULT)

    def write_policy(self, name: str, text: str) -> None:
        """Keep a policy. Raise Failed for one that cannot be read."""
        self.rules[name] = parse_policy(text)
        now = stamp(self._vault.clock())
        version = self.policies.get(name, {}).get("version", 0) + 1
        self.policies[name] = {"name": name, "policy": text, "modified": now, "version": version}

    # --- for anybody ---

    def open(self, ask: Ask) -> Reply:
        """Answer what needs no token."""
        match ask.operation, ask.path:
            case "read", "sys/health":
                return self._health(ask)
            case "read", "sys/seal-status":
                return Reply(self._seal_status(), flat=True)
            case "read", "sys/init":
                return Reply({"initialized": True}, flat=True)
            case "read", "sys/leader":
                return Reply({"ha_enabled": False}, flat=True)
            case "update", "sys/init":
                raise Failed(400, "Vault is already initialized")
            case "update", "sys/unseal":
                return self._unseal(ask)
        raise not_here(ask)

    def _health(self, ask: Ask) -> Reply:
        page: Json = {
            "initialized": True,
            "sealed": self._vault.sealed,
            "standby": self._vault.sealed,
            "replication_performance_mode": "unknown" if self._vault.sealed else "disabled",
            "replication_dr_mode": "unknown" if self._vault.sealed else "disabled",
            "server_time_utc": int(datetime.now(UTC).timestamp()),
            "version": VERSION,
        }
        if not self._vault.sealed:
            page |= {"cluster_name": "lictor-dev", "cluster_id": self.cluster}
        code = int(ask.data.get("sealedcode") or 503) if self._vault.sealed else int(ask.data.get("activecode") or 200)
        return Reply(page, flat=True, status=code)

    def _seal_status(self) -> Json:
        page: Json = {
            "type": "shamir",
            "initialized": True,
            "sealed": self._vault.sealed,
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "recovery_seal": False,
            "version": VERSION,
            "commit_date": "2026-10-26T20:32:27Z",
            "migration": False,
        }
        if not self._vault.sealed:
            page |= {"cluster_name": "lictor-dev", "cluster_id": self.cluster}
        return {**page, "storage_type": "inmem"}

    def _unseal(self, ask: Ask) -> Reply:
        key = ask.text("key")
        if not _is_encoded(key):
            raise Failed(400, "'key' must be a valid hex or base64 string")
        if key != self.unseal_key:
            raise Failed(400, "failed to decrypt encrypted stored keys: cipher: message authentication failed")
        self._vault.sealed = False
        return Reply(self._seal_status(), flat=True)

    # --- with a token ---

    def answer(self, ask: Ask, own: Token) -> Reply:
        """Answer a request under sys/."""
        rest = ask.path.removeprefix("sys/")
        word, _, name = rest.partition("/")
        pages: dict[str, Callable[[Ask, str], Reply]] = {
            "mounts": self._mounts,
            "auth": self._auths,
            "policy": self._policy,
            "policies": self._policies,
            "internal": self._internal,
            "wrapping": self._wrapping,
        }
        if word in pages:
            return pages[word](ask, name.rstrip("/"))
        match ask.operation, rest:
            case "update", "seal":
                self._vault.sealed = True
                return NOTHING
            case "update", "capabilities-self":
                return self._capabilities(ask, self._vault.rules_of(own))
            case "update", "capabilities":
                token = self._vault.tokens.find(ask.text("token"))
                return self._capabilities(ask, self._vault.rules_of(token) if token else ())
        raise not_here(ask)

    def _capabilities(self, ask: Ask, rules: tuple[Rule, ...] | None) -> Reply:
        paths = ask.words("paths") or ask.words("path")
        found = {path: ["root"] if rules is None else capabilities(rules, path) for path in paths}
        return _both({**({"capabilities": found[paths[0]]} if len(paths) == 1 else {}), **found})

    # --- mounts ---

    def _mounts(self, ask: Ask, name: str) -> Reply:
        if not name:
            return _both({path: mount.row() for path, mount in sorted(self.mounts.items())})
        path = name.removesuffix("/tune") + "/"
        mount = self.mounts.get(path)
        if ask.operation == "update" and not name.endswith("/tune"):
            return self._enable(ask, path)
        if ask.operation == "delete":
            if mount is not None and path not in _FIXED_MOUNTS:
                del self.mounts[path]
            return NOTHING
        if mount is None:
            raise Failed(400, f"No secret engine mount at {path}")
        if name.endswith("/tune"):
            if ask.operation == "update":
                mount.config = {**mount.config, **_times(ask.data)}
                return NOTHING
            return _both({**mount.config, "description": mount.description})
        return _both(mount.row())

    def _enable(self, ask: Ask, path: str) -> Reply:
        if path in self.mounts:
            raise Failed(400, f"path is already in use at {path}")
        kind = ask.text("type")
        if kind != "pki":
            known = "; the dev server of Lictor has pki alone" if kind in {"kv", "transit", "database", "ssh"} else ""
            raise Failed(400, f"plugin not found in the catalog: {kind}{known}")
        mount = Mount(
            kind,
            f"pki_{secrets.token_hex(4)}",
            _config(ask.data.get("config") or {}),
            description=ask.text("description"),
        )
        mount.engine = Pki(lambda: float(mount.config["max_lease_ttl"]) or LONGEST_TTL)
        self.mounts[path] = mount
        return NOTHING

    def _auths(self, ask: Ask, name: str) -> Reply:
        if not name:
            return _both({path: mount.row() for path, mount in sorted(self.auths.items())})
        path = name.removesuffix("/tune") + "/"
        if ask.operation == "update" and not name.endswith("/tune"):
            if path in self.auths:
                raise Failed(400, f"path is already in use at {path}")
            if ask.text("type") != "approle":
                raise Failed(
                    400,
                    f"plugin not found in the catalog: {ask.text('type')}; the dev server of Lictor has approle alone",
                )
            accessor = f"auth_approle_{secrets.token_hex(4)}"
            self.auths[path] = Mount("approle", accessor, _config({}, token_type="default-service"))
            self.approles[path] = AppRole(path.rstrip("/"), self._vault.tokens, self._vault.clock)
            return NOTHING
        if ask.operation == "delete":
            self.auths.pop(path, None)
            self.approles.pop(path, None)
            return NOTHING
        if path not in self.auths:
            raise Failed(400, f"No auth engine at {path}")
        row = self.auths[path].row()
        return _both(row["config"] if name.endswith("/tune") else row)

    def mount_of(self, path: str) -> tuple[str, Mount] | None:
        """Return the mount that a path is under, and its own path."""
        found = [mount for mount in self.mounts if path.startswith(mount) or f"{path}/" == mount]
        longest = max(found, key=len, default=None)
        return None if longest is None else (longest, self.mounts[longest])

    def _internal(self, ask: Ask, name: str) -> Reply:
        if ask.operation == "read" and name.startswith("ui/mounts/"):
            path = name.removeprefix("ui/mounts/")
            under_auth = path.startswith("auth/")
            found = self.mount_of(path) if not under_auth else None
            if under_auth:
                where = path.removeprefix("auth/").partition("/")[0] + "/"
                if where in self.auths:
                    return Reply({**self.auths[where].row(), "path": f"auth/{where}"})
            if found is not None:
                return Reply({**found[1].row(), "path": found[0]})
            raise Failed(
                403,
                "preflight capability check returned 403, please ensure client's policies grant access to path"
                f' "{path}/"',
            )
        raise not_here(ask)

    # --- policies ---

    def _policy(self, ask: Ask, name: str) -> Reply:
        if not name:
            names = sorted([*self.policies, "root"])
            return _both({"keys": names, "policies": names})
        if ask.operation == "read":
            row = self._known_policy(name)
            return _both({"name": row["name"], "rules": row["policy"]})
        return self._change_policy(ask, name, ask.text("policy") or ask.text("rules"))

    def _policies(self, ask: Ask, name: str) -> Reply:
        kind, _, name = name.partition("/")
        if kind != "acl":
            raise not_here(ask)
        if not name:
            return Reply({"keys": sorted([*self.policies, "root"])})
        if ask.operation == "read":
            plain = {"allow_slashes_in_identity_templates": False, "allow_wildcards_in_identity_templates": False}
            return Reply({**plain, "cas_required": False, **self._known_policy(name)})
        return self._change_policy(ask, name, ask.text("policy"))

    def _known_policy(self, name: str) -> Json:
        if name not in self.policies:
            raise Failed(404)
        return self.policies[name]

    def _change_policy(self, ask: Ask, name: str, text: str) -> Reply:
        if name == "root":
            raise Failed(
                400, 'cannot update "root" policy' if ask.operation == "update" else 'cannot delete "root" policy'
            )
        if ask.operation == "delete":
            if name == "default":
                raise Failed(400, 'cannot delete "default" policy')
            self.policies.pop(name, None)
            self.rules.pop(name, None)
            return NOTHING
        if not text:
            raise Failed(400, "'policy' parameter not supplied or empty")
        if _is_encoded(text) and "path" not in text:
            text = base64.b64decode(text).decode()
        self.write_policy(name.lower(), text)
        return NOTHING

    # --- wrapping ---

    def _wrapping(self, ask: Ask, word: str) -> Reply:
        token = ask.text("token") or ask.token
        if word == "wrap" and ask.operation == "update":
            return Reply(dict(ask.data))
        if word == "lookup":
            found = self._vault.tokens.find(token)
            if found is None or token not in self._vault.tokens.wrapped:
                raise Failed(400, "wrapping token is not valid or does not exist")
            data = {"creation_path": found.path, "creation_time": stamp(found.created), "creation_ttl": int(found.ttl)}
            return Reply(data)
        raise not_here(ask)


def _both(data: Json) -> Reply:
    """Return data that Vault tells twice: in an envelope, and beside it."""
    return Reply(data, flat=False, warnings=("both",))


def _config(given: Mapping[str, Any], **more: Any) -> Json:
    return {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0, **_times(given), **more}


def _times(given: Mapping[str, Any]) -> Json:
    names = ("default_lease_ttl", "max_lease_ttl")
    return {name: int(seconds(given[name], name)) for name in names if name in given}


def _is_encoded(text: str) -> bool:
    try:
        return bool(text) and (len(base64.b64decode(text, validate=True)) > 0)
    except ValueError:
        return False
