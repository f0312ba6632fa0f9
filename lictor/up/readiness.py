"""When is somebody ready? Ask until it is so, it has died too often, or time is over; then say what was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp

from lictor.up.child import Child
from policies.errors import MeshError

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
TELL_SECONDS = 5.0  # between two lines about somebody who is not ready yet
DEATHS = 3  # of somebody who was never ready; more would say the same
SUCCESS = range(200, 300)

Probe = Callable[[], Awaitable[str]]  # "" when ready, else what is missing


class NotReady(MeshError):
    """Somebody did not get ready. `code` is the exit code of a command that ended before it was."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


async def until_ready(
    child: Child, probe: Probe, seconds: float = READY_SECONDS, now: Callable[[], float] = time.monotonic
) -> None:
    """Return when the probe finds a living child ready. Raise NotReady that says what was seen, and its last lines."""
    begun = told = now()
    while True:
        missing = await probe() if child.pid else child.ending
        if not missing and child.pid:
            return
        if child.over.is_set():
            raise NotReady(_seen(child, f"{child.ending} before it was ready"), child.code)
        if child.deaths >= DEATHS:
            raise NotReady(_seen(child, f"{child.ending}, {child.deaths} times, and was never ready"))
        if now() - begun > seconds:
            raise NotReady(_seen(child, f"is not ready after {seconds:g} s: {missing or 'it has not started'}"))
        if now() - told > TELL_SECONDS:
            told = now()
            child.console.progress(f"{child.name} is not ready yet: {missing or 'it has not started'}")
        await asyncio.sleep(POLL_SECONDS)


def _seen(child: Child, what: str) -> str:
    lines = "".join(f"\n    {line}" for line in child.said)
    return f"{child.name} {what}" + (f"; its last lines:{lines}" if lines else "; it has said nothing")


async def http_probe(session: aiohttp.ClientSession, url: str) -> str:
    """Return "" for a 2xx, else what came instead."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            return "" if answer.status in SUCCESS else f"{url} answers {answer.status}"
    except TimeoutError:
        return f"{url} does not answer in time"
    except (aiohttp.ClientError, OSError) as error:
        refused = isinstance(getattr(error, "os_error", error), ConnectionRefusedError)
        return f"{url}: {'nobody listens' if refused else error}"


async def port_probe(port: int) -> str:
    """Return "" when somebody listens on a loopback port, else what came instead."""
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except TimeoutError:
        return f"port {port} does not answer in time"
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        return f"port {port}: {'nobody listens ($PORT says where to)' if refused else error}"
    writer.close()
    return ""
