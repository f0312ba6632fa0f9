"""Faults on command, for tests: what a healthy server does not do, and a mesh has to live through.

By switch (`lictor dev --fault latency=0.5`), by a test's own hands, or over HTTP:

    curl localhost:8500/dev/faults                                       what is on
    curl -X PUT localhost:8500/dev/faults -d '{"status": 500, "only": "/v1/health"}'
    curl -X DELETE localhost:8500/dev/faults                             everything is well again
    curl -X POST localhost:8500/dev/wipe                                 Consul forgets all; `restore` brings it back
    curl -X POST localhost:8500/dev/revoke -d '{"token": "..."}'         a Vault token ends
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from aiohttp import web

from policies.errors import ConfigError, Problem

GARBAGE = "<html>this is no answer"
_TEXTS = {500: "an error on command", 429: "rate limit exceeded, try again later or against a different server"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Faults:
    """What is wrong just now. `only` is the beginning of the paths that suffer; "" is every path.

    latency: seconds before every answer. status: every answer is this error. stall: no answer at all. truncate: the
    connection breaks in the middle of a body. garbage: answers that are no JSON. index_back: taken from every index.
    leaderless: as after the loss of a quorum. sealed: Vault is sealed. slow_signing: seconds before every certificate.
    """

    latency: float = 0.0
    status: int = 0
    stall: bool = False
    truncate: bool = False
    garbage: bool = False
    index_back: int = 0
    leaderless: bool = False
    sealed: bool = False
    slow_signing: float = 0.0
    only: str = ""

    def take(self, given: Mapping[str, Any], where: str = "faults") -> None:
        """Switch on what is given; the rest stays. Raise ConfigError with every mistake; then nothing is changed."""
        problems: list[Problem] = []
        taken: dict[str, Any] = {}
        kinds = {one.name: type(getattr(Faults(), one.name)) for one in fields(Faults)}
        for name, value in given.items():
            if name not in kinds:
                problems.append(Problem(f"{where}: {name}", "is no fault", f"there are {', '.join(kinds)}"))
                continue
            try:
                taken[name] = _parsed(kinds[name], value)
            except ValueError:
                problems.append(Problem(f"{where}: {name}", f"{value!r} is no {kinds[name].__name__}", ""))
        if problems:
            raise ConfigError(tuple(problems))
        for name, value in taken.items():
            setattr(self, name, value)

    def clear(self) -> None:
        """Let everything be well."""
        self.take(asdict(Faults()))

    def concerns(self, path: str) -> bool:
        """Return whether a path suffers."""
        return path.startswith("/v1/") and path.startswith(self.only)


def _parsed(kind: type, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in {"true", "1", "yes"}:
            return True
        if str(value).lower() in {"false", "0", "no"}:
            return False
        raise ValueError
    return kind(value)


def fault_switches(words: list[str]) -> dict[str, str]:
    """Return `name=value` words as a mapping; a bare name is `true`. The values are checked by `Faults.take`."""
    return {name: value if equals else "true" for name, equals, value in (word.partition("=") for word in words)}


def suffering(faults: Faults, apply: Callable[[], None]) -> Any:
    """Return a middleware that plays the faults, and answers /dev/faults. `apply` is called after each change."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/dev/faults":
            return await _page(request, faults, apply)
        if not faults.concerns(request.path):
            return await handler(request)
        if faults.latency:
            await asyncio.sleep(faults.latency)
        while faults.stall and faults.concerns(request.path):  # noqa: ASYNC110 - a flag that tests set directly, too
            await asyncio.sleep(0.05)
        if faults.status:
            text = _TEXTS.get(faults.status, f"status {faults.status} on command")
            return web.Response(status=faults.status, text=text)
        response = await handler(request)
        if faults.garbage:
            return web.Response(text=GARBAGE, content_type="application/json", headers=_index_of(response))
        if faults.truncate:
            return await _truncated(request, response)
        return response

    return middleware


def _index_of(response: web.StreamResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower().startswith("x-consul-index")}


async def _truncated(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    whole = response.body if isinstance(response, web.Response) else b""
    content = whole if isinstance(whole, bytes) else b""
    broken = web.StreamResponse(status=response.status, headers=_index_of(response))
    broken.content_length = max(len(content), 2)
    await broken.prepare(request)
    await broken.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return broken


async def _page(request: web.Request, faults: Faults, apply: Callable[[], None]) -> web.Response:
    if request.method == "DELETE":
        faults.clear()
        apply()
    elif request.method in {"PUT", "POST"}:
        try:
            faults.take(json.loads(await request.read() or b"{}"))
        except (ConfigError, ValueError, AttributeError) as error:
            return web.Response(status=400, text=f"{error}\n")
        apply()
    elif request.method != "GET":
        return web.Response(status=405, text="GET, PUT or DELETE\n")
    return web.json_response(asdict(faults))
