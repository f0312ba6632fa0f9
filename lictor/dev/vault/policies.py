"""Vault's policies: which token may do what on which path. Source: Vault's documentation "Policies"."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.vault.answers import Ask, Failed, one_error
from lictor.dev.vault.fields import Unfit, parse_seconds
from lictor.hcl import HclError, parse_hcl

CAPABILITIES = frozenset({"create", "read", "update", "patch", "delete", "list", "sudo", "deny", "scan"})
_WORDS = {  # the older way to write capabilities
    "deny": ("deny",),
    "read": ("read", "list"),
    "write": ("create", "read", "update", "delete", "list"),
    "sudo": ("create", "read", "update", "delete", "list", "sudo"),
}
_KEYS = frozenset(
    {
        "allowed_parameters",
        "capabilities",
        "comment",
        "denied_parameters",
        "max_wrapping_ttl",
        "min_wrapping_ttl",
        "policy",
        "required_parameters",
    }
)
# Vault and OpenBao read these as well; a policy that has them would mean less here than it says.
_KEYS_OF_VAULT = frozenset(
    {"control_group", "expiration", "list_scan_response_keys_filter_path", "mfa_methods", "pagination_limit"}
)
# What needs sudo besides the capability for its operation.
_SUDO = re.compile(
    r"auth/token/(accessors|roles/.*)?/?|sys/(auth/.*|audit(/.*)?|raw(/.*)?|remount|rotate(/.*)?|seal|step-down|metrics/.*"
    r"|config/(auditing|cors|state|ui)(/.*)?|leases/(lookup|revoke-force|revoke-prefix)/.*|revoke-(force|prefix)/.*"
    r"|plugins/catalog/.*|host-info|internal/(counters|inspect)/.*|replication/.*|in-flight-req)|[^/]+/root"
)
_SUDO_NOT = frozenset({"auth/token/", "auth/token/roles/"})
DEFAULT = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/renew" { capabilities = ["update"] }
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one `path` block grants. Wrapping times in seconds, 0 is no bound."""

    path: str
    capabilities: frozenset[str]
    allowed: Mapping[str, list[Any]] = field(default_factory=dict)
    denied: Mapping[str, list[Any]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    shortest_wrap: float = 0.0
    longest_wrap: float = 0.0

    def matches(self, path: str) -> bool:
        """Return whether a path falls under this block: `*` at the end is any rest, `+` is one segment."""
        pattern = "[^/]*".join(re.escape(part) for part in self.path.removesuffix("*").split("+"))
        return re.fullmatch(pattern + (".*" if self.path.endswith("*") else ""), path) is not None

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        """Return how exact this block is: the highest of those that match decides."""
        wild = min((self.path.find(sign) for sign in "+*" if sign in self.path), default=len(self.path) + 1)
        return (wild, not self.path.endswith("*"), -self.path.count("+"), len(self.path))


def parse_policy(text: str) -> tuple[Rule, ...]:
    """Return the rules of a policy in HCL or JSON. Raise Failed (400)."""
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else parse_hcl(text)
    except (HclError, ValueError) as error:
        raise Failed(400, f"failed to parse policy: {error}") from error
    rules: list[Rule] = []
    for key, value in document.items():
        if key == "name":
            continue
        if key != "path":
            raise Failed(400, f'failed to parse policy: {one_error(f"""invalid key "{key}" on line 0""")}')
        blocks = value if isinstance(value, list) else [value]
        rules += [_rule(path, body, text) for block in blocks for path, body in block.items()]
    return tuple(rules)


def _rule(path: str, body: Any, text: str) -> Rule:
    block: Mapping[str, Any] = body[0] if isinstance(body, list) else body
    begin = f'failed to parse policy: path "{path}": '
    for key in block:
        if key in _KEYS_OF_VAULT:
            told = f"policies with {key}: the dev server of Lictor does not do this; a real Vault may"
            raise Failed(404, told)
        if key not in _KEYS:
            raise Failed(400, begin + one_error(f'invalid key "{key}" on line {_line_of(key, text)}'))
    if "+*" in path:
        raise Failed(400, f"{begin}path \"{path}\": invalid use of wildcards ('+*' is forbidden)")
    capabilities = [*_WORDS.get(str(block.get("policy")), ()), *map(str, block.get("capabilities") or ())]
    for one in capabilities:
        if one not in CAPABILITIES:
            raise Failed(400, f'{begin}path "{path}": invalid capability "{one}"')
    times = {}
    for name in ("min_wrapping_ttl", "max_wrapping_ttl"):
        try:
            times[name] = parse_seconds(block.get(name) or 0)
        except Unfit as error:
            raise Failed(400, f"{begin}error parsing {name}: {error}") from error
    if times["max_wrapping_ttl"] and times["max_wrapping_ttl"] < times["min_wrapping_ttl"]:
        raise Failed(400, f"{begin}max_wrapping_ttl cannot be less than min_wrapping_ttl")
    return Rule(
        path=path.lstrip("/"),
        capabilities=frozenset(capabilities),
        allowed=_parameters(block.get("allowed_parameters")),
        denied=_parameters(block.get("denied_parameters")),
        required=tuple(str(one).lower() for one in block.get("required_parameters") or ()),
        shortest_wrap=times["min_wrapping_ttl"],
        longest_wrap=times["max_wrapping_ttl"],
    )


def _line_of(key: str, text: str) -> int:
    found = re.search(rf"\b{re.escape(key)}\b", text)
    return text.count("\n", 0, found.start()) + 1 if found is not None else 0


def _parameters(value: Any) -> dict[str, list[Any]]:
    block = value[0] if isinstance(value, list) and value else value
    return {str(name).lower(): list(values or ()) for name, values in (block or {}).items()}


def capabilities(rules: Iterable[Rule], path: str) -> list[str]:
    """Return what a token may do on a path, sorted; `deny` alone when nothing."""
    rule = _decisive(rules, path.lstrip("/"))
    if rule is None or not rule.capabilities or "deny" in rule.capabilities:
        return ["deny"]
    return sorted(rule.capabilities)


def touches(rules: Iterable[Rule], mount: str) -> bool:
    """Return whether anything at or below a mount is granted."""
    for rule in rules:
        literal = re.split(r"[+*{]", rule.path)[0]
        wild = literal != rule.path
        if (literal.startswith(mount) or (wild and mount.startswith(literal))) and "deny" not in rule.capabilities:
            return True
    return False


def _decisive(rules: Iterable[Rule], path: str) -> Rule | None:
    """Return the block that decides on a path: the most exact one, merged of all that say the same path."""
    matching = [rule for rule in rules if rule.matches(path)]
    highest = max((rule.rank for rule in matching), default=None)
    best = [rule for rule in matching if rule.rank == highest]
    return functools.reduce(_merged, best) if best else None


def _merged(one: Rule, other: Rule) -> Rule:
    def parameters(first: Mapping[str, list[Any]], second: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        found = {name: list(values) for name, values in first.items()}
        for name, values in second.items():
            both = name not in found or (found[name] and values)
            found[name] = [*found.get(name, ()), *values] if both else []
        return found

    def shorter(first: float, second: float) -> float:
        return min((value for value in (first, second) if value), default=0.0)

    return Rule(
        one.path,
        one.capabilities | other.capabilities,
        parameters(one.allowed, other.allowed),
        parameters(one.denied, other.denied),
        (*one.required, *other.required),
        shorter(one.shortest_wrap, other.shortest_wrap),
        shorter(one.longest_wrap, other.longest_wrap),
    )


def permitted(rules: Iterable[Rule], ask: Ask) -> bool:
    """Return whether a request is granted, parameters and wrapping included."""
    rules = tuple(rules)
    rule = _decisive(rules, ask.route)
    if rule is None and ask.operation == "list":
        rule = _decisive(rules, ask.path)
    if rule is None or "deny" in rule.capabilities:
        return False
    needed = {"create", "update"} if ask.operation == "update" else {ask.operation}
    if not rule.capabilities & needed or (needs_sudo(ask.route) and "sudo" not in rule.capabilities):
        return False
    return _parameters_fit(rule, ask) and _wrap_fits(rule, ask)


def needs_sudo(path: str) -> bool:
    """Return whether a path asks for sudo."""
    return path not in _SUDO_NOT and _SUDO.fullmatch(path) is not None


def may_sudo(rules: Iterable[Rule], path: str) -> bool:
    """Return whether a token has sudo on a path."""
    rule = _decisive(rules, path)
    return rule is not None and "sudo" in rule.capabilities and "deny" not in rule.capabilities


def _parameters_fit(rule: Rule, ask: Ask) -> bool:
    if ask.operation != "update":
        return True
    given = {str(name).lower(): value for name, value in ask.data.items()}
    if any(name not in given for name in rule.required):
        return False
    if ("*" in rule.denied and given) or any(_listed(rule.denied, name, value) for name, value in given.items()):
        return False
    if not rule.allowed:
        return True
    return all(
        ("*" in rule.allowed and name not in rule.allowed) or _listed(rule.allowed, name, value)
        for name, value in given.items()
    )


def _listed(parameters: Mapping[str, list[Any]], name: str, value: Any) -> bool:
    """Return whether a parameter with this value is named: an empty list names every value."""
    if name not in parameters:
        return False
    values = parameters[name]
    return not values or any(_equal(one, value) for one in values)


def _equal(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, str) and isinstance(value, str):
        parts = [re.escape(part) for part in pattern.split("*")]
        return re.fullmatch(".*".join(parts), value, re.DOTALL) is not None
    return bool(pattern == value)


def _wrap_fits(rule: Rule, ask: Ask) -> bool:
    if rule.shortest_wrap and ask.wrap < rule.shortest_wrap:
        return False
    return not (rule.longest_wrap and (not ask.wrap or ask.wrap > rule.longest_wrap))
