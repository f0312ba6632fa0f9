"""What the hash policies of ring_hash and maglev find in a request."""

from __future__ import annotations

from collections.abc import Sequence

from dataplane.downstream import Downstream
from dataplane.heads import RequestHead
from policies.balance import HashPolicy, combined_hash


def request_hash(policies: tuple[HashPolicy, ...], head: RequestHead, downstream: Downstream) -> int | None:
    """Return the hash that ring_hash and maglev go by, or None when no policy found anything."""
    found = {policy: _hashed_value(policy, head, downstream) for policy in policies}
    return combined_hash(policies, {policy: text for policy, text in found.items() if text is not None})


def _hashed_value(policy: HashPolicy, head: RequestHead, downstream: Downstream) -> str | None:
    match policy.field_name:
        case "source_ip":
            return downstream.client_address
        case "header":
            values = head.get_all(policy.value.lower())
            return ",".join(values) if values else None
        case "cookie":
            return _pair(policy.value, [part.strip() for line in head.get_all("cookie") for part in line.split(";")])
        case "query_parameter":
            return _pair(policy.value, head.query.split("&"))
        case _:
            return None


def _pair(name: str, pairs: Sequence[str]) -> str | None:
    return next((value for key, _, value in (pair.partition("=") for pair in pairs) if key == name), None)
