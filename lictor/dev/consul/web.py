"""HTTP as Consul's agent speaks it: JSON as Go writes it, errors as text, blocking queries, headers.

Source: Consul's HTTP API, "Blocking queries" and "Consistency modes"; the texts are those of the real agent.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from aiohttp import web

from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.state import DATACENTER, State, Topic
from policies.durations import parse_duration
from policies.errors import EntryError

DEFAULT_WAIT = 300.0
LONGEST_WAIT = 600.0


@dataclass(frozen=True, slots=True)
class Read:
    """What a read found, what it depends on, and how it is told.

    `filtered`: rows were left out because the token may not see them. `consistency`: the answer names how it was read.
    `compared`: a change without effect on the data
    wakes nobody. `sticky`: a wait that ends without a change tells the index that it began with. `status` 404 with
    `text` is an absence that can be waited on.
    """

    data: Any
    topics: tuple[Topic, ...] = ()
    index: int = 1
    filtered: bool = False
    consistency: bool = False
    cached: bool = False
    streamed: bool = False
    sticky: bool = False
    compared: bool = False
    status: int = 200
    text: str = ""
    blocks: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


def go_json(data: Any, *, pretty: bool = False) -> str:
    """Return JSON as Go's encoder writes it: no spaces, and `<`, `>` and `&` escaped."""
    text = json.dumps(data, indent=4, ensure_ascii=False) if pretty else _compact(data)
    for sign, escape in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028")):
        text = text.replace(sign, escape)
    return text


def _compact(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def answer(data: Any, request: web.Request | None = None, status: int = 200) -> web.Response:
    """Return data as JSON; None is an answer without a body."""
    pretty = request is not None and "pretty" in request.query
    body = "" if data is None else go_json(data, pretty=pretty)
    return web.Response(body=body.encode(), content_type="application/json", status=status)


def refusal(error: Refused) -> web.Response:
    """Return an error as Consul tells it: plain text."""
    response = web.Response(text=error.text, status=error.status, content_type="text/plain", charset="utf-8")
    if error.indexed:
        response.headers.update(
            {
                "X-Consul-Index": "1",
                "X-Consul-Knownleader": "false",
                "X-Consul-Lastcontact": "0",
                "X-Consul-Query-Backend": "blocking-query",
            }
        )
    return response


async def read(request: web.Request, state: State, look: Callable[[], Read]) -> web.Response:
    """Answer a read, at once or when what it depends on has changed (`?index=&wait=`)."""
    seen, seconds = blocking_parameters(request)
    _check_consistency(request)
    found = look()
    if found.blocks and seen and found.index - state.shift <= seen:
        found = await _changed(state, look, found, seconds)
    return _response(request, state, found)


async def _changed(state: State, look: Callable[[], Read], found: Read, seconds: float) -> Read:
    """Return what there is to read once it has changed, or when the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0:
        before = found
        woken = await state.changed(before.topics, left)
        if state.leaderless:
            raise Refused(500, "No cluster leader")
        found = look()
        if not woken:
            return replace(found, index=before.index) if found.sticky else found
        if not found.compared or (found.status, found.data) != (before.status, before.data):
            break
    return found


def _response(request: web.Request, state: State, found: Read) -> web.Response:
    if found.status != 200:  # noqa: PLR2004
        response = web.Response(text=found.text, status=found.status, content_type="text/plain", charset="utf-8")
        if not found.text:
            del response.headers["Content-Type"]
    else:
        text = go_json(found.data, pretty="pretty" in request.query)
        response = web.Response(body=text.encode(), content_type="application/json")
    headers = response.headers
    if found.blocks:
        headers["X-Consul-Index"] = str(max(1, found.index - state.shift))
        headers["X-Consul-Knownleader"] = "false" if found.streamed else "true"
        headers["X-Consul-Lastcontact"] = "0"
        headers["X-Consul-Query-Backend"] = "streaming" if found.streamed else "blocking-query"
    if found.consistency:
        modes = ("consistent", "stale")
        headers["X-Consul-Effective-Consistency"] = next((mode for mode in modes if mode in request.query), "leader")
    if found.cached and "cached" in request.query:
        headers["X-Cache"] = "HIT"
        headers["Age"] = "0"
    if found.filtered:
        headers["X-Consul-Results-Filtered-By-Acls"] = "true"
    headers.update(found.extra)
    return response


def blocking_parameters(request: web.Request) -> tuple[int, float]:
    """Return the index that the caller has seen, and how long he waits. Raise Refused."""
    text = request.query.get("wait", "")
    try:
        wait = parse_duration(text, "wait") if text else 0.0
    except EntryError as error:
        raise Refused(400, "Invalid wait time") from error
    text = request.query.get("index", "")
    if text and (not text.isascii() or not text.isdigit() or int(text) >= 1 << 64):
        raise Refused(400, "Invalid index")
    wait = min(wait, LONGEST_WAIT) if wait > 0 else DEFAULT_WAIT
    return int(text or 0), wait + random.uniform(0, wait / 16)


def check_datacenter(request: web.Request, *, indexed: bool) -> None:
    """Refuse another datacenter than ours. `indexed`: with the headers of a failed read."""
    if request.query.get("dc", DATACENTER) not in {"", DATACENTER}:
        raise Refused(500, "No path to datacenter", indexed=indexed)


def _check_consistency(request: web.Request) -> None:
    query = request.query
    if "stale" in query and "consistent" in query:
        raise Refused(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    if "cached" in query and "consistent" in query:
        raise Refused(400, "Cannot specify ?cached with ?consistent, conflicting semantics.")


async def body(request: web.Request, prefix: str = "Request decode failed: ") -> Any:
    """Return the JSON of a request; what follows the first value is ignored. Raise Refused."""
    raw = (await request.read()).decode("utf-8", "replace").lstrip()
    if not raw:
        raise Refused(400, f"{prefix}EOF")
    try:
        return json.JSONDecoder().raw_decode(raw)[0]
    except ValueError as error:
        raise Refused(400, f"{prefix}{go_syntax_error(raw, error)}") from error


def go_syntax_error(raw: str, error: ValueError) -> str:
    """Return about what Go says of text that is no JSON; these texts change between its releases."""
    position = error.pos if isinstance(error, json.JSONDecodeError) else 0
    if position >= len(raw.rstrip()):
        return "unexpected EOF"
    return f"invalid character {raw[position]!r} looking for beginning of value"


def flag(request: web.Request, name: str) -> bool:
    """Return whether a parameter is there and not `false`. Raise Refused for a value that is no boolean."""
    text = request.query.get(name)
    if text is None:
        return False
    if text in {"", "1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise Refused(400, f"Invalid value for ?{name}")


def hang_up(request: web.Request) -> NoReturn:
    """End the connection without an answer, as the real one does where its handler dies."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def visible(rows: Iterable[Any], allowed: Callable[[Any], bool]) -> tuple[list[Any], bool]:
    """Return the rows that may be seen, and whether some may not."""
    every = list(rows)
    seen = [row for row in every if allowed(row)]
    return seen, len(seen) < len(every)
