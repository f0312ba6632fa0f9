"""What is done for a request that one write to a warm connection does not settle: dials, other endpoints, retries.

`Downstream` makes an `Attempts` when a connection has to be dialled, when a warm one turned out dead, or when the route
has a retry policy, and lets go of it as soon as an answer is passed on. Three things are tried, from the harmless to
what the user has asked for:

- nothing was sent, since nobody took the connection: another endpoint at once, a few times;
- a warm connection died before it answered: the same on a new one, if the request is idempotent;
- what the retry policy names: after a back-off, on an endpoint that was not tried, within the budget of the target.

What was sent is kept for that, at most 64 KiB of the body (Envoy: 1 MiB): a longer one cannot be sent again.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from dataplane.circuits import Overflow
from dataplane.exchange import Forward, Reply
from dataplane.heads import END, RequestHead, ResponseHead
from dataplane.pool import Pool
from policies.errors import ConnectFailed, ConnectTimedOut
from policies.retries import Failure, back_off

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.upstream import Upstream

log = structlog.get_logger(__name__)

DIALS = 3  # endpoints that are dialled before it counts as a failure
MAX_KEPT = 64 * 1024  # bytes of a body

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "CONNECT"})
_LOST = "upstream connect error or disconnect/reset before headers. "
_NOBODY = Reply(503, "no_healthy_upstream", b"no healthy upstream")
_REASON = re.compile(rb"(?im)^x-lictor-reason:[ \t]*([^\r\n]*)")


class Attempts:
    """The tries for one request of one caller."""

    __slots__ = (
        "_asker",
        "_dialling",
        "_dials_left",
        "_forward",
        "_head",
        "_kept",
        "_loop",
        "_over_budget",
        "_policy",
        "_pool",
        "_retries",
        "_room",
        "_timer",
        "_tried",
        "_upstream",
    )

    def __init__(self, asker: Downstream, forward: Forward, head: RequestHead, pool: Pool, request: bytes) -> None:
        self._asker = asker
        self._forward = forward
        self._head = head
        self._pool = pool
        self._policy = forward.retry
        self._kept: list[bytes] | None = [request]  # None: not any more
        self._room = MAX_KEPT - len(request) + request.find(END) + len(END)  # for the body
        self._upstream: Upstream | None = None
        self._loop = asyncio.get_running_loop()
        self._dialling: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the try, or of the wait for the next one
        self._dials_left = DIALS - 1
        self._tried: set[Pool] = set()
        self._retries = 0
        self._over_budget = False
        if forward.budget is not None:
            forward.budget.asked()

    # --- one try ---

    def start(self) -> None:
        """Ask over a warm connection, or a new one."""
        upstream = self._pool.take()
        if upstream is None:
            self.dial()
        else:
            self._ask(upstream)

    def dial(self) -> None:
        """Ask over a new connection."""
        self._hold_input()
        self._dialling = self._loop.create_task(self._dial())

    async def _dial(self) -> None:
        while True:
            try:
                upstream = await self._pool.dial(self._forward.connect_timeout(self._pool))
            except Overflow:
                self._dialling = None
                self.failed(Failure.OVERFLOW)  # a limit of the target: another endpoint of it is no way out
                return
            except (ConnectFailed, ConnectTimedOut) as error:
                failure = Failure.CONNECT_TIMED_OUT if isinstance(error, ConnectTimedOut) else Failure.REFUSED
                log.debug("connect_failed", endpoint=str(self._pool.route), error=str(error))
            else:
                self._dialling = None
                if self._asker.gone:
                    self._pool.release(upstream)
                else:
                    self._ask(upstream)
                return
            self._tried.add(self._pool)
            # Who has waited for one connection in vain is not made to wait for three.
            again = self._dials_left and failure is Failure.REFUSED
            other = self._forward.another(self._tried) if again else None
            if other is None:
                self._dialling = None
                self.failed(failure)
                return
            self._dials_left -= 1
            self._pool = other

    def _ask(self, upstream: Upstream) -> None:
        kept = self._kept
        assert kept is not None  # noqa: S101 - without it there is no further try
        self._asker.resume_input()
        request = kept[0] if len(kept) == 1 else b"".join(kept)
        if self._policy is None or self._room < 0:
            self._kept = None
        else:
            self._kept = [request]
        self._upstream = upstream
        self._asker.ask(upstream, request)
        if self._asker.request_complete:
            self.completed()

    def keep(self, data: bytes) -> None:
        """Take note of a further piece of the body, which has been sent if there is a connection."""
        kept = self._kept
        if kept is None:
            return
        self._room -= len(data)
        if self._room < 0 and self._upstream is not None:
            self._kept = None
        else:
            kept.append(data)

    def completed(self) -> None:
        """The whole request was sent: the time of this try begins."""
        policy = self._policy
        if policy is not None and policy.try_timeout is not None and self._upstream is not None:
            self._timer = self._loop.call_later(policy.try_timeout, self._took_too_long)

    def _took_too_long(self) -> None:
        self._timer = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.overdue()
        self.failed(Failure.TIMED_OUT)

    # --- what comes of it ---

    def lost(self, upstream: Upstream) -> None:
        """The connection ended before any answer."""
        if upstream.reused and self._kept is not None and self._head.method in IDEMPOTENT:
            self._stop_timer()
            self._upstream = None
            self._pool = self._forward.choose(self._head, self._asker)
            self._pool.counts.retries += 1
            self.dial()
        else:
            self.failed(Failure.ENDED)

    def failed(self, failure: Failure) -> None:
        """There is no answer: once more where the policy says so, else say so."""
        self._stop_timer()
        self._upstream = None
        if self._policy is None or not self._policy.after_failure(failure) or not self._again(failure.value):
            self._asker.answer_here(no_answer(failure, retried=self._retries > 0, over_budget=self._over_budget))

    def refuses(self, head: ResponseHead) -> bool:
        """Return whether an answer is not to be passed on, since the request is tried again."""
        self._stop_timer()
        policy = self._policy
        if policy is None:
            return False
        reason = _REASON.search(head.lines) if head.status == 503 else None  # noqa: PLR2004 - the one that is trusted
        if policy.after_answer(head.status, _Fields(head.lines), reason[1].strip() if reason is not None else b""):
            self._upstream = None
            return self._again(str(head.status))
        if self._retries:
            self._pool.counts.retries_succeeded += 1
        return False

    def cancel(self) -> None:
        """Nobody waits for an answer any more, or it is there."""
        self._stop_timer()
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None

    def _again(self, because: str) -> bool:
        """Prepare a retry; return False where there is none."""
        policy, budget = self._policy, self._forward.budget
        assert policy is not None  # noqa: S101 - who asks has one
        if self._kept is None or self._retries >= policy.count:
            return False
        counts = self._pool.counts
        if budget is not None and not budget.spend(self._loop.time()):
            self._over_budget = True
            counts.retry_budget_exhausted += 1
            log.debug("retry_budget_exhausted", endpoint=str(self._pool.route), because=because)
            return False
        self._retries += 1
        counts.retries += 1
        self._tried.add(self._pool)
        self._hold_input()
        log.debug("request_retried", endpoint=str(self._pool.route), because=because, retry=self._retries)
        self._timer = self._loop.call_later(back_off(self._retries, random.random()), self._try_another)
        return True

    def _try_another(self) -> None:
        self._timer = None
        pool = self._next()
        if pool is None:
            self._asker.answer_here(_NOBODY)
            return
        self._pool = pool
        self.start()

    def _next(self) -> Pool | None:
        """Return who was not tried, else who was not tried last, else anybody; one that is ejected only after all."""
        found: Pool | None = None
        for tried in (self._tried, {self._pool}, set[Pool]()):
            pool = self._forward.another(tried)
            if pool is not None and not pool.ejected:
                self._tried = tried
                return pool
            found = found or pool
        return found

    def _hold_input(self) -> None:
        if not self._asker.request_complete:
            self._asker.pause_input()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def no_answer(failure: Failure, *, retried: bool = False, over_budget: bool = False) -> Reply:
    """Return what the caller is told when no try brought an answer, in Envoy's words."""
    reason = "retry_budget_exhausted" if over_budget else failure.value.replace(" ", "_")
    if failure is Failure.TIMED_OUT:
        return Reply(504, reason, b"upstream request timeout")
    told = "retried and the latest reset reason: " if retried else "reset reason: "
    return Reply(502 if failure is Failure.NOT_HTTP else 503, reason, f"{_LOST}{told}{failure.value}".encode())


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of an answer, read when asked for."""

    lines: bytes

    def get_all(self, name: str) -> Sequence[str]:
        found = re.findall(rb"(?im)^%b:[ \t]*([^\r\n]*)" % re.escape(name.encode()), self.lines)
        return [value.decode("latin-1").strip(" \t") for value in found]
