"""/v1/connect and /v1/agent/connect: CA, leaves, authorize, intentions."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from lictor.dev.consul import intentions
from lictor.dev.consul.connect import DEFAULT_CONFIG, BuiltIn, leaf_life
from lictor.dev.consul.definitions import decode
from lictor.dev.consul.filtering import INTENTION, filtered
from lictor.dev.consul.intentions import KIND, parse_name
from lictor.dev.consul.pages_config import Pages as ConfigPages
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.vault_ca import VaultCa, VaultCaFailed
from lictor.dev.consul.web import Read, Refused, answer, blocking_parameters, body, read
from policies.entries import normalise_entry
from policies.errors import EntryError, IdentityError
from policies.identity import SpiffeId
from policies.intentions import Action

LEAF_WAIT = 600.0
SHORTEST_LEAF = 3600.0
_AUTHORIZE = dict.fromkeys(("Target", "ClientCertURI", "ClientCertSerial", "Namespace", "Partition"), "string")
_INTENTION = {
    **dict.fromkeys(("ID", "Description", "SourceNS", "SourceName", "SourcePartition", "SourcePeer"), "string"),
    **dict.fromkeys(("SourceSamenessGroup", "DestinationNS", "DestinationPartition", "DestinationName"), "string"),
    **dict.fromkeys(("SourceType", "Action"), "string"),
    **dict.fromkeys(("Permissions", "DefaultAddr", "DefaultPort", "Meta", "Precedence", "JWT"), "any"),
    **dict.fromkeys(("CreatedAt", "UpdatedAt", "Hash", "CreateIndex", "ModifyIndex"), "any"),
}
_LEGACY = (
    "cannot use legacy intention API to edit intentions with a destination of"
    ' "{}" after editing them via a service-intentions config entry'
)


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    ca, rules = CaPages(consul), IntentionPages(consul)
    return [
        web.get("/v1/connect/ca/roots", ca.roots, allow_head=False),
        web.get("/v1/agent/connect/ca/roots", ca.roots, allow_head=False),
        web.get("/v1/agent/connect/ca/leaf/{name:.*}", ca.leaf, allow_head=False),
        web.get("/v1/connect/ca/configuration", ca.configuration, allow_head=False),
        web.put("/v1/connect/ca/configuration", ca.configure),
        web.post("/v1/agent/connect/authorize", rules.authorize),
        web.get("/v1/connect/intentions", rules.every, allow_head=False),
        web.post("/v1/connect/intentions", rules.create),
        web.get("/v1/connect/intentions/match", rules.match, allow_head=False),
        web.get("/v1/connect/intentions/check", rules.check, allow_head=False),
        web.get("/v1/connect/intentions/exact", rules.exact, allow_head=False),
        web.put("/v1/connect/intentions/exact", rules.put),
        web.delete("/v1/connect/intentions/exact", rules.delete),
        web.get("/v1/connect/intentions/{id}", rules.by_id, allow_head=False),
        web.delete("/v1/connect/intentions/{id}", rules.delete_by_id),
    ]


class CaPages:
    """Roots, leaves and the CA's configuration."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    async def roots(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            topics: tuple[Topic, ...] = (("roots",),)
            of_agent = {"X-Cache": "HIT", "Age": "0"} if request.path.startswith("/v1/agent/") else {}
            return Read(self._consul.connect.roots(), topics, self._consul.state.last(topics), extra=of_agent)

        if "pem" in request.query:
            rows = self._consul.connect.roots()["Roots"]
            text = "".join(row["RootCert"] for row in rows)
            return web.Response(text=text, content_type="application/pem-certificate-chain")
        return await read(request, self._consul.state, look)

    async def leaf(self, request: web.Request) -> web.StreamResponse:
        """Return a leaf; with `?index=` wait for the next one."""
        name = request.match_info["name"]
        if not name:
            raise Refused(500, "URI must be either service, agent, server, or kind")
        if "/" in name:
            raise Refused(500, f"SPIFFE ID is not in the expected format: {self._consul.connect.uri(name)}")
        request[AUTHORIZER].demand("service", "write", name)
        seen, seconds = blocking_parameters(request)
        seconds = seconds if request.query.get("wait") else LEAF_WAIT
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        row = await self._leaf(name)
        while seen and row["ModifyIndex"] <= seen and loop.time() < deadline:
            due = self._consul.connect.leaves[name].renew.timestamp() - datetime.now(UTC).timestamp()
            left = min(deadline - loop.time(), max(0.05, due))
            await self._consul.state.changed([("leaf", name), ("leaves",)], left)
            row = await self._leaf(name)
        response = answer(row, request)
        response.headers["X-Consul-Index"] = str(row["ModifyIndex"])
        response.headers["X-Cache"] = "HIT"
        return response

    async def _leaf(self, name: str) -> Json:
        try:
            return await self._consul.connect.leaf(name)
        except VaultCaFailed as error:
            raise Refused(500, str(error)) from error

    async def configuration(self, request: web.Request) -> web.Response:
        request[AUTHORIZER].demand("operator", "write")  # a read would show the provider's settings
        provider, indexes = self._consul.connect.provider, self._consul.connect.config_indexes
        shown = {**provider.config, "Token": "hidden"} if "Token" in provider.config else provider.config
        page = {"Provider": provider.name, "Config": shown, "State": None, "ForceWithoutCrossSigning": False}
        return answer({**page, "CreateIndex": indexes[0], "ModifyIndex": indexes[1]}, request)

    async def configure(self, request: web.Request) -> web.Response:
        request[AUTHORIZER].demand("operator", "write")
        given = await body(request)
        config = dict(given.get("Config") or {})
        provider = given.get("Provider") or self._consul.connect.provider.name
        connect = self._consul.connect
        if provider == "vault":
            try:
                connect.use(await VaultCa.prepare(connect, config))
            except VaultCaFailed as error:
                raise Refused(500, f"error configuring provider: {error}") from error
        elif provider == "consul":
            if leaf_life(config or DEFAULT_CONFIG).total_seconds() < SHORTEST_LEAF:
                text = "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s"
                raise Refused(500, text)
            kept = connect.provider.kept() if isinstance(connect.provider, BuiltIn) else None
            connect.use(BuiltIn(connect, kept, config))
        else:
            raise Refused(500, f'could not initialize provider: unknown CA provider "{provider}"')
        return answer(None)


class IntentionPages:
    """Intentions in both APIs, and authorize."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._config = ConfigPages(consul)

    async def authorize(self, request: web.Request) -> web.Response:
        given = decode(await body(request), _AUTHORIZE, snake=False)
        target, uri = given.get("Target") or "", given.get("ClientCertURI") or ""
        if not target:
            raise Refused(400, "Target service must be specified")
        source = _source_of(uri)
        request[AUTHORIZER].demand("service", "write", target)
        default = Action.ALLOW if self._consul.default_allow else Action.DENY
        state = self._consul.state
        decision = intentions.decide(state, source, target, default)
        rows = intentions.matching(state, "destination", target)
        row = next((row for row in rows if row["SourceName"] in {source, "*"} and not row.get("SourcePeer")), None)
        page = {"Authorized": decision.allowed, "Reason": self._reason(row)}
        response = answer(page, request)
        response.headers["X-Cache"] = "HIT"
        return response

    def _reason(self, row: Mapping[str, Any] | None) -> str:
        if row is None:
            policy = self._consul.settings.default_intention_policy
            return "Default intention policy" if policy else "Default behavior configured by ACLs"
        what = f"default/{row['SourceName']} => default/{row['DestinationName']} (Precedence: {row['Precedence']}"
        if row.get("Permissions"):
            return f"Matched L7 intention: {what}, Permissions: {len(row['Permissions'])})"
        return f"Matched L4 intention: {what}, Action: {row['Action'].upper()})"

    async def every(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = [
                row
                for row in intentions.every(self._consul.state)
                if allowed("intention", "read", row["DestinationName"])
            ]
            topics: tuple[Topic, ...] = (("entries",),)
            return Read(filtered(request, rows, INTENTION), topics, self._consul.state.last(topics))

        return await read(request, self._consul.state, look)

    async def match(self, request: web.Request) -> web.StreamResponse:
        by = request.query.get("by")
        if by is None:
            raise Refused(500, "required query parameter 'by' not set")
        if by not in {"source", "destination"}:
            raise Refused(500, "'by' parameter must be one of 'source' or 'destination'")
        names = request.query.getall("name", [])
        if not names:
            raise Refused(500, "required query parameter 'name' not set")
        parsed = {name: parse_name(name, "match entry", indexed=True) for name in names}
        for name in parsed.values():
            request[AUTHORIZER].demand("intention", "read", name, bare=False, indexed=True)

        def look() -> Read:
            state = self._consul.state
            data = {name: intentions.matching(state, by, bare) or None for name, bare in parsed.items()}
            topics: tuple[Topic, ...] = (
                ("intentions", "*"),
                *(("intentions", bare.lower()) for bare in parsed.values()),
            )
            if by == "source":
                topics = (("kind", KIND),)
            return Read(data, topics, state.last(topics), consistency=True, cached=True)

        return await read(request, self._consul.state, look)

    async def check(self, request: web.Request) -> web.Response:
        source, destination = (_one(request, name) for name in ("source", "destination"))
        if request.query.get("source-type", "consul") != "consul":
            raise Refused(500, "'source-type' parameter must be one of 'consul'")
        source, destination = parse_name(source, "source"), parse_name(destination, "destination")
        request[AUTHORIZER].demand("service", "read", destination)
        settings = self._consul.settings
        allow = not settings.acl or settings.default_policy != "deny"
        default = Action.ALLOW if allow else Action.DENY
        decision = intentions.decide(self._consul.state, source, destination, default)
        return answer({"Allowed": decision.allowed}, request)

    async def exact(self, request: web.Request) -> web.Response:
        source, destination = _one(request, "source"), parse_name(_one(request, "destination"), "destination")
        source = source if source.startswith("peer:") else parse_name(source, "source", strict=False)
        request[AUTHORIZER].demand("intention", "read", destination, bare=True)
        row = intentions.exact(self._consul.state, source, destination)
        if row is None:
            raise Refused(404, "Intention not found")
        return answer(row, request)

    async def put(self, request: web.Request) -> web.Response:
        source, destination = self._names(request)
        raw = await body(request)
        if raw is None:  # the real one's handler dies of it: the connection closes without an answer
            _hang_up(request)
        given = decode(raw, _INTENTION, snake=False)
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        if given.get("Meta"):
            raise Refused(500, "Meta must not be specified, or should be unchanged during an update.")
        if given.get("SourcePeer"):
            raise Refused(500, "SourcePeer field is not supported on this endpoint. Use config entries instead")
        fields = {name: given[name] for name in ("Action", "Permissions", "Description", "JWT") if given.get(name)}
        self._upsert(destination, {"Name": source, "Type": given.get("SourceType") or "consul", **fields})
        return answer(True, request)

    def _upsert(self, destination: str, source: Json) -> None:
        held = self._consul.state.tables.entries.get(KIND, destination)
        others = [
            dict(row) for row in (held or {}).get("Sources") or () if row["Name"] != source["Name"] or row.get("Peer")
        ]
        others = [{key: value for key, value in row.items() if not key.startswith("Legacy")} for row in others]
        before = [
            row for row in (held or {}).get("Sources") or () if row["Name"] == source["Name"] and not row.get("Peer")
        ]
        at = list((held or {}).get("Sources") or ()).index(before[0]) if before else len(others)
        others.insert(at, source)
        self._write(destination, {**(held or {"Kind": KIND, "Name": destination}), "Sources": others})

    def _write(self, destination: str, entry: Json) -> None:
        tables = self._consul.state.tables
        try:
            normal = normalise_entry(entry)
        except EntryError as error:
            raise Refused(500, str(error)) from error
        held = tables.entries.get(KIND, destination)
        if held is None or dict(held) != dict(normal):
            self._config.apply(tables.entries.put(normal), KIND, destination)

    async def delete(self, request: web.Request) -> web.Response:
        source, destination = self._names(request)
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        held = self._consul.state.tables.entries.get(KIND, destination)
        rows = list((held or {}).get("Sources") or ())
        left = [dict(row) for row in rows if row["Name"] != source or row.get("Peer")]
        if held is not None and len(left) < len(rows):
            if left:
                self._write(destination, {**held, "Sources": left})
            else:
                self._config.apply(self._consul.state.tables.entries.delete(KIND, destination), KIND, destination)
        return answer(True, request)

    @staticmethod
    def _names(request: web.Request) -> tuple[str, str]:
        source, destination = _one(request, "source"), _one(request, "destination")
        for text, which in ((source, "source"), (destination, "destination")):
            if text.startswith("peer:"):
                raise Refused(500, f'{which} "{text}" is invalid: cannot specify a peer here')
        return parse_name(source, "source", strict=False), parse_name(destination, "destination", strict=False)

    # --- the legacy API ---

    async def create(self, request: web.Request) -> web.Response:
        try:
            given = decode(await body(request, "Failed to decode request body: "), _INTENTION, snake=False)
        except Refused as error:
            said = error.text.replace("Request decode failed", "Failed to decode request body")
            raise Refused(500, said) from error
        if given is None:
            _hang_up(request)
        destination, source = given.get("DestinationName") or "", given.get("SourceName") or ""
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        if not destination:
            raise Refused(403, "Permission denied")
        if given.get("Permissions") is not None:
            raise Refused(500, "Permissions field is only supported for config entries")
        if given.get("Action") not in {"allow", "deny"}:
            raise Refused(500, "1 error occurred:\n\t* Action must be set to 'allow' or 'deny'\n\n")
        held = self._consul.state.tables.entries.get(KIND, destination)
        rows = [dict(row) for row in (held or {}).get("Sources") or ()]
        if any(row["Name"] == source for row in rows):
            raise Refused(500, f'Sources[{len(rows)}] defines "{source}" more than once')
        if rows and not all(row.get("LegacyID") for row in rows):
            raise Refused(500, _LEGACY.format(destination))
        identifier, now = str(uuid.uuid4()), datetime.now(UTC).isoformat().replace("+00:00", "Z")
        row = {"Name": source, "Type": "consul", "Action": given["Action"], "LegacyID": identifier}
        row |= {"LegacyCreateTime": now, "LegacyUpdateTime": now}
        if given.get("Description"):
            row["Description"] = given["Description"]
        if given.get("Meta"):
            row["LegacyMeta"] = given["Meta"]
        self._write_legacy(destination, [*rows, row])
        return answer({"ID": identifier}, request)

    def _write_legacy(self, destination: str, sources: list[Json]) -> None:
        """Write rows with their legacy fields, which the operator himself may not set."""
        legacy = {
            row["Name"]: {key: value for key, value in row.items() if key.startswith("Legacy")} for row in sources
        }
        plain = [{key: value for key, value in row.items() if not key.startswith("Legacy")} for row in sources]
        try:
            normal = normalise_entry({"Kind": KIND, "Name": destination, "Sources": plain})
        except EntryError as error:
            raise Refused(500, f"1 error occurred:\n\t* {error}\n\n") from error
        normal = {**normal, "Sources": [{**row, **legacy[row["Name"]]} for row in normal["Sources"]]}
        self._config.apply(self._consul.state.tables.entries.put(normal), KIND, destination)

    def _by_id(self, request: web.Request) -> Json | None:
        identifier = request.match_info["id"]
        with contextlib.suppress(ValueError):
            uuid.UUID(identifier)
            return next((row for row in intentions.every(self._consul.state) if row.get("ID") == identifier), None)
        raise Refused(400, f"failed intention lookup: {identifier!r} is no UUID of 36 characters")

    async def by_id(self, request: web.Request) -> web.Response:
        row = self._by_id(request)
        if row is None:
            raise Refused(404, "Intention not found")
        request[AUTHORIZER].demand("intention", "read", row["DestinationName"], bare=True)
        return answer(row, request)

    async def delete_by_id(self, request: web.Request) -> web.Response:
        row = self._by_id(request)
        if row is None:
            raise Refused(500, f"Cannot delete non-existent intention: '{request.match_info['id']}'")
        destination = row["DestinationName"]
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        held = self._consul.state.tables.entries.get(KIND, destination) or {}
        left = [dict(one) for one in held.get("Sources") or () if one.get("LegacyID") != row["ID"]]
        if left:
            self._write_legacy(destination, left)
        else:
            self._config.apply(self._consul.state.tables.entries.delete(KIND, destination), KIND, destination)
        return answer(True, request)


def _source_of(uri: str) -> str:
    """Return the service that a client certificate's URI names. Trust domain and datacenter are not looked at."""
    try:
        return SpiffeId.parse(unquote(uri)).service
    except IdentityError as error:
        other = any(part in uri for part in ("/agent/", "/gateway/mesh/"))
        kind = "Service" if uri.startswith("spiffe://") and other else "Connect"
        raise Refused(400, f"ClientCertURI not a valid {kind} identifier") from error


def _one(request: web.Request, name: str) -> str:
    values = request.query.getall(name, [])
    if len(values) != 1:
        raise Refused(500, f"required query parameter '{name}' not set")
    return values[0]


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


__all__ = ["CaPages", "IntentionPages", "routes"]
