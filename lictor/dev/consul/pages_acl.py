"""/v1/acl: bootstrap, policies and tokens, as far as consul/bootstrap.sh and the mesh need them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from lictor.dev.consul.acl import ANONYMOUS_ID, MANAGEMENT_ID
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul, token_of
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.web import Read, answer, body, read

LENGTH_OF_UUID = 36


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    return [
        web.put("/v1/acl/bootstrap", pages.bootstrap),
        web.get("/v1/acl/policies", pages.policies, allow_head=False),
        web.put("/v1/acl/policy", pages.create_policy),
        web.get("/v1/acl/policy/name/{name:.*}", pages.policy_by_name, allow_head=False),
        web.get("/v1/acl/policy/{id}", pages.policy, allow_head=False),
        web.put("/v1/acl/policy/{id}", pages.update_policy),
        web.delete("/v1/acl/policy/{id}", pages.delete_policy),
        web.get("/v1/acl/tokens", pages.tokens, allow_head=False),
        web.put("/v1/acl/token", pages.create_token),
        web.get("/v1/acl/token/self", pages.own, allow_head=False),
        web.get("/v1/acl/token/{id}", pages.token, allow_head=False),
        web.put("/v1/acl/token/{id}", pages.update_token),
        web.delete("/v1/acl/token/{id}", pages.delete_token),
        web.get("/v1/acl/roles", pages.nothing, allow_head=False),
        web.get("/v1/acl/auth-methods", pages.nothing, allow_head=False),
        web.get("/v1/acl/binding-rules", pages.nothing, allow_head=False),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._acl = consul.acl

    def _enabled(self) -> None:
        if not self._acl.enabled:
            raise Refused(401, "ACL support disabled")

    def _demand(self, request: web.Request, access: str) -> None:
        self._enabled()
        request[AUTHORIZER].demand("acl", access, indexed=request.method == "GET")

    async def bootstrap(self, request: web.Request) -> web.Response:
        self._enabled()
        if self._acl.bootstrap_index:
            index = self._acl.bootstrap_index
            raise Refused(403, f"Permission denied: ACL bootstrap no longer allowed (reset index: {index})")
        index = self._consul.state.touch(("acl",))
        return answer(
            self._acl.add_management(str(uuid.uuid4()), index, "Bootstrap Token (Global Management)"), request
        )

    async def _list(self, request: web.Request, rows: Callable[[], list[Json]]) -> web.StreamResponse:
        self._demand(request, "read")

        def look() -> Read:
            topics: tuple[Topic, ...] = (("acl",),)
            return Read(rows(), topics, self._consul.state.last(topics))

        return await read(request, self._consul.state, look)

    async def nothing(self, request: web.Request) -> web.StreamResponse:
        return await self._list(request, list)

    # --- policies ---

    async def policies(self, request: web.Request) -> web.StreamResponse:
        def rows() -> list[Json]:
            held = sorted(self._acl.policies.values(), key=lambda row: row["Name"])
            return [{**{key: row[key] for key in row if key != "Rules"}, "Datacenters": None} for row in held]

        return await self._list(request, rows)

    async def policy_by_name(self, request: web.Request) -> web.StreamResponse:
        row = self._acl.policy_by_name(request.match_info["name"])
        return await self._policy(request, row)

    async def policy(self, request: web.Request) -> web.StreamResponse:
        self._demand(request, "read")
        _check_uuid(request, "policy")
        return await self._policy(request, self._acl.policies.get(request.match_info["id"]))

    async def _policy(self, request: web.Request, row: Json | None) -> web.StreamResponse:
        self._demand(request, "read")
        if row is None:
            raise Refused(404, "Requested policy does not exist: ACL not found")
        return await read(request, self._consul.state, lambda: Read(row, (("acl",),), row["ModifyIndex"]))

    async def create_policy(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        given = await body(request, "Policy decoding failed: ")
        return answer(self._acl.write_policy(given, self._consul.state.touch(("acl",))), request)

    async def update_policy(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        given, identifier = await body(request, "Policy decoding failed: "), request.match_info["id"]
        held = self._acl.policies.get(identifier)
        if held is None:
            raise Refused(404, f"Invalid Policy: no policy with ID {identifier}")
        given = {**given, "Name": given.get("Name") or held["Name"]}
        return answer(self._acl.write_policy(given, self._consul.state.touch(("acl",)), identifier), request)

    async def delete_policy(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        identifier = request.match_info["id"]
        if identifier == MANAGEMENT_ID:
            raise Refused(500, "Delete operation not permitted on the builtin global-management policy")
        self._acl.delete_policy(identifier)
        self._consul.state.touch(("acl",))
        return answer(True, request)

    # --- tokens ---

    async def tokens(self, request: web.Request) -> web.StreamResponse:
        see_secrets = request[AUTHORIZER].allows("acl", "write")

        def rows() -> list[Json]:
            held = list(self._acl.tokens.values())
            return held if see_secrets else [{**row, "SecretID": "<hidden>"} for row in held]

        return await self._list(request, rows)

    async def own(self, request: web.Request) -> web.StreamResponse:
        self._enabled()
        row = self._acl.tokens.get(token_of(request))
        if row is None:
            raise Refused(403, "token does not exist: ACL not found", indexed=True)
        return await read(request, self._consul.state, lambda: Read(row, (("acl",),), row["ModifyIndex"]))

    async def token(self, request: web.Request) -> web.StreamResponse:
        self._demand(request, "read")
        _check_uuid(request, "token")
        row = self._acl.by_accessor(request.match_info["id"])
        if row is None:
            raise Refused(403, "token does not exist: ACL not found", indexed=True)
        return await read(request, self._consul.state, lambda: Read(row, (("acl",),), row["ModifyIndex"]))

    async def create_token(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        given = await body(request, "Token decoding failed: ")
        return answer(self._acl.write_token(given, self._consul.state.touch(("acl",))), request)

    async def update_token(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        given, held = await body(request, "Token decoding failed: "), self._acl.by_accessor(request.match_info["id"])
        if held is None:
            raise Refused(404, f"Cannot find token {request.match_info['id']!r}")
        return answer(self._acl.write_token(given, self._consul.state.touch(("acl",)), held), request)

    async def delete_token(self, request: web.Request) -> web.Response:
        self._demand(request, "write")
        accessor = request.match_info["id"]
        if accessor == ANONYMOUS_ID:
            raise Refused(500, "Delete operation not permitted on the anonymous token")
        row: Any = self._acl.by_accessor(accessor)
        if row is None:
            raise Refused(404, "Cannot find token to delete")
        self._acl.tokens.pop(row["SecretID"], None)
        self._consul.state.touch(("acl",))
        return answer(True, request)


def _check_uuid(request: web.Request, what: str) -> None:
    if len(request.match_info["id"]) != LENGTH_OF_UUID:
        said = "index error: UUID must be 36 characters"
        raise Refused(500, f"failed acl {what} lookup: {said}", indexed=True)
