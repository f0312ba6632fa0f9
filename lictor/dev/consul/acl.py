"""Who may do what: tokens, policies with rules in HCL, and the texts of a refusal.

A rule names a resource and a name or a prefix: the exact name outranks prefixes, the longest prefix outranks shorter
ones; of two policies on the same name the stricter wins (deny, then write, then read). Without a rule the default
policy decides. Source: Consul's documentation "ACL rules".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lictor.dev.consul.refusals import Refused
from lictor.hcl import HclError, parse_hcl

Json = dict[str, Any]
ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"
MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"
READ_ONLY_ID = "00000000-0000-0000-0000-000000000002"
RANKS = {"deny": 3, "write": 2, "list": 1, "read": 0}  # which of two rules on one name wins
GRANTS = {"deny": frozenset[str](), "read": frozenset({"read"}), "list": frozenset({"read", "list"})}
GRANTS["write"] = frozenset({"read", "list", "write"})
NAMED = ("agent", "event", "key", "node", "query", "service", "session", "identity")
SCALARS = ("acl", "operator", "keyring", "mesh", "peering")
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?")
_ANONYMOUS_NOTE = " The anonymous token is used implicitly when a request does not specify a token."


@dataclass(frozen=True, slots=True)
class Rules:
    """Parsed rules: by (resource, is a prefix, name) the access."""

    rows: Mapping[tuple[str, bool, str], str] = field(default_factory=dict)


def parse_rules(text: str) -> Rules:
    """Return the rules of a policy. Raise Refused as Consul does for text that is none."""
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else parse_hcl(text)
    except (HclError, ValueError) as error:
        raise Refused(500, f"Failed to parse ACL rules: {error}") from error
    rows: dict[tuple[str, bool, str], str] = {}
    for key, value in document.items():
        if key in SCALARS:
            _add(rows, (key, False, ""), str(value), f'{key} policy: "{value}"')
        elif key.removesuffix("_prefix") in NAMED:
            for name, block in _blocks(value):
                _add_block(rows, key, name, block)
    return Rules(rows)


def _blocks(value: Any) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Mapping):
            for name, block in part.items():
                for one in block if isinstance(block, list) else [block]:
                    yield name, one if isinstance(one, Mapping) else {}


def _add_block(rows: dict[tuple[str, bool, str], str], key: str, name: str, block: Mapping[str, Any]) -> None:
    resource, prefix = key.removesuffix("_prefix"), key.endswith("_prefix")
    policy = str(block.get("policy", ""))
    own = str(block.get("intentions") or "")
    told = f'Name:"{name}", Policy:"{policy}"' + (f', Intentions:"{own}"' if resource == "service" else "")
    rule = f"&acl.{resource.capitalize()}Rule{{{told}, EnterpriseRule:acl.EnterpriseRule{{}}}}"
    _add(rows, (resource, prefix, name), policy, f"{key} policy: {rule}")
    if resource == "service":
        implied = "read" if policy in {"read", "write"} else policy
        _add(rows, ("intention", prefix, name), own or implied, f"{key} intentions policy: {rule}")


def _add(rows: dict[tuple[str, bool, str], str], key: tuple[str, bool, str], access: str, what: str) -> None:
    if access not in RANKS:
        raise Refused(500, f"Invalid {what}")
    held = rows.get(key)
    if held is None or RANKS[access] > RANKS[held]:
        rows[key] = access


@dataclass(frozen=True, slots=True)
class Authorizer:
    """What one token may do. `accessor` "" is the anonymous token; `manages` may do everything."""

    rules: tuple[Rules, ...] = ()
    accessor: str = ""
    default_allow: bool = False
    manages: bool = False
    known: bool = True
    read_only: bool = False

    def allows(self, resource: str, access: str, name: str = "") -> bool:
        """Return whether this access to a named resource is granted."""
        if self.manages:
            return True
        if self.read_only and access == "read":
            return True
        if resource in SCALARS:
            return self._scalar(resource, access)
        found = self._find(resource, name)
        return self.default_allow if found is None else access in GRANTS[found]

    def _scalar(self, resource: str, access: str) -> bool:
        held = self._at((resource, False, ""))
        if held is None and resource in {"mesh", "peering"}:
            held = self._at(("operator", False, ""))
        return self.default_allow and resource != "acl" if held is None else access in GRANTS[held]

    def _find(self, resource: str, name: str) -> str | None:
        exact = self._at((resource, False, name))
        if exact is not None:
            return exact
        for length in range(len(name), -1, -1):
            found = self._at((resource, True, name[:length]))
            if found is not None:
                return found
        return None

    def _at(self, key: tuple[str, bool, str]) -> str | None:
        held = [rules.rows[key] for rules in self.rules if key in rules.rows]
        return max(held, key=RANKS.__getitem__, default=None)

    def any_of(self, resource: str, access: str) -> bool:
        """Return whether some name of a resource would be granted."""
        return self.manages or any(
            key[0] == resource and access in GRANTS[held] for rules in self.rules for key, held in rules.rows.items()
        )

    def demand(self, resource: str, access: str, name: str = "", *, bare: bool = False, indexed: bool = False) -> None:
        """Raise Refused (403) unless this access is granted."""
        if not self.allows(resource, access, name):
            raise Refused(403, "Permission denied" if bare else self.denial(resource, access, name), indexed=indexed)

    def denial(self, resource: str, access: str, name: str = "") -> str:
        """Return Consul's sentence about what is missing."""
        who = f"token with AccessorID '{self.accessor}'" if self.accessor else "anonymous token"
        on = f' on "{name}"' if name else ""
        note = "" if self.accessor else "." + _ANONYMOUS_NOTE
        return f"Permission denied: {who} lacks permission '{resource}:{access}'{on}{note}"


EVERYTHING = Authorizer(manages=True)


class Acl:
    """Tokens and policies. Disabled: everybody may do everything."""

    def __init__(self, *, enabled: bool = False, default_allow: bool = True) -> None:
        self.enabled = enabled
        self.default_allow = default_allow
        self.policies: dict[str, Json] = {}
        self.tokens: dict[str, Json] = {}  # by secret
        self.bootstrap_index = 0
        self._rules: dict[str, Rules] = {}
        if enabled:
            self._built_in()

    def _built_in(self) -> None:
        texts = {
            MANAGEMENT_ID: ("global-management", "read and write"),
            READ_ONLY_ID: ("builtin/global-read-only", "read-only"),
        }
        for identifier, (name, kind) in texts.items():
            description = f"A built-in policy that grants {kind} access to all Consul features"
            self.policies[identifier] = _policy_row(identifier, name, description, "", 4)
            self._rules[identifier] = Rules()
        self.tokens["anonymous"] = _token_row(ANONYMOUS_ID, "anonymous", "Anonymous Token", [], 5)

    def resolve(self, secret: str) -> Authorizer:
        """Return what a token may do; `known` False for one that does not exist."""
        if not self.enabled:
            return EVERYTHING
        row = self.tokens.get(secret or "anonymous")
        if row is None:
            return Authorizer(known=False)
        identifiers = [link["ID"] for link in row.get("Policies") or ()]
        return Authorizer(
            rules=tuple(self._rules[identifier] for identifier in identifiers if identifier in self._rules),
            accessor="" if row["SecretID"] == "anonymous" else row["AccessorID"],
            default_allow=self.default_allow,
            manages=MANAGEMENT_ID in identifiers,
            read_only=READ_ONLY_ID in identifiers,
        )

    # --- policies ---

    def policy_by_name(self, name: str) -> Json | None:
        """Return a policy."""
        return next((row for row in self.policies.values() if row["Name"] == name), None)

    def write_policy(self, given: Mapping[str, Any], index: int, identifier: str = "") -> Json:
        """Create a policy, or replace the one with this ID. Raise Refused."""
        name = str(given.get("Name") or "")
        if not name:
            raise Refused(500, "Invalid Policy: no Name is set")
        if not _NAME.fullmatch(name):
            allowed = "Only alphanumeric characters, a single '/', '-' and '_' are allowed"
            raise Refused(500, f"Invalid Policy: invalid Name. {allowed}")
        other = self.policy_by_name(name)
        if other is not None and other["ID"] != identifier:
            raise Refused(500, f'Invalid Policy: A Policy with Name "{name}" already exists')
        rules = parse_rules(str(given.get("Rules") or ""))
        identifier = identifier or str(uuid.uuid4())
        held = self.policies.get(identifier)
        row = _policy_row(identifier, name, str(given.get("Description") or ""), str(given.get("Rules") or ""), index)
        row["CreateIndex"] = held["CreateIndex"] if held else index
        self.policies[identifier], self._rules[identifier] = row, rules
        return row

    def delete_policy(self, identifier: str) -> None:
        """Forget a policy; tokens lose what it gave. Raise Refused."""
        if self.policies.pop(identifier, None) is None:
            raise Refused(404, "Cannot find policy to delete")
        self._rules.pop(identifier, None)

    # --- tokens ---

    def add_management(self, secret: str, index: int, description: str = "Initial Management Token") -> Json:
        """Add a token that may do everything."""
        links = [{"ID": MANAGEMENT_ID, "Name": "global-management"}]
        row = _token_row(str(uuid.uuid4()), secret, description, links, index)
        self.tokens[secret] = row
        self.bootstrap_index = self.bootstrap_index or index
        return row

    def write_token(self, given: Mapping[str, Any], index: int, held: Json | None = None) -> Json:
        """Create a token, or replace one. Raise Refused for a policy that does not exist."""
        links = [self._link(link) for link in given.get("Policies") or ()]
        accessor = held["AccessorID"] if held else str(given.get("AccessorID") or uuid.uuid4())
        secret = held["SecretID"] if held else str(given.get("SecretID") or uuid.uuid4())
        row = _token_row(accessor, secret, str(given.get("Description") or ""), links, index)
        row["Local"] = bool(given.get("Local"))
        if held:
            row["CreateIndex"], row["CreateTime"] = held["CreateIndex"], held["CreateTime"]
        self.tokens[secret] = row
        return row

    def _link(self, link: Mapping[str, Any]) -> Json:
        name, identifier = str(link.get("Name") or ""), str(link.get("ID") or "")
        row = self.policies.get(identifier) if identifier else self.policy_by_name(name)
        if row is None:
            if identifier:
                raise Refused(500, f'Cannot find policy "{identifier}"')
            raise Refused(500, f'No such ACL policy with name "{name}"')
        return {"ID": row["ID"], "Name": row["Name"]}

    def by_accessor(self, accessor: str) -> Json | None:
        """Return a token by its public name."""
        return next((row for row in self.tokens.values() if row["AccessorID"] == accessor), None)

    # --- keeping it over a restart ---

    def dump(self) -> Json:
        """Return everything as JSON, secrets included."""
        return {"policies": self.policies, "tokens": self.tokens, "bootstrap_index": self.bootstrap_index}

    def load(self, kept: Json) -> None:
        """Take what `dump` gave."""
        self.policies, self.tokens = dict(kept["policies"]), dict(kept["tokens"])
        self.bootstrap_index = int(kept["bootstrap_index"])
        self._rules = {identifier: parse_rules(row["Rules"]) for identifier, row in self.policies.items()}


def _hash(*parts: str) -> str:
    return base64.b64encode(hashlib.blake2b("\0".join(parts).encode(), digest_size=32).digest()).decode()


def _policy_row(identifier: str, name: str, description: str, rules: str, index: int) -> Json:
    return {
        "ID": identifier,
        "Name": name,
        "Description": description,
        "Rules": rules,
        "Hash": _hash(name, description, rules),
        "CreateIndex": index,
        "ModifyIndex": index,
    }


def _token_row(accessor: str, secret: str, description: str, links: list[Json], index: int) -> Json:
    row: Json = {"AccessorID": accessor, "SecretID": secret, "Description": description}
    if links:
        row["Policies"] = links
    return {
        **row,
        "Local": False,
        "CreateTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "Hash": _hash(description, *(link["ID"] for link in links)),
        "CreateIndex": index,
        "ModifyIndex": index,
    }
