"""What is asked of Consul until it answers, and what is not worth waiting for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from policies.errors import CatalogError, MeshError

log = structlog.get_logger(__name__)

POLITE_SECONDS = 3.0
_T = TypeVar("_T")


async def until_answered(ask: Callable[[], Awaitable[_T]], *, terminal_too: bool) -> _T:
    """Return what `ask` returns, asked again after a CatalogError. The first failure is logged, and none after it.

    `terminal_too`: also after an error that asking again does not mend by itself, as a token that somebody may replace.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, CatalogError) and (terminal_too or not error.terminal)
        ),
        wait=wait_random_exponential(multiplier=0.2, max=5.0),
        before_sleep=_tell_once(),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await ask()
    raise AssertionError  # the loop above returns or raises


def _tell_once() -> Callable[[RetryCallState], None]:
    told = False

    def tell(state: RetryCallState) -> None:
        nonlocal told
        if not told:
            told = True
            error = state.outcome.exception() if state.outcome is not None else None
            hint = {"hint": error.advice} if isinstance(error, CatalogError) and error.advice else {}
            log.warning("consul_not_answering", error=str(error), **hint)

    return tell


async def quietly(work: Awaitable[None]) -> None:
    """Do what is polite but not needed."""
    try:
        await asyncio.wait_for(work, POLITE_SECONDS)
    except (MeshError, TimeoutError) as error:
        log.debug("not_done", error=str(error))
