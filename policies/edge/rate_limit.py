"""Token buckets by key, in bounded memory: how many requests a second an address or an identity may make.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). Beyond
`MAX_KEYS` whoever was quiet for longest is forgotten, which most often means a bucket that is full anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.edge.forwarding import plain_address

MAX_KEYS = 65536
_HOST_BITS = 64  # of an IPv6 address: one customer has them all


@dataclass(frozen=True, slots=True)
class Rate:
    """`rate` requests a second, and `burst` at once."""

    rate: float
    burst: int


class TokenBuckets:
    """The buckets of one limit."""

    __slots__ = ("_full_at", "_max_keys", "_reserve", "_step")

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self._step = 1 / rate.rate  # seconds that a token takes to come
        self._reserve = (rate.burst - 1) * self._step
        self._max_keys = max_keys
        self._full_at: dict[str, float] = {}  # the one that was used last is the last

    def take(self, key: str, now: float) -> float:
        """Take a token and return 0.0, or return in how many seconds there will be one. `now` is in seconds."""
        full_at = max(self._full_at.pop(key, now), now)
        wait = full_at - now - self._reserve
        allowed = wait <= 0
        self._full_at[key] = full_at + self._step if allowed else full_at
        if len(self._full_at) > self._max_keys:
            del self._full_at[next(iter(self._full_at))]
        return 0.0 if allowed else wait

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._full_at)


def address_key(address: str) -> str:
    """Return whose an address is: itself, or its /64 of IPv6; any other text is its own."""
    try:
        found = plain_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else f"{int(found) >> _HOST_BITS:x}/64"  # noqa: PLR2004
