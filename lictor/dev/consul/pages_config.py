"""/v1/config and /v1/discovery-chain: entries, and the chains that are compiled from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lictor.dev.consul.acl import Authorizer
from lictor.dev.consul.catalog import ADDRESSED_KINDS, CHAIN_KINDS
from lictor.dev.consul.filtering import DEFAULTS, filtered
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import DATACENTER, Json, State, Topic
from lictor.dev.consul.web import Read, answer, body, check_datacenter, go_syntax_error, read
from policies.discovery import check_graph, compile_chain
from policies.durations import parse_duration, parse_nanoseconds
from policies.entries import KINDS, DecodeError, Entries, decode_entry, entry_name, normalise_entry
from policies.errors import EntryError

MESH_KINDS = frozenset({"http-route", "tcp-route", "inline-certificate", "file-system-certificate"})  # of no service
GLOBAL_KINDS = {"mesh": "mesh", "proxy-defaults": "global"}
SERVICE_KINDS = frozenset(CHAIN_KINDS)
GATEWAY_MODES = ("", "none", "local", "remote")


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    return [
        web.put("/v1/config", pages.write),
        web.get("/v1/config/{kind}", pages.every, allow_head=False),
        web.get("/v1/config/{kind}/{name:.*}", pages.read, allow_head=False),
        web.delete("/v1/config/{kind}", pages.delete_nothing),
        web.delete("/v1/config/{kind}/{name:.*}", pages.delete),
        web.get("/v1/discovery-chain/{name:.*}", pages.chain, allow_head=False),
        web.post("/v1/discovery-chain/{name:.*}", pages.chain),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    @property
    def _state(self) -> State:
        return self._consul.state

    # --- reads ---

    async def every(self, request: web.Request) -> web.StreamResponse:
        kind = _kind(request)

        def look() -> Read:
            allowed = _reader(request[AUTHORIZER], kind)
            rows = [
                self._told(entry) for entry in self._state.tables.entries.of_kind(kind) if allowed(entry_name(entry))
            ]
            if request.query.get("filter"):
                if kind != "service-defaults":
                    raise Refused(500, f"filtering not supported for config entry kind={kind}")
                rows = filtered(request, rows, DEFAULTS)
            topics: tuple[Topic, ...] = (("kind", kind),)
            return Read(rows, topics, self._index())

        return await read(request, self._state, look)

    async def read(self, request: web.Request) -> web.StreamResponse:
        kind, name = _kind(request), request.match_info["name"]
        if not name:
            return await self.every(request)
        if request.query.get("dc", DATACENTER) not in {"", DATACENTER}:
            raise Refused(500, "No path to datacenter")
        _demand_read(request[AUTHORIZER], kind, name)

        def look() -> Read:
            topics: tuple[Topic, ...] = (("entry", kind, name.lower()),)
            entry = self._state.tables.entries.get(kind, name)
            if entry is None:
                text = f'Config entry not found for "{kind}" / "{name}"'
                return Read(None, topics, self._index(), status=404, text=text)
            return Read(self._told(entry), topics, self._index(), sticky=True)

        return await read(request, self._state, look)

    def _index(self) -> int:
        """Return the index of all entries: whoever reads one is told it, though only his own entry wakes him."""
        return self._state.last((("entries",),))

    def _told(self, entry: Mapping[str, Any]) -> Json:
        created, modified = self._state.tables.entry_indexes[entry["Kind"], entry_name(entry).lower()]
        row = dict(entry)
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).digest()
        return {**row, "Hash": int.from_bytes(digest, "big"), "CreateIndex": created, "ModifyIndex": modified}

    # --- writes ---

    async def write(self, request: web.Request) -> web.Response:
        raw = await _payload(request)
        try:
            given = decode_entry(raw)
        except DecodeError as error:
            raise Refused(400, f"Request decoding failed: {error}") from error
        if given["Kind"] == "bound-api-gateway":
            raise Refused(403, "Permission denied: only writeable by controller")
        try:
            entry = normalise_entry(given)
        except EntryError as error:
            raise Refused(500, str(error)) from error
        kind, name = entry["Kind"], entry_name(entry)
        _demand_write(request[AUTHORIZER], kind, name)
        seen = _cas(request)
        tables = self._state.tables
        held = tables.entries.get(kind, name)
        if held is not None and dict(held) == dict(entry):
            return answer(True, request)
        if seen is not None and seen != tables.entry_indexes.get((kind, name.lower()), (0, 0))[1]:
            return answer(False, request)
        self.apply(tables.entries.put(entry), kind, name)
        return answer(True, request)

    def apply(self, after: Entries, kind: str, name: str) -> None:
        """Take a changed set of entries when the graph of chains allows it. Raise Refused."""
        tables = self._state.tables
        try:
            check_graph(tables.entries, after, kind, name, trust_domain=self._consul.connect.trust_domain)
        except EntryError as error:
            raise Refused(500, str(error)) from error
        before = [str(link["Name"]) for link in (tables.entries.get(kind, name) or {}).get("Services") or ()]
        tables.entries = after
        store_entry(self._state, kind, name)
        if kind == "terminating-gateway":
            self._consul.catalog.relink(name, before)
        if kind in {"proxy-defaults", "service-defaults"}:
            self._consul.agent.merge_again()
        if kind not in ADDRESSED_KINDS:
            return
        if after.get(kind, name) is not None:
            self._consul.catalog.virtual_ip(name)
        else:
            self._consul.catalog.release_virtual_ip(name)

    async def delete_nothing(self, _: web.Request) -> web.Response:
        raise Refused(404, "Must provide both a kind and name to delete")

    async def delete(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        if kind not in KINDS:
            raise Refused(400, f"invalid config entry kind: {kind}")
        _demand_write(request[AUTHORIZER], kind, name)
        tables, seen = self._state.tables, _cas(request)
        held = tables.entries.get(kind, name)
        if held is not None:
            if seen is not None and seen != tables.entry_indexes[kind, name.lower()][1]:
                return answer(False, request)
            self.apply(tables.entries.delete(kind, name), kind, name)
        return answer({} if seen is None else True, request)

    # --- chains ---

    async def chain(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not name:
            raise Refused(400, "Missing chain name")
        check_datacenter(request, indexed=True)
        overrides = _overrides(await _payload(request)) if request.method == "POST" else {}
        request[AUTHORIZER].demand("service", "read", name, indexed=True)

        def look() -> Read:
            heard = _Heard(self._state.tables.entries)
            try:
                chain = compile_chain(
                    heard,
                    name,
                    datacenter=DATACENTER,
                    trust_domain=self._consul.connect.trust_domain,
                    evaluate_in=request.query.get("compile-dc", ""),
                    **overrides,
                )
            except EntryError as error:
                raise Refused(500, str(error), indexed=True) from error
            topics: tuple[Topic, ...] = (*(("entry", kind, name) for kind, name in heard.asked), ("mesh", name.lower()))
            index = self._state.last((("entries",), *topics))
            data = {"Chain": {**chain, **self._virtual(name)}}
            return Read(data, topics, index, consistency=True, cached=True, compared=True)

        return await read(request, self._state, look)

    def _virtual(self, name: str) -> Json:
        address = self._state.tables.virtual_ips.held(name)
        return {"AutoVirtualIPs": [address] if address else None, "ManualVirtualIPs": [] if address else None}


class _Heard(Entries):
    """Entries that remember what was asked of them: that is what a chain depends on."""

    def __init__(self, entries: Entries) -> None:
        super().__init__()
        self._entries = entries
        self.asked: set[tuple[str, str]] = set()

    def get(self, kind: str, name: str) -> Any:
        self.asked.add((kind, name.lower()))
        return self._entries.get(kind, name)

    def of_kind(self, kind: str) -> Any:
        return self._entries.of_kind(kind)


def store_entry(state: State, kind: str, name: str) -> None:
    """Note that an entry was written or deleted, with everything that depends on it."""
    key = (kind, name.lower())
    topics: list[Topic] = [("entry", *key), ("kind", kind), ("entries",)]
    entry = state.tables.entries.get(kind, name)
    if kind in {"ingress-gateway", "terminating-gateway", "service-defaults", "proxy-defaults"}:
        topics.append(("gateways",))
    if kind == "terminating-gateway" and entry is not None:
        topics += [("connect", service["Name"].lower()) for service in entry.get("Services") or ()]
    if kind == "service-intentions":
        topics.append(("intentions", name.lower()))
    index = state.touch(*topics)
    held = state.tables.entry_indexes.get(key)
    if entry is None:
        state.tables.entry_indexes.pop(key, None)
    else:
        state.tables.entry_indexes[key] = (held[0] if held else index, index)


async def _payload(request: web.Request) -> Any:
    text = (await request.read()).decode("utf-8", "replace").lstrip()
    if not text:
        raise Refused(400, "Request decoding failed: EOF")
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except ValueError as error:
        raise Refused(400, f"Request decoding failed: {go_syntax_error(text, error)}") from error


def _kind(request: web.Request) -> str:
    kind = request.match_info["kind"]
    if kind not in KINDS:
        raise Refused(500, f"invalid config entry kind: {kind}")
    return kind


def _cas(request: web.Request) -> int | None:
    text = request.query.get("cas")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise Refused(500, f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _reader(authorizer: Authorizer, kind: str) -> Any:
    if kind in {*GLOBAL_KINDS, "jwt-provider"}:
        return lambda _: True
    resource, named = _resource(kind)
    return lambda name: authorizer.allows(resource, "read", name if named else "")


def _resource(kind: str) -> tuple[str, bool]:
    """Return what a token must be allowed to read, and whether by the entry's name."""
    if kind in MESH_KINDS:
        return "mesh", False
    return ("intention" if kind == "service-intentions" else "service"), True


def _demand_read(authorizer: Authorizer, kind: str, name: str) -> None:
    if not _reader(authorizer, kind)(name):
        resource, named = _resource(kind)
        authorizer.demand(resource, "read", name if named else "")


def _demand_write(authorizer: Authorizer, kind: str, name: str) -> None:
    if kind == "service-intentions":
        authorizer.demand("intention", "write", name)
    elif kind in SERVICE_KINDS:
        authorizer.demand("service", "write", name)
    else:
        authorizer.demand("mesh", "write")


def _overrides(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping | None):
        kind = "array" if isinstance(given, list) else "value"
        said = f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        raise Refused(400, f"Request decoding failed: {said}")
    folded = _folded(given)
    mode = str(_folded(folded.get("overridemeshgateway")).get("mode") or "")
    if mode not in GATEWAY_MODES:
        raise Refused(400, "Invalid OverrideMeshGateway.Mode parameter")
    return {
        "override_protocol": str(folded.get("overrideprotocol") or ""),
        "override_connect_timeout": max(0.0, _timeout(folded.get("overrideconnecttimeout"))),
        "override_mesh_gateway": mode,
    }


def _folded(given: Any) -> Json:
    return {key.replace("_", "").lower(): value for key, value in (given or {}).items()}


def _timeout(value: Any) -> float:
    try:
        return parse_nanoseconds(value) / 1e9 if isinstance(value, str) else parse_duration(value, "")
    except EntryError as error:
        said = f"1 error(s) decoding:\n\n* error decoding 'OverrideConnectTimeout': {error}"
        raise Refused(400, f"Request decoding failed: {said}") from error


__all__ = ["Pages", "body", "routes", "store_entry"]
