"""auth/approle: roles, secret-ids, logins. Source: Vault's HTTP API, "AppRole auth method"."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Ask, Failed, Internal, Json, Reply, keys_of, not_so
from lictor.dev.vault.approle_roles import DEFAULTS, KINDS, OLDER, ROLE, check_cidrs, check_role, within
from lictor.dev.vault.fields import Unfit
from lictor.dev.vault.routes import Call, Route, answer
from lictor.dev.vault.token_auth import clean_policies
from lictor.dev.vault.tokens import Token, Tokens, auth_of, life_of, new_id, stamp

Seen = Callable[[str, Mapping[str, str]], str]  # an alias and its metadata: the ID of its entity
# The endpoints of single fields that the dev server has, and the field of each.
_SINGLE = {
    "period": "token_period",
    "policies": "token_policies",
    "secret-id-num-uses": "secret_id_num_uses",
    "secret-id-ttl": "secret_id_ttl",
    "token-max-ttl": "token_max_ttl",
    "token-num-uses": "token_num_uses",
    "token-ttl": "token_ttl",
}
_SECRET: fields.Kinds = {
    "secret_id": fields.text,
    "metadata": fields.text,
    "cidr_list": fields.commas,
    "token_bound_cidrs": fields.commas,
    "num_uses": fields.number,
    "ttl": fields.duration,
}


class AppRole:
    """One mount of the AppRole auth method. `times`: default and longest life of a token of this mount."""

    def __init__(
        self,
        mount: str,
        tokens: Tokens,
        clock: Callable[[], float],
        seen: Seen,
        times: Callable[[], tuple[float, float]],
    ) -> None:
        self._mount = mount
        self._tokens = tokens
        self._clock = clock
        self._seen = seen
        self._times = times
        self.roles: dict[str, Json] = {}  # by name: its parameters, with role_id
        self.secrets: dict[str, Json] = {}  # by secret-id
        one = {"read": self._read, "update": self._write, "delete": self._delete}
        named: fields.Kinds = {"secret_id": fields.text}
        accessed: fields.Kinds = {"secret_id_accessor": fields.text}
        destroy = {"update": self._destroy, "delete": self._destroy}
        destroy_accessor = {"update": self._destroy_accessor, "delete": self._destroy_accessor}
        self._routes = (
            Route("login", dict.fromkeys(("update", "read", "delete"), self._login), {**named, "role_id": fields.text}),
            Route("role/?", {"list": self._list}),
            Route("role/{name}", one, KINDS, prefix=""),
            Route(
                "role/{name}/role-id",
                {"read": self._role_id, "update": self._write_role_id},
                {"role_id": fields.text},
            ),
            Route("role/{name}/secret-id/?", {"list": self._accessors, "update": self._new_secret}, _SECRET),
            Route("role/{name}/custom-secret-id", {"update": self._own_secret}, _SECRET),
            Route("role/{name}/secret-id/lookup", {"update": self._lookup}, named),
            Route("role/{name}/secret-id/destroy", destroy, named),
            Route("role/{name}/secret-id-accessor/lookup", {"update": self._lookup_accessor}, accessed),
            Route("role/{name}/secret-id-accessor/destroy", destroy_accessor, accessed),
            *(
                Route(f"role/{{name}}/{word}", {"read": self._single, "update": self._write_single}, KINDS)
                for word in _SINGLE
            ),
        )

    def answer(self, ask: Ask, own: Token) -> Reply:
        """Answer a request under the mount."""
        return answer(self._routes, ask, ask.path.removeprefix(f"auth/{self._mount}/"), own)

    # --- roles ---

    def _list(self, _: Call) -> Reply:
        return keys_of(sorted(self.roles))

    def _role(self, call: Call, missing: Failed | None = None) -> Json:
        role = self.roles.get(call.names["name"].lower())
        if role is None:
            raise missing or Failed(404)
        return role

    def _read(self, call: Call) -> Reply:
        return Reply({key: value for key, value in self._role(call).items() if key != "role_id"})

    def _write(self, call: Call) -> Reply:
        name = call.names["name"].lower()
        held = self.roles.get(name)
        given = {OLDER.get(word, word): value for word, value in call.given.items()}
        if held is not None and "local_secret_ids" in given:
            raise Failed(400, "local_secret_ids can only be modified during role creation")
        role = {**(held or {**DEFAULTS, "role_id": new_id()}), **given}
        for word in ("period", "policies"):
            if word in call.given:
                role[word] = call.given[word]
        for word, kind in ROLE.items():
            role[word] = int(role[word]) if kind is fields.duration else role[word]
        role["token_bound_cidrs"] = [cidr.removesuffix("/32") for cidr in role["token_bound_cidrs"]]
        role["token_type"] = role["token_type"] or "default"
        check_role(role)
        self._unused(role["role_id"], but=name)
        self.roles[name] = role
        return NOTHING

    def _delete(self, call: Call) -> Reply:
        name = call.names["name"].lower()
        self.roles.pop(name, None)
        self.secrets = {key: row for key, row in self.secrets.items() if row["role"] != name}
        return NOTHING

    def _role_id(self, call: Call) -> Reply:
        return Reply({"role_id": self._role(call)["role_id"]})

    def _write_role_id(self, call: Call) -> Reply:
        role = self._role(call, Internal(404, "unsupported path"))
        if not call.get("role_id"):
            raise Failed(400, "missing role_id")
        self._unused(call.get("role_id"), but=call.names["name"].lower())
        role["role_id"] = call.get("role_id")
        return NOTHING

    def _unused(self, role_id: str, *, but: str) -> None:
        if any(row["role_id"] == role_id for name, row in self.roles.items() if name != but):
            raise Internal(500, "role_id already in use")

    def _single(self, call: Call) -> Reply:
        name = _SINGLE[call.ask.path.rpartition("/")[2]]
        return Reply({name: self._role(call)[name]})

    def _write_single(self, call: Call) -> Reply:
        name = _SINGLE[call.ask.path.rpartition("/")[2]]
        role = self._role(call, Internal(404, "unsupported path"))
        value = call.given.get(name, next((call.given.get(old) for old, new in OLDER.items() if new == name), None))
        if value is None:
            raise Failed(400, f"missing {name}")
        changed = {**role, name: int(value) if ROLE[name] is fields.duration else value}
        check_role(changed)
        self.roles[call.names["name"].lower()] = changed
        return NOTHING

    # --- secret-ids ---

    def _accessors(self, call: Call) -> Reply:
        name = call.names["name"].lower()
        self._role(call, Failed(400, f'role "{name}" does not exist'))
        return keys_of([row["accessor"] for key, row in self.secrets.items() if self._alive(key, name)])

    def _alive(self, identifier: str, name: str) -> Json | None:
        """Return a secret-id of a role that has not ended."""
        row = self.secrets.get(identifier)
        if row is None or row["role"] != name or (row["expires"] and row["expires"] <= self._clock()):
            return None
        return row

    def _new_secret(self, call: Call) -> Reply:
        return self._secret(call, new_id())

    def _own_secret(self, call: Call) -> Reply:
        self._role(call, Failed(404, f'role "{call.names["name"]}" does not exist'))
        if not call.get("secret_id"):
            raise Failed(400, "missing secret_id")
        if call.get("secret_id") in self.secrets:
            raise Internal(500, "failed to store secret_id: SecretID is already registered")
        return self._secret(call, call.get("secret_id"))

    def _secret(self, call: Call, identifier: str) -> Reply:
        name = call.names["name"].lower()
        role = self._role(call, Failed(404, f'role "{name}" does not exist'))
        if not role["bind_secret_id"]:
            raise Failed(400, "bind_secret_id is not set on the role")
        uses = call.get("num_uses", role["secret_id_num_uses"])
        if uses < 0:
            raise Failed(400, "num_uses cannot be negative")
        if role["secret_id_num_uses"] and (uses == 0 or uses > role["secret_id_num_uses"]):
            raise Failed(400, "num_uses cannot be higher than the role's secret_id_num_uses")
        ttl = int(call.get("ttl", role["secret_id_ttl"]))
        if role["secret_id_ttl"] and (ttl == 0 or ttl > role["secret_id_ttl"]):
            raise Failed(400, "ttl cannot be longer than the role's secret_id_ttl")
        cidrs, bound = call.get("cidr_list", []), call.get("token_bound_cidrs", [])
        check_cidrs(cidrs)
        now, accessor = self._clock(), new_id()
        self.secrets[identifier] = {
            "role": name,
            "accessor": accessor,
            "created": now,
            "updated": now,
            "expires": now + ttl if ttl else 0.0,
            "ttl": ttl,
            "uses": uses,
            "limited": uses > 0,
            "metadata": _metadata(call.get("metadata")),
            "cidrs": cidrs,
            "token_cidrs": bound,
        }
        data = {
            "secret_id": identifier,
            "secret_id_accessor": accessor,
            "secret_id_num_uses": uses,
            "secret_id_ttl": ttl,
        }
        return Reply(data, accessor=accessor)

    def _secret_of(self, call: Call) -> str:
        name = call.names["name"].lower()
        if not call.get("secret_id"):
            raise Failed(400, "missing secret_id")
        self._role(call, Internal(500, f'role "{name}" does not exist'))
        return str(call.get("secret_id"))

    def _lookup(self, call: Call) -> Reply:
        return self._told(self._alive(self._secret_of(call), call.names["name"].lower()))

    def _told(self, row: Json | None) -> Reply:
        if row is None:
            return NOTHING
        data = {
            "cidr_list": row["cidrs"],
            "creation_time": stamp(row["created"]),
            "expiration_time": stamp(row["expires"]) if row["expires"] else "0001-01-01T00:00:00Z",
            "last_updated_time": stamp(row["updated"]),
            "metadata": row["metadata"],
            "secret_id_accessor": row["accessor"],
            "secret_id_num_uses": row["uses"],
            "secret_id_ttl": row["ttl"],
            "token_bound_cidrs": row["token_cidrs"],
        }
        return Reply(data)

    def _destroy(self, call: Call) -> Reply:
        identifier = self._secret_of(call)
        if self._alive(identifier, call.names["name"].lower()) is not None:
            del self.secrets[identifier]
        return NOTHING

    def _accessed(self, call: Call) -> str:
        accessor, name = call.get("secret_id_accessor"), call.names["name"].lower()
        if not accessor:
            raise Failed(400, "missing secret_id_accessor")
        self._role(call, Internal(500, f'role "{name}" does not exist'))
        return next((key for key, row in self.secrets.items() if row["accessor"] == accessor), "")

    def _lookup_accessor(self, call: Call) -> Reply:
        identifier = self._accessed(call)
        if not identifier:
            told = f'failed to find accessor entry for secret_id_accessor: "{call.get("secret_id_accessor")}"'
            return Reply({"error": told}, status=404)
        return self._told(self._alive(identifier, call.names["name"].lower()))

    def _destroy_accessor(self, call: Call) -> Reply:
        identifier = self._accessed(call)
        if not identifier:
            told = f'failed to find accessor entry for secret_id_accessor: "{call.get("secret_id_accessor")}"'
            raise Internal(500, told)
        if self._alive(identifier, call.names["name"].lower()) is not None:
            del self.secrets[identifier]
        return NOTHING

    # --- logins ---

    def _login(self, call: Call) -> Reply:
        role_id = call.get("role_id")
        if not role_id:
            raise Internal(500, "missing role_id")
        name = next((name for name, row in self.roles.items() if row["role_id"] == role_id), "")
        if not name:
            raise Failed(400, "invalid role or secret ID")
        role = self.roles[name]
        secret = self._spend(name, call) if role["bind_secret_id"] else {}
        _check_source(call.ask.remote, role["secret_id_bound_cidrs"] or ())
        if "batch" in role["token_type"]:
            raise not_so("batch tokens")
        default, longest = self._times()
        limits = [one for one in (float(role["token_max_ttl"]), longest) if one]
        explicit, period = float(role["token_explicit_max_ttl"]), float(role["token_period"])
        life, warnings = life_of(float(role["token_ttl"]) or default, period, explicit, min(limits))
        policies = {*clean_policies(role["token_policies"]), *(() if role["token_no_default_policy"] else ("default",))}
        strict = [call.ask.remote] if role["token_strictly_bind_ip"] else []
        metadata = {**secret.get("metadata", {}), "role_name": name}
        token = self._tokens.make(
            sorted(policies),
            life,
            period=period,
            longest=explicit,
            max_ttl=min(limits),
            uses=int(role["token_num_uses"]),
            orphan=True,
            meta=metadata,
            entity=self._seen(role_id, metadata),
            path=f"auth/{self._mount}/login",
            mount=f"auth/{self._mount}/",
            display_name=self._mount,
            cidrs=secret.get("token_cidrs") or strict or role["token_bound_cidrs"],
        )
        return Reply(auth=auth_of(token, life), accessor=token.accessor, warnings=tuple(warnings))

    def _spend(self, name: str, call: Call) -> Json:
        """Use up a secret-id and return it. Raise Failed for one that is wrong, used up, ended or from elsewhere."""
        identifier = call.get("secret_id")
        if not identifier:
            raise Failed(400, "missing secret_id")
        row = self._alive(identifier, name)
        if row is None:
            raise Failed(400, "invalid role or secret ID")
        _check_source(call.ask.remote, row["cidrs"])
        if row["limited"]:
            row["uses"] -= 1
            row["updated"] = self._clock()
            if row["uses"] <= 0:
                del self.secrets[identifier]
        return row

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, secrets included."""
        return {"roles": self.roles, "secrets": self.secrets}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave."""
        self.roles, self.secrets = dict(kept["roles"]), dict(kept["secrets"])


def _check_source(address: str, cidrs: Iterable[str]) -> None:
    if not within(address, cidrs):
        # The odd end is what the server that was compared says.
        told = f'source address "{address}" unauthorized by CIDR restrictions on the role: %!w(<nil>)'
        raise Failed(400, told)


def _metadata(text: str) -> dict[str, str]:
    """Return the metadata of a secret-id: a JSON object as text, or `name=text` between commas. Raise Failed."""
    if not text:
        return {}
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            return fields.pairs(found)
    except (ValueError, Unfit):
        pass
    try:
        return fields.pairs([word for word in re.split(r"\s*,\s*", text) if word])
    except Unfit as error:
        told = "failed to parse metadata: failed to parse the input: invalid <key,value> format"
        raise Failed(400, told) from error
