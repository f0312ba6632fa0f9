"""What was decided about a request, kept for the next one that is the same, byte for byte.

A client sends the same few heads again and again. What becomes of one depends on its bytes, on where and from whom it
came, and on the generation in force; so for the same of all three the head need not be read, judged and written anew.
A swap forgets everything. Which endpoint takes a request, limits, retries and time are asked for every request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.exchange import Decide, Forward, Reply
    from dataplane.heads import RequestHead

MAX_HEAD = 1024  # bytes of a head that is worth keeping
MAX_PLANS = 256
MAX_ONCE = 1024

# The decider, whether the caller speaks TLS, its address and certificate, the bytes of the head: all that a plan
# depends on until a swap.
Key = tuple["Decide", bool, str, bytes, bytes]


@dataclass(slots=True)
class Plan:
    """What becomes of a request: its head as the decision left it, and the head that goes to the endpoint, if any.

    `memo` is what the decider keeps of the connection. Nothing here is changed any more.
    """

    head: RequestHead
    decision: Forward | Reply
    request: bytes
    memo: object


# What is asked for every request, planned or not, of a listener that does: returns what is done and what goes out.
Each = Callable[["Downstream", Plan], tuple["Forward | Reply", bytes]]


class Plans:
    """The plans of a process. `known` has those of heads that came at least twice."""

    __slots__ = ("_once", "known")

    def __init__(self) -> None:
        self.known: dict[Key, Plan] = {}
        self._once: set[int] = set()  # hashes of keys that came once: of heads that never come again no more is kept

    def keep(self, key: Key, plan: Plan) -> None:
        """Keep a plan if its head is not too long and was here before."""
        if len(key[-1]) > MAX_HEAD:
            return
        hashed = hash(key)
        if hashed not in self._once:
            if len(self._once) >= MAX_ONCE:
                self._once.clear()
            self._once.add(hashed)
            return
        if len(self.known) >= MAX_PLANS:
            self.known.clear()
        self.known[key] = plan

    def forget(self) -> None:
        """Forget every plan: another generation is in force."""
        self.known.clear()
