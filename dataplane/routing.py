"""Which route and which arm take a request.

The table's index finds the route. A route's arms become decisions that serve every request alike when it is taken for
the first time: of 2,000 routes few are in use, and a new table must not make the loop wait. Where a route splits there
is one draw.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from dataplane.exchange import Forward, Reply
from dataplane.heads import RequestHead, without
from policies.matching import on_the_wire
from policies.route_index import RouteIndex
from policies.splits import pick
from policies.table import Leg, Outbound, Route

NO_UPSTREAM = Reply(503, "no_healthy_upstream", b"no healthy upstream")
_ORIGINAL = frozenset({b"x-envoy-original-path"})
_ENDS_A_WORD = re.compile(rb"[\x00-\x20\x7f]")
_NO_ROUTE = Reply(404, "no_route")
_REFUSED = Reply(403, "route_refused")

Decision = Forward | Reply
DecideArm = Callable[[Route, Leg], Decision]


@dataclass(frozen=True, slots=True)
class _Arm:
    weight: float
    decision: Decision
    rewrite: _Rewrite | None


@dataclass(frozen=True, slots=True)
class _PreparedRoute:
    arms: tuple[_Arm, ...]
    only: _Arm | None  # so that no draw is made


@dataclass(frozen=True, slots=True)
class _Rewrite:
    """PrefixRewrite: what comes in the place of what was matched. `matched` None is the whole path; the query stays."""

    text: bytes
    matched: int | None

    @classmethod
    def of(cls, route: Route, prefix_rewrite: str) -> _Rewrite | None:
        if not prefix_rewrite:
            return None
        path = route.match.path if route.match is not None else None
        # What would end the request line is escaped; all other surprises are Envoy's too.
        text = _ENDS_A_WORD.sub(lambda found: b"%%%02X" % found[0][0], on_the_wire(prefix_rewrite).encode("latin-1"))
        if path is None:
            return cls(text, 1)  # of the route that takes all: `/`
        return cls(text, len(path.text) if path.kind == "prefix" else None)

    def apply(self, head: RequestHead) -> None:
        head.end_hop()
        path, mark, query = head.target.partition(b"?")
        rest = b"" if self.matched is None else path[self.matched :]
        head.change(without(head.lines, _ORIGINAL) + b"x-envoy-original-path: %b\r\n" % head.target)
        head.target = self.text + rest + mark + query


class PreparedOutbound:
    """An outbound with its decisions made ready."""

    __slots__ = ("_decide_arm", "_find", "_only", "_prepared", "_routes")

    def __init__(self, outbound: Outbound, decide_arm: DecideArm) -> None:
        self._routes = outbound.routes
        self._decide_arm = decide_arm
        index = outbound.index or RouteIndex([route.match for route in outbound.routes])
        self._find = index.find
        self._prepared: list[_PreparedRoute | None] = [None] * len(outbound.routes)
        plain = len(outbound.routes) == 1 and outbound.routes[0].match is None
        self._only = _prepare(outbound.routes[0], decide_arm) if plain else None

    def decide(self, head: RequestHead) -> Decision:
        """Return what happens to a request."""
        chosen = self._only or self._match(head)
        if chosen is None:
            return _NO_ROUTE
        arm = chosen.only or pick(chosen.arms, random.random())
        if arm is None:
            return NO_UPSTREAM
        if arm.rewrite is not None:
            arm.rewrite.apply(head)
        return arm.decision

    def _match(self, head: RequestHead) -> _PreparedRoute | None:
        path, _, query = head.target.decode("latin-1").partition("?")
        position = self._find(head.method, path, query, head)
        if position is None:
            return None
        prepared = self._prepared[position]
        if prepared is None:
            prepared = self._prepared[position] = _prepare(self._routes[position], self._decide_arm)
        return prepared


def _prepare(route: Route, decide_arm: DecideArm) -> _PreparedRoute:
    if route.refused:
        return _PreparedRoute((), _Arm(1, _REFUSED, None))
    whole = _Rewrite.of(route, route.prefix_rewrite)
    arms = tuple(
        _Arm(leg.weight, decide_arm(route, leg), _Rewrite.of(route, leg.prefix_rewrite) or whole) for leg in route.legs
    )
    return _PreparedRoute(arms, arms[0] if len(arms) == 1 and arms[0].weight > 0 else None)
