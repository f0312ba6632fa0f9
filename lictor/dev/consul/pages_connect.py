"""/v1/connect and /v1/agent/connect: CA, leaves, authorize, intentions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from lictor.dev.consul import intentions
from lictor.dev.consul.ca_config import KeySettings, check_times, check_vault
from lictor.dev.consul.callers import caller_of
from lictor.dev.consul.connect import BuiltIn
from lictor.dev.consul.decoding import decode
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.vault_ca import VaultCa, VaultCaFailed
from lictor.dev.consul.web import Read, answer, blocking_parameters, body, read
from policies.intentions import Action

LEAF_WAIT = 600.0
_AUTHORIZE = dict.fromkeys(("Target", "ClientCertURI", "ClientCertSerial"), "string")
_CONFIGURATION = {
    **dict.fromkeys(("ClusterID", "Provider"), "string"),
    **dict.fromkeys(("Config", "State", "CreateIndex", "ModifyIndex"), "any"),
    "ForceWithoutCrossSigning": "bool",
}


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    ca, rules = CaPages(consul), AuthorizePages(consul)
    return [
        web.get("/v1/connect/ca/roots", ca.roots, allow_head=False),
        web.get("/v1/agent/connect/ca/roots", ca.roots, allow_head=False),
        web.get("/v1/agent/connect/ca/leaf/{name:.*}", ca.leaf, allow_head=False),
        web.get("/v1/connect/ca/configuration", ca.configuration, allow_head=False),
        web.put("/v1/connect/ca/configuration", ca.configure),
        web.post("/v1/agent/connect/authorize", rules.authorize),
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
            return web.Response(body=text.encode(), content_type="application/pem-certificate-chain")
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
        given = decode(await body(request), _CONFIGURATION) or {}
        config, provider = dict(given.get("Config") or {}), given.get("Provider") or ""
        connect = self._consul.connect
        if provider == "vault":
            check_vault(config)
            try:
                connect.use(await VaultCa.prepare(connect, config))
            except VaultCaFailed as error:
                raise Refused(500, f"error configuring provider: {error}") from error
        elif provider == "consul":
            check_times(config)
            held, wanted = connect.provider, KeySettings.of(config)
            same = isinstance(held, BuiltIn) and KeySettings.of(held.config) == wanted
            connect.use(BuiltIn(connect, held.kept() if same else None, config))
        else:
            raise Refused(500, f'could not initialize provider: unknown CA provider "{provider}"')
        return answer(None)


class AuthorizePages:
    """What an agent's own proxy asks: whether a caller may come in."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul

    async def authorize(self, request: web.Request) -> web.Response:
        given = decode(await body(request), _AUTHORIZE) or {}
        target, uri = given.get("Target") or "", given.get("ClientCertURI") or ""
        if not target:
            raise Refused(400, "Target service must be specified")
        source = caller_of(uri)
        request[AUTHORIZER].demand("service", "write", target)
        default = Action.ALLOW if self._consul.default_allow else Action.DENY
        state = self._consul.state
        rows = intentions.matching(state, "destination", target) if source else []
        allowed = intentions.decide(state, source, target, default).allowed if source else default is Action.ALLOW
        row = next((row for row in rows if row["SourceName"] in {source, "*"} and not row.get("SourcePeer")), None)
        page = {"Authorized": allowed, "Reason": self._reason(row)}
        response = answer(page, request)
        response.headers["X-Cache"] = "HIT"
        return response

    def _reason(self, row: Mapping[str, Any] | None) -> str:
        if row is None:
            policy = self._consul.settings.default_intention_policy
            return "Default intention policy" if policy else "Default behavior configured by ACLs"
        identifier = f"ID: {row['ID']}, " if row.get("ID") else ""
        names = f"default/{row['SourceName']} => default/{row['DestinationName']}"
        what = f"{names} ({identifier}Precedence: {row['Precedence']}"
        if row.get("Permissions"):
            return f"Matched L7 intention: {what}, Permissions: {len(row['Permissions'])})"
        return f"Matched L4 intention: {what}, Action: {row['Action'].upper()})"


__all__ = ["AuthorizePages", "CaPages", "routes"]
