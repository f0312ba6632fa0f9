"""What Vault signs is asked for again in time: the first as soon as it can be had, then each next one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import structlog

from controlplane.issuer import IssuerStatus
from controlplane.issuer.session import VaultSession
from policies.errors import IssuerError
from policies.rotation import pause_before, retry_pause

log = structlog.get_logger(__name__)


class Signed(Protocol):
    """A certificate with its life."""

    @property
    def serial(self) -> str:
        """Return its number, in hexadecimal."""
        ...

    @property
    def not_before(self) -> datetime:
        """Return its beginning."""
        ...

    @property
    def not_after(self) -> datetime:
        """Return its end."""
        ...


_S = TypeVar("_S", bound=Signed)


async def renewed(
    session: VaultSession, status: IssuerStatus, sign: Callable[[], Awaitable[_S]], what: str
) -> AsyncGenerator[_S, None]:
    """Yield what `sign` returns, and the next in its time. IssuerErrors are told in `status` and tried again.

    `what` is the event for logs. The session's token is kept alive meanwhile.
    """
    last: _S | None = None
    due = time.monotonic()
    while True:
        try:
            await session.keep_token()
            if time.monotonic() >= due:
                last = await sign()
                due = time.monotonic() + _renewal_pause(status, last, what)
                _succeeded(status)
                yield last
                continue
            _succeeded(status)
        except IssuerError as error:
            await asyncio.sleep(_failed(status, error, last))
            continue
        await asyncio.sleep(max(0.05, min(due, session.token_due) - time.monotonic()))


def _renewal_pause(status: IssuerStatus, signed: Signed, what: str) -> float:
    now = datetime.now(UTC)  # its life begins here: Vault dates it back, for clocks that are behind
    pause = pause_before(max(now, signed.not_before), signed.not_after, now, random.random())
    status.issued += 1
    status.next_renewal = time.time() + pause
    log.info(what, issuer="vault", serial=signed.serial, ends=signed.not_after.isoformat())
    return pause


def _succeeded(status: IssuerStatus) -> None:
    if status.failing_since is not None:
        log.info("issuer_recovered", issuer="vault", seconds=round(time.time() - status.failing_since, 1))
    status.failing_since = None
    status.failures = 0
    status.error = ""


def _failed(status: IssuerStatus, error: IssuerError, last: Signed | None) -> float:
    """Note a failure, telling it once; return the pause before the next try."""
    status.failures += 1
    said = str(error)
    if status.failing_since is None or (error.terminal and said != status.error):
        log.warning("issuer_failing", issuer="vault", error=said)
    status.failing_since = status.failing_since or time.time()
    status.error = said
    remaining = last.not_after.timestamp() - time.time() if last is not None else 0.0
    return 0.05 + retry_pause(status.failures, remaining, random.random())
