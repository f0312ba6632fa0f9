"""What Vault signs is asked for again in time: the first as soon as it can be had, then each next one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import structlog

from controlplane.issuer import IssuerStatus, failed, succeeded
from controlplane.issuer.session import VaultSession
from policies.errors import IssuerError
from policies.rotation import pause_before

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
                succeeded(status)
                yield last
                continue
            succeeded(status)
        except IssuerError as error:
            await asyncio.sleep(failed(status, error, last.not_after if last is not None else None))
            continue
        await asyncio.sleep(max(0.05, min(due, session.token_due) - time.monotonic()))


def _renewal_pause(status: IssuerStatus, signed: Signed, what: str) -> float:
    now = datetime.now(UTC)  # its life begins here: Vault dates it back, for clocks that are behind
    pause = pause_before(max(now, signed.not_before), signed.not_after, now, random.random())
    status.issued += 1
    status.next_renewal = time.time() + pause
    log.info(what, issuer=status.kind, serial=signed.serial, ends=signed.not_after.isoformat())
    return pause
