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
        if definition.get("HTTP"):
            late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return "critical", f'{_verb(definition)} "{definition["HTTP"]}": {late}'
        return "critical", f"dial tcp {definition['TCP']}: i/o timeout"


async def _tcp(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        return "critical", _not_connected(address, error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "passing", f"TCP connect {address}: Success"


async def _http(definition: Mapping[str, Any]) -> tuple[str, str]:
    url, method = str(definition["HTTP"]), str(definition.get("Method") or "GET")
    most = int(definition.get("OutputMaxSize") or LONGEST_OUTPUT)
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
            text = await _beginning(answer, most)
    except aiohttp.ClientConnectorError as error:
        return (
            "critical",
            f'{_verb(definition)} "{url}": {_not_connected(f"{error.host}:{error.port}", error.os_error)}',
        )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return "critical", f'{_verb(definition)} "{url}": {error}'
    said = f"HTTP {method} {url}: {answer.status} {answer.reason} Output: {text}"
    if 200 <= answer.status < 300:  # noqa: PLR2004 - the statuses of success
        return "passing", said
    return ("warning" if answer.status == TOO_MANY else "critical"), said


async def _beginning(answer: aiohttp.ClientResponse, most: int) -> str:
    """Return as much of an answer as a check keeps."""
    found = b""
    async for part in answer.content.iter_any():
        found += part
        if len(found) >= most:
            break
    return found[:most].decode("utf-8", "replace")


def _verb(definition: Mapping[str, Any]) -> str:
    return str(definition.get("Method") or "GET").capitalize()


def _not_connected(address: str, error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return f"dial tcp {address}: connect: connection refused"
    return f"dial tcp {address}: connect: {error}"
