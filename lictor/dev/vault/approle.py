"""auth/approle: roles, secret-ids, logins. Source: Vault's HTTP API, "AppRole auth method"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lictor.dev.vault.answers import NOTHING, Ask, Failed, Json, Reply, not_here
from lictor.dev.vault.tokens import Tokens, auth_of, new_id

_LISTS = ("token_policies",)
_TIMES = ("token_ttl", "token_max_ttl", "token_period", "token_explicit_max_ttl", "secret_id_ttl")
_NUMBERS = ("token_num_uses", "secret_id_num_uses")
_FLAGS = ("bind_secret_id", "token_no_default_policy")
_DEFAULTS: Json = {
    "bind_secret_id": True,
    "local_secret_ids": False,
    "secret_id_bound_cidrs": None,
    "secret_id_num_uses": 0,
    "secret_id_ttl": 0,
    "token_bound_cidrs": [],
    "token_explicit_max_ttl": 0,
    "token_max_ttl": 0,
    "token_no_default_policy": False,
    "token_num_uses": 0,
    "token_period": 0,
    "token_policies": [],
    "token_strictly_bind_ip": False,
    "token_ttl": 0,
    "token_type": "default",
}


class AppRole:
    """One mount of the AppRole auth method."""

    def __init__(self, mount: str, tokens: Tokens, clock: Callable[[], float]) -> None:
        self._mount = mount
        self._tokens = tokens
        self._clock = clock
        self.roles: dict[str, Json] = {}  # by name: its parameters, with role_id
        self.secrets: dict[str, Json] = {}  # by secret-id: role, accessor, expires, uses, meta
        self.entities: dict[str, str] = {}  # by role_id

    def answer(self, ask: Ask) -> Reply:
        """Answer a request under the mount."""
        parts = ask.path.removeprefix(f"auth/{self._mount}/").split("/")
        if parts == ["login"]:
            return self._login(ask)
        if parts[0] != "role":
            raise not_here(ask)
        name = parts[1].lower() if len(parts) > 1 else ""
        if not name:
            return _keys(sorted(self.roles))
        if len(parts) == 2:  # noqa: PLR2004 - role and its name
            return self._role(ask, name)
        return self._part(ask, name, "/".join(parts[2:]))

    def _role(self, ask: Ask, name: str) -> Reply:
        if ask.operation == "delete":
            self.roles.pop(name, None)
            self.secrets = {key: row for key, row in self.secrets.items() if row["role"] != name}
            return NOTHING
        if ask.operation == "update":
            held = self.roles.get(name) or {**_DEFAULTS, "role_id": new_id()}
            self.roles[name] = {**held, **_parameters(ask)}
            return NOTHING
        row = self._known(name)
        return Reply({key: value for key, value in row.items() if key != "role_id"})

    def _known(self, name: str) -> Json:
        if name not in self.roles:
            raise Failed(404)
        return self.roles[name]

    def _part(self, ask: Ask, name: str, what: str) -> Reply:
        match ask.operation, what:
            case "read", "role-id":
                return Reply({"role_id": self._known(name)["role_id"]})
            case "update", "role-id":
                self._known(name)["role_id"] = ask.text("role_id")
                return NOTHING
            case "update", "secret-id":
                return self._secret(ask, name, new_id())
            case "update", "custom-secret-id":
                return self._secret(ask, name, ask.text("secret_id"))
            case "list", "secret-id":
                self._known(name)
                return _keys([row["accessor"] for row in self.secrets.values() if row["role"] == name])
        return self._of_secret(ask, name, what)

    def _of_secret(self, ask: Ask, name: str, what: str) -> Reply:
        self._known(name)
        by, _, word = what.partition("/")
        if by not in {"secret-id", "secret-id-accessor"} or word not in {"lookup", "destroy"}:
            raise not_here(ask)
        found = ask.text("secret_id")
        if by == "secret-id-accessor":
            wanted = ask.text("secret_id_accessor")
            found = next((key for key, row in self.secrets.items() if row["accessor"] == wanted), "")
        row = self.secrets.get(found)
        if word == "destroy":
            self.secrets.pop(found, None)
            return NOTHING
        if row is None or row["role"] != name:
            return NOTHING
        return Reply({"secret_id_accessor": row["accessor"], "secret_id_num_uses": row["uses"], "metadata": {}})

    def _secret(self, ask: Ask, name: str, identifier: str) -> Reply:
        role = self._known(name)
        ttl = ask.seconds("ttl") or role["secret_id_ttl"]
        uses = int(ask.data.get("num_uses") or role["secret_id_num_uses"])
        accessor = new_id()
        expires = self._clock() + ttl if ttl else 0.0
        self.secrets[identifier] = {
            "role": name,
            "accessor": accessor,
            "expires": expires,
            "uses": uses,
            "limited": uses > 0,
        }
        data = {
            "secret_id": identifier,
            "secret_id_accessor": accessor,
            "secret_id_num_uses": uses,
            "secret_id_ttl": int(ttl),
        }
        return Reply(data, accessor=accessor)

    def _login(self, ask: Ask) -> Reply:
        role_id = ask.text("role_id")
        if ask.operation != "update":
            raise not_here(ask)
        if not role_id:
            raise Failed(500, "missing role_id")
        name = next((name for name, row in self.roles.items() if row["role_id"] == role_id), "")
        if not name:
            raise Failed(400, "invalid role or secret ID")
        role = self.roles[name]
        if role["bind_secret_id"]:
            self._spend(name, ask.text("secret_id"))
        policies = set(role["token_policies"]) | (set() if role["token_no_default_policy"] else {"default"})
        token = self._tokens.make(
            sorted(policies),
            float(role["token_ttl"]),
            period=float(role["token_period"]),
            longest=float(role["token_explicit_max_ttl"] or role["token_max_ttl"]),
            uses=int(role["token_num_uses"]),
            orphan=True,
            meta={"role_name": name},
            entity=self.entities.setdefault(role_id, new_id()),
            path=f"auth/{self._mount}/login",
            display_name=self._mount,
        )
        return Reply(auth=auth_of(token, token.ttl), accessor=token.accessor)

    def _spend(self, name: str, identifier: str) -> None:
        """Use up a secret-id. Raise Failed for one that is wrong, used up or ended."""
        if not identifier:
            raise Failed(400, "missing secret_id")
        row = self.secrets.get(identifier)
        if row is None or row["role"] != name or (row["expires"] and row["expires"] <= self._clock()):
            raise Failed(400, "invalid role or secret ID")
        if row["limited"]:
            row["uses"] -= 1
            if row["uses"] <= 0:
                del self.secrets[identifier]

    def dump(self) -> Json:
        """Return everything as JSON, secrets included."""
        return {"roles": self.roles, "secrets": self.secrets, "entities": self.entities}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.roles, self.secrets, self.entities = dict(kept["roles"]), dict(kept["secrets"]), dict(kept["entities"])


def _parameters(ask: Ask) -> Json:
    given: Json = {}
    for name in ask.data:
        if name in _LISTS:
            given[name] = ask.words(name)
        elif name in _TIMES:
            given[name] = int(ask.seconds(name))
        elif name in _NUMBERS:
            given[name] = int(ask.data[name] or 0)
        elif name in _FLAGS:
            given[name] = ask.flag(name)
        elif name in _DEFAULTS or name == "role_id":
            given[name] = ask.data[name]
        elif name == "policies":
            given["token_policies"] = ask.words(name)
    return given


def _keys(names: list[str]) -> Reply:
    if not names:
        raise Failed(404)
    return Reply({"keys": names})
