"""Vault's policies: which token may do what on which path. Source: Vault's documentation "Policies"."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.vault.answers import Ask, Failed, seconds
from lictor.hcl import HclError, parse_hcl

CAPABILITIES = frozenset({"create", "read", "update", "patch", "delete", "list", "sudo", "deny", "scan"})
DEFAULT = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/renew" { capabilities = ["update"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
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
        pattern = "[^/]+".join(re.escape(part) for part in self.path.removesuffix("*").split("+"))
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
            raise Failed(400, f"failed to parse policy: invalid key {key!r} on line 1")
        blocks = value if isinstance(value, list) else [value]
        rules += [_rule(path, body) for block in blocks for path, body in block.items()]
    return tuple(rules)


def _rule(path: str, body: Any) -> Rule:
    block: Mapping[str, Any] = body[0] if isinstance(body, list) else body
    capabilities = [str(one) for one in block.get("capabilities") or ()]
    for one in capabilities:
        if one not in CAPABILITIES:
            raise Failed(400, f'failed to parse policy: path "{path}": invalid capability {one!r}')
    return Rule(
        path=path.lstrip("/"),
        capabilities=frozenset(capabilities),
        allowed=_parameters(block.get("allowed_parameters")),
        denied=_parameters(block.get("denied_parameters")),
        required=tuple(str(one) for one in block.get("required_parameters") or ()),
        shortest_wrap=seconds(block.get("min_wrapping_ttl"), "min_wrapping_ttl"),
        longest_wrap=seconds(block.get("max_wrapping_ttl"), "max_wrapping_ttl"),
    )


def _parameters(value: Any) -> dict[str, list[Any]]:
    return {str(name).lower(): list(values or ()) for name, values in (value or {}).items()}


def capabilities(rules: Iterable[Rule], path: str) -> list[str]:
    """Return what a token may do on a path, sorted; `deny` alone when nothing."""
    best = _best(rules, path)
    found = frozenset[str]().union(*(rule.capabilities for rule in best)) if best else frozenset({"deny"})
    return ["deny"] if "deny" in found or not found else sorted(found)


def _best(rules: Iterable[Rule], path: str) -> list[Rule]:
    matching = [rule for rule in rules if rule.matches(path)]
    highest = max((rule.rank for rule in matching), default=None)
    return [rule for rule in matching if rule.rank == highest]


def permitted(rules: Iterable[Rule], ask: Ask) -> bool:
    """Return whether a request is granted, parameters and wrapping included."""
    best = _best(rules, ask.path)
    needed = {"create", "update"} if ask.operation == "update" else {ask.operation}
    if any("deny" in rule.capabilities for rule in best):
        return False
    return any(rule.capabilities & needed and _parameters_fit(rule, ask) and _wrap_fits(rule, ask) for rule in best)


def _parameters_fit(rule: Rule, ask: Ask) -> bool:
    if ask.operation != "update":
        return True
    given = {str(name).lower(): value for name, value in ask.data.items()}
    if any(name not in given for name in rule.required):
        return False
    if "*" in rule.denied or any(_listed(rule.denied, name, value) for name, value in given.items()):
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
