"""/v1/kv and /v1/session. Source: Consul's HTTP API, "KV Store" and "Sessions"."""

from __future__ import annotations

import asyncio
import base64
import uuid
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from lictor.dev.consul.catalog import NODE
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.web import Read, answer, check_datacenter, go_json, go_syntax_error, read, visible
from policies.durations import parse_duration, parse_nanoseconds
from policies.errors import EntryError

LARGEST_VALUE = 512 * 1024
LOCK_DELAY_NANOSECONDS = 15_000_000_000
SHORTEST_TTL, LONGEST_TTL = 10.0, 86400.0


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    keys, sessions = KeyPages(consul), SessionPages(consul)
    return [
        web.get("/v1/kv/{key:.*}", keys.get, allow_head=False),
        web.put("/v1/kv/{key:.*}", keys.put),
        web.delete("/v1/kv/{key:.*}", keys.delete),
        web.put("/v1/session/create", sessions.create),
        web.put("/v1/session/destroy/{id:.*}", sessions.destroy),
        web.put("/v1/session/renew/{id:.*}", sessions.renew),
        web.get("/v1/session/info/{id:.*}", sessions.info, allow_head=False),
        web.get("/v1/session/node/{name:.*}", sessions.of_node, allow_head=False),
        web.get("/v1/session/list", sessions.every, allow_head=False),
    ]


class KeyPages:
    """Keys and values."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    async def get(self, request: web.Request) -> web.StreamResponse:
        key, query = request.match_info["key"], request.query
        check_datacenter(request, indexed=False)
        many = "recurse" in query or "keys" in query
        if not key and not many:
            raise Refused(400, "Missing key name")
        allowed = request[AUTHORIZER].allows
        if not many:
            request[AUTHORIZER].demand("key", "read", key)

        def look() -> Read:
            rows, topics = self._rows(key, many=many), self._topics(key, many=many)
            rows, _ = visible(rows, lambda row: allowed("key", "read", row["Key"]))
            index = self._consul.state.last(topics, self._consul.state.last((("keys",),)))
            data: Any = rows
            if "keys" in query:
                data = _keys(rows, key, query.get("separator", ""))
            if not rows and key:
                return Read(None, topics, index, status=404)
            return Read(data, topics, index)

        response = await read(request, self._consul.state, look)
        if "raw" in query and not many and key in self._consul.state.tables.keys:
            return self._raw(key, response)
        return response

    def _rows(self, key: str, *, many: bool) -> list[Json]:
        held = self._consul.state.tables.keys
        if not many:
            return [held[key]] if key in held else []
        return [row for name, row in sorted(held.items()) if name.startswith(key)]

    @staticmethod
    def _topics(key: str, *, many: bool) -> tuple[Topic, ...]:
        return (("prefix", key),) if many else (("key", key),)

    def _raw(self, key: str, response: web.StreamResponse) -> web.Response:
        content = base64.b64decode(self._consul.state.tables.keys[key]["Value"] or "")
        headers = {name: value for name, value in response.headers.items() if name.startswith("X-Consul")}
        headers["Content-Security-Policy"] = "sandbox"
        return web.Response(body=content, content_type="text/plain", headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        key, query = request.match_info["key"], request.query
        check_datacenter(request, indexed=False)
        if not key:
            raise Refused(400, "Missing key name")
        request[AUTHORIZER].demand("key", "write", key)
        content = await request.read()
        if len(content) > LARGEST_VALUE:
            said = f"Request body(%d bytes) too large, max size: {LARGEST_VALUE} bytes. See https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size."
            raise Refused(413, said % len(content))
        tables = self._consul.state.tables
        held = tables.keys.get(key)
        seen = _number(query.get("cas"))
        if seen is not None and seen != (held or {}).get("ModifyIndex", 0):
            return answer(False, request)
        session, lock = (held or {}).get("Session"), (held or {}).get("LockIndex", 0)
        if "acquire" in query:
            if not query["acquire"]:
                raise Refused(500, "raft apply failed: missing session")
            if query["acquire"] not in tables.sessions:
                raise Refused(500, f'raft apply failed: invalid session "{query["acquire"]}"')
            if session not in {None, query["acquire"]}:
                return answer(False, request)
            lock += session is None
            session = query["acquire"]
        elif query.get("release"):
            if session != query["release"]:
                return answer(False, request)
            session = None
        self._store(key, content, _number(query.get("flags")) or 0, lock, session)
        return answer(True, request)

    def _store(self, key: str, content: bytes, flags: int, lock: int, session: str | None) -> None:
        state = self._consul.state
        held = state.tables.keys.get(key)
        row: Json = {"LockIndex": lock, "Key": key, "Flags": flags}
        row["Value"] = base64.b64encode(content).decode() if content else None
        if session:
            row["Session"] = session
        if (
            held
            and {name: value for name, value in held.items() if not name.endswith("yIndex") and name != "CreateIndex"}
            == row
        ):
            return
        index = state.touch(*key_topics(key))
        created = held["CreateIndex"] if held else index
        state.tables.keys[key] = {**row, "CreateIndex": created, "ModifyIndex": index}

    async def delete(self, request: web.Request) -> web.Response:
        key, query = request.match_info["key"], request.query
        check_datacenter(request, indexed=False)
        many = "recurse" in query
        if many and "cas" in query:
            raise Refused(400, f"Conflicting flags: {urlencode(sorted(query.items()))}\n")
        if not key and not many:
            raise Refused(400, "Missing key name")
        request[AUTHORIZER].demand("key", "write", key)
        state = self._consul.state
        rows = self._rows(key, many=many)
        seen = _number(query.get("cas"))
        if seen is not None and (not rows or seen != rows[0]["ModifyIndex"]):
            return answer(not rows, request)
        for row in rows:
            del state.tables.keys[row["Key"]]
        if rows:
            state.touch(*dict.fromkeys(topic for row in rows for topic in key_topics(row["Key"])))
        return answer(True, request)


def key_topics(key: str) -> list[Topic]:
    """Return what a key belongs to: itself, all keys, and every prefix that may be listed."""
    return [("key", key), ("keys",), *(("prefix", key[:length]) for length in range(len(key) + 1))]


def _keys(rows: list[Json], prefix: str, separator: str) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        rest = row["Key"][len(prefix) :]
        cut = rest.find(separator) if separator else -1
        names[prefix + rest[: cut + len(separator)] if cut >= 0 else row["Key"]] = None
    return list(names)


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdigit():
        raise Refused(500, f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


class SessionPages:
    """Sessions."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def create(self, request: web.Request) -> web.Response:
        given = await _object(request)
        request[AUTHORIZER].demand("session", "write", given.get("Node") or NODE)
        ttl = str(given.get("TTL") or "")
        seconds = _ttl(ttl)
        self._check_session(given)
        behavior = given.get("Behavior") or "release"
        if behavior not in {"release", "delete"}:
            raise Refused(500, f"Invalid Behavior setting '{behavior}'")
        identifier, state = str(uuid.uuid4()), self._consul.state
        index = state.touch(("sessions",), ("session", identifier))
        state.tables.sessions[identifier] = {
            "ID": identifier,
            "Name": given.get("Name") or "",
            "Node": given.get("Node") or NODE,
            "LockDelay": _lock_delay(given.get("LockDelay")),
            "Behavior": behavior,
            "TTL": ttl,
            "NodeChecks": given.get("NodeChecks") or given.get("Checks") or ["serfHealth"],
            "ServiceChecks": given.get("ServiceChecks"),
            "CreateIndex": index,
            "ModifyIndex": index,
        }
        self._arm(identifier, seconds)
        return answer({"ID": identifier}, request)

    def _check_session(self, given: Json) -> None:
        node, tables = str(given.get("Node") or NODE).lower(), self._consul.state.tables
        if node not in tables.nodes:
            raise Refused(500, "apply failed: Missing node registration")
        for name in (*(given.get("Checks") or ()), *(given.get("NodeChecks") or ())):
            if (node, name) not in tables.checks:
                raise Refused(500, f"apply failed: Missing check '{name}' registration")

    def _arm(self, identifier: str, seconds: float) -> None:
        held = self._timers.pop(identifier, None)
        if held is not None:
            held.cancel()
        if seconds:  # Consul lets a session live for twice its TTL at most
            self._timers[identifier] = asyncio.get_running_loop().call_later(seconds * 2, self._end, identifier)

    def _end(self, identifier: str) -> None:
        state = self._consul.state
        row = state.tables.sessions.pop(identifier, None)
        if row is None:
            return
        topics: list[Topic] = [("sessions",), ("session", identifier)]
        held = [key for key, value in state.tables.keys.items() if value.get("Session") == identifier]
        topics += dict.fromkeys(topic for key in held for topic in key_topics(key))
        index = state.touch(*topics)
        for key in held:
            if row["Behavior"] == "delete":
                del state.tables.keys[key]
            else:
                value = {name: part for name, part in state.tables.keys[key].items() if name != "Session"}
                state.tables.keys[key] = {**value, "ModifyIndex": index}

    async def destroy(self, request: web.Request) -> web.Response:
        identifier = _session_id(request)
        row = self._consul.state.tables.sessions.get(identifier)
        if row is not None:
            request[AUTHORIZER].demand("session", "write", row["Node"])
            self._arm(identifier, 0)
            self._end(identifier)
        return answer(True, request)

    async def renew(self, request: web.Request) -> web.Response:
        identifier = _session_id(request)
        row = self._consul.state.tables.sessions.get(identifier)
        if row is None:
            raise Refused(404, f"Session id '{identifier}' not found")
        request[AUTHORIZER].demand("session", "write", row["Node"])
        self._arm(identifier, _ttl(row["TTL"]))
        return answer([row], request)

    async def info(self, request: web.Request) -> web.StreamResponse:
        identifier = _session_id(request)
        return await self._rows(request, lambda row: row["ID"] == identifier)

    async def of_node(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not name:
            raise Refused(400, "Missing node name")
        return await self._rows(request, lambda row: row["Node"] == name)

    async def every(self, request: web.Request) -> web.StreamResponse:
        return await self._rows(request, lambda _: True)

    async def _rows(self, request: web.Request, wanted: Any) -> web.StreamResponse:
        check_datacenter(request, indexed=True)

        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = [row for row in self._consul.state.tables.sessions.values() if wanted(row)]
            seen, _ = visible(rows, lambda row: allowed("session", "read", row["Node"]))
            topics: tuple[Topic, ...] = (("sessions",),)
            return Read(seen, topics, self._consul.state.last(topics))

        return await read(request, self._consul.state, look)


async def _object(request: web.Request) -> Json:
    import json  # noqa: PLC0415 - an empty body is fine here, unlike anywhere else

    text = (await request.read()).decode("utf-8", "replace")
    if not text.strip():
        return {}
    try:
        given = json.loads(text)
    except ValueError as error:
        raise Refused(400, f"Request decode failed: {go_syntax_error(text, error)}") from error
    return given if isinstance(given, dict) else {}


def _session_id(request: web.Request) -> str:
    identifier = request.match_info["id"]
    if not identifier:
        raise Refused(400, "Missing session")
    return identifier


def _ttl(text: str) -> float:
    if not text:
        return 0.0
    try:
        seconds = parse_nanoseconds(text) / 1e9
    except EntryError as error:
        raise Refused(500, f"Session TTL '{text}' invalid: {error}") from error
    if seconds and not SHORTEST_TTL <= seconds <= LONGEST_TTL:
        nanoseconds = int(seconds * 1e9)
        raise Refused(500, f"Invalid Session TTL '{nanoseconds}', must be between [10s=24h0m0s]")
    return seconds


def _lock_delay(value: Any) -> int:
    if value is None:
        return LOCK_DELAY_NANOSECONDS
    try:
        seconds = parse_nanoseconds(value) / 1e9 if isinstance(value, str) else parse_duration(value, "LockDelay")
    except EntryError as error:
        raise Refused(400, f"Request decode failed: {error}") from error
    return int(seconds * 1e9) if seconds >= 1e-3 or not isinstance(value, int) else int(value) * 1_000_000_000  # noqa: PLR2004


__all__ = ["go_json", "routes"]
