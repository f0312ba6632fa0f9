"""Checks that look: tcp and HTTP. An answer is a status and what was seen.

Source: Consul's documentation of health checks: 2xx passes, 429 warns, everything else is critical.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp

DEFAULT_TIMEOUT = 10.0
LONGEST_OUTPUT = 4096
TOO_MANY = 429


async def probe(definition: Mapping[str, Any]) -> tuple[str, str]:
    """Return the status and the output of a check that was run now."""
    seconds = float(definition.get("Timeout") or DEFAULT_TIMEOUT)
    try:
        async with asyncio.timeout(seconds):
            return await (_http(definition) if definition.get("HTTP") else _tcp(str(definition["TCP"])))
    except TimeoutError:
        return "critical", f"no answer within {seconds:g} s"


async def _tcp(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        refused = isinstance(error, ConnectionRefusedError)
        return "critical", f"dial tcp {address}: connect: {'connection refused' if refused else error}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "passing", f"TCP connect {address}: Success"


async def _http(definition: Mapping[str, Any]) -> tuple[str, str]:
    url, method = str(definition["HTTP"]), str(definition.get("Method") or "GET")
    headers = [(name, value) for name, values in (definition.get("Header") or {}).items() for value in values or ()]
    try:
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.request(
                method,
                url,
                headers=headers,
                data=definition.get("Body") or None,
                ssl=not definition.get("TLSSkipVerify"),
                allow_redirects=not definition.get("DisableRedirects"),
            ) as answer,
        ):
            text = (await answer.content.read(LONGEST_OUTPUT)).decode("utf-8", "replace")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return "critical", f'{method.capitalize()} "{url}": {error}'
    said = f"HTTP {method} {url}: {answer.status} {answer.reason} Output: {text}"
    if 200 <= answer.status < 300:  # noqa: PLR2004 - the statuses of success
        return "passing", said
    return ("warning" if answer.status == TOO_MANY else "critical"), said
