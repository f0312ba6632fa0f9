"""What a pair follows: how many routes, how many callers in its intentions, whether it tries again."""

from __future__ import annotations

from dataclasses import dataclass

DENIED = "/admin"
OTHERS = "caller-"


@dataclass(frozen=True, slots=True)
class Rules:
    """`routes`: by prefix, of which the last one is asked for. `callers`: the last one is the caller that there is."""

    routes: int = 0
    callers: int = 1
    retries: int = 0  # of a 503

    @property
    def prefixes(self) -> list[str]:
        """Return the prefixes of the routes, each with a destination of its own to name."""
        return [tenant(number) for number in range(self.routes)] or (["/"] if self.retries else [])

    @property
    def other_callers(self) -> list[str]:
        """Return callers that may call as well, before the one that does."""
        return [f"{OTHERS}{number:03}" for number in range(self.callers - 1)]


PLAIN = Rules()


def tenant(number: int) -> str:
    """Return a prefix; none is the beginning of another one."""
    return f"/v1/tenants/{number:05}/"
