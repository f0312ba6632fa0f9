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
    """The plans of a process."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[Key, Plan] = {}

    def keep(self, key: Key, plan: Plan) -> None:
        """Keep a plan, if its head is not too long."""
        if len(key[-1]) > MAX_HEAD:
            return
        if len(self.known) >= MAX_PLANS:  # a client that never says the same twice: what is of use comes again
            self.known.clear()
        self.known[key] = plan

    def forget(self) -> None:
        """Forget everything: another generation is in force."""
        self.known.clear()
