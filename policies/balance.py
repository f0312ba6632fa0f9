"""Which endpoint of a cluster takes a request: round robin, least request, random, ring hash, maglev.

A `Balancer` is built once for a set of endpoints and is immutable. What changes from request to request (a counter,
draws in [0, 1), the load of each endpoint, the hash of the request) comes in with the question, so that every answer
can be repeated in a test. Weights count in every policy, as in Envoy.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

HASHING = frozenset({"ring_hash", "maglev"})  # policies that ask for the request's hash
MAX_SCHEDULE = 4096
MAGLEV_SIZE = 65537  # prime, Envoy's default
_POINT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One healthy instance that may be dialled. `weight` >= 1. `host` is the name of one outside that has a name."""

    instance_id: str
    address: str
    port: int
    weight: int = 1
    host: str = ""


def reused(now: tuple[Endpoint, ...], before: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return the endpoints of now with those that have not changed as the very objects of before; see `instances`."""
    known = {endpoint: endpoint for endpoint in before}
    same = tuple(known.get(endpoint, endpoint) for endpoint in now)
    return before if same == before else same


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One source of the hash of ring_hash and maglev."""

    field_name: str  # header, cookie, query_parameter, source_ip
    value: str = ""
    terminal: bool = False
    cookie_ttl: float | None = None
    cookie_session: bool = False
    cookie_path: str = ""


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """How to choose an endpoint (`service-resolver` LoadBalancer). Policies by Consul's names."""

    policy: str = "round_robin"  # round_robin, least_request, random, ring_hash, maglev
    choice_count: int = 2
    minimum_ring_size: int = 1024
    maximum_ring_size: int = 8 << 20
    hash_policies: tuple[HashPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What may differ between two requests. `load` gives an endpoint's requests in flight."""

    counter: int
    draw: Callable[[], float]
    load: Callable[[Endpoint], int]
    hash: int | None = None


class Balancer(Protocol):
    """A choice among a fixed, non-empty set of endpoints."""

    def pick(self, question: Question) -> Endpoint:
        """Return the endpoint that takes this request."""
        ...


def build(endpoints: tuple[Endpoint, ...], settings: LoadBalancer) -> Balancer:
    """Return the balancer of a non-empty set. An unknown policy is round robin, Envoy's default."""
    if len(endpoints) == 1:
        return Schedule(endpoints)
    match settings.policy:
        case "random":
            return Random(endpoints)
        case "least_request":
            return LeastRequest(endpoints, settings.choice_count)
        case "ring_hash":
            return Ring(endpoints, settings.minimum_ring_size, settings.maximum_ring_size)
        case "maglev":
            return Maglev(endpoints)
        case _:
            return Schedule(endpoints)


class Schedule:
    """Weighted round robin, smooth: the turns of a heavy endpoint are spread, not bunched."""

    __slots__ = ("turns",)

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.turns = _smooth(endpoints)

    def pick(self, question: Question) -> Endpoint:
        """Return whose turn it is."""
        turns = self.turns
        return turns[question.counter % len(turns)]


def _smooth(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return the turns of one round: each endpoint as often as its weight, reduced and bounded."""
    weights = _reduced([endpoint.weight for endpoint in endpoints])
    if set(weights) == {1}:
        return endpoints
    ticks = sorted(
        ((turn + 0.5) / weight, position) for position, weight in enumerate(weights) for turn in range(weight)
    )
    return tuple(endpoints[position] for _, position in ticks)


def _reduced(weights: list[int]) -> list[int]:
    divisor = math.gcd(*weights)
    total = sum(weights) // divisor
    if total <= MAX_SCHEDULE or len(weights) > MAX_SCHEDULE:
        return [weight // divisor for weight in weights] if total <= MAX_SCHEDULE else [1] * len(weights)
    return [max(1, round(weight * MAX_SCHEDULE / (total * divisor))) for weight in weights]


class Random:
    """One draw, by weight."""

    __slots__ = ("_bounds", "_endpoints")

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        self._bounds = tuple(itertools.accumulate(endpoint.weight for endpoint in endpoints))

    def pick(self, question: Question) -> Endpoint:
        """Return the endpoint that the draw falls on."""
        return self._endpoints[bisect.bisect_right(self._bounds, question.draw() * self._bounds[-1])]


class LeastRequest:
    """Of a few drawn endpoints the one with the fewest requests in flight for its weight."""

    __slots__ = ("_choices", "_random")

    def __init__(self, endpoints: tuple[Endpoint, ...], choices: int) -> None:
        self._random = Random(endpoints)
        self._choices = max(1, choices)

    def pick(self, question: Question) -> Endpoint:
        """Return the least loaded of `choice_count` draws; of equals the one drawn first."""
        drawn = [self._random.pick(question) for _ in range(self._choices)]
        return min(drawn, key=lambda endpoint: question.load(endpoint) / endpoint.weight)


class Ring:
    """Consistent hashing: each endpoint stands at many points of a ring; a hash belongs to the next point."""

    __slots__ = ("_owners", "_points", "_random")

    def __init__(self, endpoints: tuple[Endpoint, ...], minimum: int, maximum: int) -> None:
        each = points_per_weight(endpoints, minimum, maximum)
        points = sorted(
            (stable_hash(f"{key(endpoint)}_{position}"), order)
            for order, endpoint in enumerate(endpoints)
            for position in range(max(1, int(each * endpoint.weight)))
        )
        self._points = [point for point, _ in points]
        self._owners = [endpoints[order] for _, order in points]
        self._random = Random(endpoints)

    def pick(self, question: Question) -> Endpoint:
        """Return the owner of the request's hash; without a hash a random endpoint."""
        if question.hash is None:
            return self._random.pick(question)
        position = bisect.bisect_left(self._points, question.hash)
        return self._owners[position % len(self._owners)]


def points_per_weight(endpoints: tuple[Endpoint, ...], minimum: int, maximum: int) -> float:
    """Return how many points a weight of 1 has, so that a ring has `minimum` of them or more, but at most `maximum`.

    A power of two: Envoy takes the smallest number that will do, so that with every endpoint that comes or goes the
    others get or lose points, and callers move who need not. Here that happens when the number doubles or halves.
    """
    total = sum(endpoint.weight for endpoint in endpoints)
    lightest = min(endpoint.weight for endpoint in endpoints)
    wanted = max(minimum / total, 1 / lightest)
    return min(2.0 ** math.ceil(math.log2(wanted)), maximum / total)


class Maglev:
    """Maglev hashing: a table in which every endpoint fills slots in turn, in an order of its own."""

    __slots__ = ("_random", "_table")

    def __init__(self, endpoints: tuple[Endpoint, ...], size: int = MAGLEV_SIZE) -> None:
        self._random = Random(endpoints)
        self._table = _maglev_table(endpoints, size)

    def pick(self, question: Question) -> Endpoint:
        """Return the endpoint in the slot of the request's hash; without a hash a random endpoint."""
        if question.hash is None:
            return self._random.pick(question)
        return self._table[question.hash % len(self._table)]


def _maglev_table(endpoints: tuple[Endpoint, ...], size: int) -> tuple[Endpoint, ...]:
    """Fill the table as in the Maglev paper; an endpoint's turns come as often as its share of the weight.

    Endpoints take their turns in the order of their addresses, so that every proxy fills its table alike.
    """
    endpoints = tuple(sorted(endpoints, key=key))
    heaviest = max(endpoint.weight for endpoint in endpoints)
    table: list[Endpoint | None] = [None] * size
    cursors = [stable_hash(key(endpoint)) % size for endpoint in endpoints]
    skips = [stable_hash(f"{key(endpoint)}#skip") % (size - 1) + 1 for endpoint in endpoints]
    credit = [0.0] * len(endpoints)
    filled = 0
    while True:
        for order, endpoint in enumerate(endpoints):
            credit[order] += endpoint.weight / heaviest
            if credit[order] < 1:
                continue
            credit[order] -= 1
            slot = cursors[order]
            while table[slot] is not None:
                slot = (slot + skips[order]) % size
            table[slot] = endpoint
            cursors[order] = (slot + skips[order]) % size
            filled += 1
            if filled == size:
                return tuple(owner for owner in table if owner is not None)


def key(endpoint: Endpoint) -> str:
    """Return what stands for an endpoint in hashes: its address, so that every proxy hashes alike."""
    return f"{endpoint.address}:{endpoint.port}"


def stable_hash(text: str) -> int:
    """Return 64 bits that are the same in every process and on every machine."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_POINT_BYTES).digest(), "big")


def rehash(value: int, attempt: int) -> int:
    """Return the hash with which a request asks again when its endpoint is left out: every proxy asks alike."""
    return value if attempt == 0 else stable_hash(f"{value}#{attempt}")


def combined_hash(policies: tuple[HashPolicy, ...], found: Mapping[HashPolicy, str]) -> int | None:
    """Return the hash of a request from what each policy found in it, or None when none found anything.

    Policies count in order and are combined as Envoy does (rotate, then xor); a terminal one that found something
    ends the list.
    """
    value: int | None = None
    for policy in policies:
        text = found.get(policy)
        if text is None:
            continue
        own = stable_hash(text)
        value = own if value is None else (((value << 1) | (value >> 63)) & 0xFFFFFFFFFFFFFFFF) ^ own
        if policy.terminal:
            break
    return value
