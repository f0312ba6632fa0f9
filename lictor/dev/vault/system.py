"""sys/: health, seal, wrapping, capabilities, what a user interface asks. Source: Vault's API, "System backend"."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Ask, Failed, Internal, Json, Reply
from lictor.dev.vault.mounts import VERSION, Mount
from lictor.dev.vault.policies import Rule, capabilities, touches
from lictor.dev.vault.routes import Call, Route, answer
from lictor.dev.vault.tokens import Token, new_id, stamp

if TYPE_CHECKING:
    from lictor.dev.vault.core import Vault

OPEN = frozenset({"sys/health", "sys/seal-status", "sys/init", "sys/leader", "sys/unseal"})
WHILE_SEALED = OPEN | {"sys/seal"}
_SHORTEST_KEY, _LONGEST_KEY = 16, 33  # bytes
_CAPABILITIES: fields.Kinds = {"paths": fields.commas, "path": fields.commas, "token": fields.text}
_CODES = ("activecode", "standbycode", "sealedcode", "uninitcode")


class System:
    """The paths under sys/ that are neither mounts nor policies."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.unseal_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.cluster = new_id()
        self._routes = (
            *vault.mounts.routes(),
            *vault.acl.routes(),
            Route("capabilities-self", {"update": self._own_capabilities}, _CAPABILITIES),
            Route("capabilities", {"update": self._capabilities}, _CAPABILITIES),
            Route("internal/ui/mounts", {"read": self._seen_mounts}),
            Route("internal/ui/mounts/{path*}", {"read": self._seen_mount}),
            Route("wrapping/wrap", {"update": self._wrap}, loose=True),
            Route("wrapping/lookup", {"read": self._lookup, "update": self._lookup}, {"token": fields.text}),
            Route("wrapping/unwrap", {"read": self._unwrap, "update": self._unwrap}, {"token": fields.text}),
            Route("wrapping/rewrap", {"update": self._rewrap}, {"token": fields.text}),
        )

    # --- for anybody ---

    def open(self, ask: Ask) -> Reply:
        """Answer what needs no token."""
        pages: dict[tuple[str, str], Callable[[Ask], Reply]] = {
            ("read", "sys/health"): self._health,
            ("read", "sys/seal-status"): lambda _: Reply(self._seal_status(), flat=True),
            ("read", "sys/init"): lambda _: Reply({"initialized": True}, flat=True),
            ("read", "sys/leader"): lambda _: Reply({"ha_enabled": False}, flat=True),
            ("update", "sys/init"): self._init,
            ("update", "sys/unseal"): self._unseal,
        }
        page = pages.get((ask.operation, ask.path))
        if page is None:
            raise Failed(405)
        return page(ask)

    def _init(self, _: Ask) -> Reply:
        raise Failed(400, "Vault is already initialized")

    def _health(self, ask: Ask) -> Reply:
        sealed = self._vault.sealed
        codes = {"activecode": 200, "sealedcode": 503}
        for name in _CODES:
            given = str(ask.data.get(name) or "")
            if given and not given.isdigit():
                raise Failed(400)
            codes[name] = int(given) if given else codes.get(name, 0)
        page: Json = {
            "initialized": True,
            "sealed": sealed,
            "standby": sealed,
            "replication_performance_mode": "unknown" if sealed else "disabled",
            "replication_dr_mode": "unknown" if sealed else "disabled",
            "server_time_utc": int(datetime.now(UTC).timestamp()),
            "version": VERSION,
        }
        if not sealed:
            page |= {"cluster_name": "lictor-dev", "cluster_id": self.cluster}
        return Reply(page, flat=True, status=codes["sealedcode" if sealed else "activecode"])

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
        given, _ = fields.taken(ask.data, {"key": fields.text, "reset": fields.flag})
        key = str(given.get("key") or "")
        if not key and not given.get("reset"):
            raise Failed(400, "'key' must be specified in request body as JSON, or 'reset' set to true")
        if key and not given.get("reset"):
            self._try_key(key)
        return Reply(self._seal_status(), flat=True)

    def _try_key(self, key: str) -> None:
        raw = _decoded(key)
        if not raw:
            raise Failed(400, "'key' must be a valid hex or base64 string")
        if not self._vault.sealed:
            return
        if len(raw) < _SHORTEST_KEY:
            raise Failed(400, f"invalid key: key is shorter than minimum {_SHORTEST_KEY} bytes")
        if len(raw) > _LONGEST_KEY:
            raise Failed(400, f"invalid key: key is longer than maximum {_LONGEST_KEY} bytes")
        if raw != base64.b64decode(self.unseal_key):
            told = "failed to decrypt keys from storage: cipher: message authentication failed"
            raise Failed(400, f"unable to retrieve stored keys: invalid key: {told}")
        self._vault.sealed = False

    def seal(self, ask: Ask) -> Reply:
        """Seal it: the caller has been asked for his token."""
        if ask.operation != "update":
            raise Failed(405)
        self._vault.sealed = True
        return NOTHING

    # --- with a token ---

    def answer(self, ask: Ask, own: Token) -> Reply:
        """Answer a request under sys/."""
        return answer(self._routes, ask, ask.path.removeprefix("sys/"), own)

    def _own_capabilities(self, call: Call) -> Reply:
        return self._told_capabilities(call, self._vault.rules_of(call.own))

    def _capabilities(self, call: Call) -> Reply:
        if not call.get("paths") and not call.get("path"):
            raise Failed(400, "paths must be supplied")
        if not call.get("token"):
            raise Internal(500, "no token found")
        token = self._vault.tokens.find(call.get("token"))
        if token is None:
            raise Internal(400, "invalid token")
        return self._told_capabilities(call, self._vault.rules_of(token))

    def _told_capabilities(self, call: Call, rules: tuple[Rule, ...] | None) -> Reply:
        paths = call.get("paths") or call.get("path")
        if not paths:
            raise Failed(400, "paths must be supplied")
        found = {path: ["root"] if rules is None else capabilities(rules, path) for path in paths}
        return Reply({**({"capabilities": found[paths[0]]} if len(paths) == 1 else {}), **found}, twice=True)

    # --- what a user interface asks, and so does every command line ---

    def _sees(self, call: Call, path: str) -> bool:
        return "root" in call.own.policies or touches(self._vault.acl.raw(call.own), path)

    def _seen_mounts(self, call: Call) -> Reply:
        mounts = self._vault.mounts
        auths = {path: mount.row() for path, mount in mounts.auths.items() if self._sees(call, f"auth/{path}")}
        engines = {path: mount.row() for path, mount in mounts.secrets.items() if self._sees(call, path)}
        return Reply({"auth": auths, "secret": engines})

    def _seen_mount(self, call: Call) -> Reply:
        path = call.names["path"].rstrip("/")
        if not call.own.id:
            raise Failed(403, "permission denied")
        login = path.startswith("auth/")
        found: tuple[str, Mount] | None = (self._vault.mounts.login_of if login else self._vault.mounts.of)(path)
        if found is None or not self._sees(call, f"auth/{found[0]}" if login else found[0]):
            told = "preflight capability check returned 403, please ensure client's policies grant access to path"
            raise Failed(403, f'{told} "{path}/"')
        return Reply({**found[1].row(), "path": found[0]})

    # --- wrapping ---

    def _wrap(self, call: Call) -> Reply:
        if not call.ask.wrap:
            raise Failed(400, "endpoint requires response wrapping to be used")
        return Reply(dict(call.given))

    def _wrapping_token(self, call: Call) -> Token:
        named = call.get("token") or str(call.ask.data.get("token") or "")
        return self._vault.tokens.wrapping(named or call.ask.token)

    def _lookup(self, call: Call) -> Reply:
        found = self._wrapping_token(call)
        data = {"creation_path": found.path, "creation_time": stamp(found.created), "creation_ttl": int(found.ttl)}
        return Reply(data)

    def _unwrap(self, call: Call) -> Reply:
        held = self._vault.tokens.unwrap(self._wrapping_token(call).id)
        return Reply(held.get("data"), auth=held.get("auth"), warnings=tuple(held.get("warnings") or ()))

    def _rewrap(self, call: Call) -> Reply:
        tokens = self._vault.tokens
        found = self._wrapping_token(call)
        accessor = found.wrapped_accessor
        held = tokens.unwrap(found.id)
        return Reply(wrap_info=tokens.wrap(held, Ask("update", found.path, wrap=found.ttl), accessor))


def _decoded(text: str) -> bytes:
    """Return what a key says in hex or base64; nothing for one that is neither."""
    for decode in (bytes.fromhex, lambda one: base64.b64decode(one, validate=True)):
        try:
            return bytes(decode(text))
        except (ValueError, binascii.Error):
            continue
    return b""
