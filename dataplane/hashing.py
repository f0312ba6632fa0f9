"""What the hash policies of ring_hash and maglev find in a request, and the cookies that they make a caller keep.

A cookie with a TTL, or one of the session, is made up where the caller has none: the request goes by it at once, and
the answer sets it, so that the next one goes the same way. As in Envoy its value is a hash of the connection's
addresses, and an empty cookie counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataplane.downstream import Downstream
from dataplane.heads import RequestHead
from policies.balance import HashPolicy, combined_hash, stable_hash


def request_hash(policies: tuple[HashPolicy, ...], head: RequestHead, downstream: Downstream) -> int | None:
    """Return the hash that ring_hash and maglev go by, or None when no policy found anything."""
    found, _ = _look(policies, head, downstream)
    return combined_hash(policies, found)


def makes_cookies(policies: tuple[HashPolicy, ...]) -> bool:
    """Return whether answers may have to set a cookie."""
    return any(map(_generates, policies))


def new_cookies(policies: tuple[HashPolicy, ...], head: RequestHead, downstream: Downstream) -> bytes:
    """Return the lines that set the cookies which the request went by and did not have."""
    found, made = _look(policies, head, downstream)
    return b"".join(_set_cookie(policy, found[policy]) for policy in made)


def _look(
    policies: tuple[HashPolicy, ...], head: RequestHead, downstream: Downstream
) -> tuple[dict[HashPolicy, str], list[HashPolicy]]:
    """Return what each policy found, up to a terminal one, and for which of them it was made up."""
    found, made = {}, []
    for policy in policies:
        value = _value(policy, head, downstream)
        if value is None and _generates(policy):
            value = _made_up(downstream)
            made.append(policy)
        if value is None:
            continue
        found[policy] = value
        if policy.terminal:
            break
    return found, made


def _generates(policy: HashPolicy) -> bool:
    return policy.field_name == "cookie" and (policy.cookie_session or policy.cookie_ttl is not None)


def _value(policy: HashPolicy, head: RequestHead, downstream: Downstream) -> str | None:
    match policy.field_name:
        case "source_ip":
            return downstream.client_address
        case "header":
            values = head.get_all(policy.value.lower())
            return ",".join(sorted(values)) if values else None
        case "cookie":
            pairs = [part.strip() for line in head.get_all("cookie") for part in line.split(";")]
            value = _pair(policy.value, pairs) or ""
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            return (value[1:-1] if quoted else value) or None
        case "query_parameter":
            return _pair(policy.value, head.query.split("&"))
        case _:
            return None


def _pair(name: str, pairs: Sequence[str]) -> str | None:
    return next((value for key, _, value in (pair.partition("=") for pair in pairs) if key == name), None)


def _made_up(downstream: Downstream) -> str:
    transport = downstream.transport
    addresses = f"{transport.get_extra_info('peername')}{transport.get_extra_info('sockname')}"
    return f"{stable_hash(addresses):016x}"


def _set_cookie(policy: HashPolicy, value: str) -> bytes:
    """Return the line as Envoy writes it."""
    age = f"; Max-Age={int(policy.cookie_ttl)}" if policy.cookie_ttl is not None else ""
    path = f"; Path={policy.cookie_path}" if policy.cookie_path else ""
    return f'set-cookie: {policy.value}="{value}"{age}{path}; HttpOnly\r\n'.encode("latin-1", "replace")
