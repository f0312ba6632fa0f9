"""Which route and which arm take a request.

An `Outbound` of the table is prepared once: its arms become decisions that serve every request alike. Per request there
is a match of routes and, where a route splits, one draw.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dataplane.exchange import Forward, Reply
from dataplane.heads import RequestHead
from policies.splits import pick
from policies.table import Leg, Outbound, Route

NO_UPSTREAM = Reply(503, "no_healthy_upstream", b"no healthy upstream")
_NO_ROUTE = Reply(404, "no_route")

Decision = Forward | Reply
DecideArm = Callable[[Route, Leg], Decision]


@dataclass(frozen=True, slots=True)
class _Arm:
    weight: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class _PreparedRoute:
    route: Route
    arms: tuple[_Arm, ...]
    only: Decision | None  # the one arm's, so that no draw is made


class PreparedOutbound:
    """An outbound with its decisions made ready."""

    __slots__ = ("_only", "_routes")

    def __init__(self, outbound: Outbound, decide_arm: DecideArm) -> None:
        self._routes = tuple(_prepare(route, decide_arm) for route in outbound.routes)
        plain = len(self._routes) == 1 and self._routes[0].route.match is None
        self._only = self._routes[0] if plain and not self._routes[0].route.prefix_rewrite else None

    def decide(self, head: RequestHead) -> Decision:
        """Return what happens to a request."""
        chosen = self._only or self._match(head)
        if chosen is None:
            return _NO_ROUTE
        if chosen.only is not None:
            return chosen.only
        arm = pick(chosen.arms, random.random())
        return arm.decision if arm is not None else NO_UPSTREAM

    def _match(self, head: RequestHead) -> _PreparedRoute | None:
        path, query = head.path, head.query
        for prepared in self._routes:
            match = prepared.route.match
            if match is None or match.matches(head.method, path, query, head):
                if prepared.route.prefix_rewrite:
                    _rewrite(head, prepared.route)
                return prepared
        return None


def _prepare(route: Route, decide_arm: DecideArm) -> _PreparedRoute:
    arms = tuple(_Arm(leg.weight, decide_arm(route, leg)) for leg in route.legs)
    only = arms[0].decision if len(arms) == 1 and arms[0].weight > 0 else None
    return _PreparedRoute(route, arms, only)


def _rewrite(head: RequestHead, route: Route) -> None:
    """Put PrefixRewrite in the place of what was matched; the query stays."""
    path, mark, query = head.target.partition(b"?")
    matched = route.match.path if route.match is not None else None
    rewrite = route.prefix_rewrite.encode("latin-1", "replace")
    if matched is not None and matched.kind == "exact":
        changed = rewrite
    else:
        changed = rewrite + path[len(matched.source if matched is not None else "/") :]
    head.lines += b"x-envoy-original-path: %b\r\n" % head.target
    head.target = changed + mark + query
