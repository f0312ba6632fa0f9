"""One dev server's parts, and the application that answers for them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from lictor.dev.consul.acl import Acl, Authorizer
from lictor.dev.consul.agent import Agent
from lictor.dev.consul.catalog import Catalog
from lictor.dev.consul.connect import Connect
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.state import Json, State
from lictor.dev.consul.web import refusal

NOT_AN_ENDPOINT = "Invalid URL path: not a recognized HTTP API endpoint\n"
OUTSIDE = "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n"
_OF_CONSUL = re.compile(
    r"/v1/(acl/(login|logout|replication|role|binding-rule|auth-method|templated-polic)|agent/(host|reload|monitor|metrics"
    r"|join|leave|force-leave|token)|coordinate|event|internal|operator|peering|query|snapshot|txn|exported-services"
    r"|imported-services|config/.*/.*/)"
)
_OF_SERVERS = ("/v1/session/list", "/v1/catalog/", "/v1/discovery-chain/", "/v1/connect/intentions/match", "/v1/acl/")
_FOR_ALL_NAMESPACES = (
    "/v1/status/",
    "/v1/agent/self",
    "/v1/agent/connect/ca/roots",
    "/v1/connect/ca/",
    "/v1/catalog/datacenters",
)
METHODS = ("GET", "PUT", "POST", "DELETE")
AUTHORIZER: web.RequestKey[Authorizer] = web.RequestKey("authorizer", Authorizer)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server behaves: ACLs off by default, as `consul agent -dev`."""

    http_port: int = 8500
    acl: bool = False
    default_policy: str = "allow"
    default_intention_policy: str = ""
    management_token: str = ""


class Consul:
    """State and behaviour of one embedded Consul."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.state = State()
        self.catalog = Catalog(self.state)
        self.agent = Agent(self.state, self.catalog)
        self.connect = Connect(self.state)
        self.acl = Acl(enabled=self.settings.acl, default_allow=self.settings.default_policy != "deny")
        if self.settings.acl and self.settings.management_token:
            self.acl.add_management(self.settings.management_token, self.state.index)

    @property
    def default_allow(self) -> bool:
        """Return what holds where no intention decides."""
        if self.settings.default_intention_policy:
            return self.settings.default_intention_policy == "allow"
        return not self.settings.acl or self.settings.default_policy != "deny"

    def dump(self) -> Json:
        """Return everything that `--state` keeps, secrets of the CA and tokens included."""
        parts: Json = {"state": self.state.dump(), "agent": self.agent.dump(), "connect": self.connect.dump()}
        return {**parts, "acl": self.acl.dump()} if self.settings.acl else parts

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave; call it where a loop runs."""
        self.state.load(kept["state"])
        self.connect.load(kept["connect"])
        if self.settings.acl and "acl" in kept:
            self.acl.load(kept["acl"])
        self.agent.load(kept["agent"])

    def wipe(self) -> None:
        """Lose every fact, as a server whose data folder was removed; CA and tokens stay."""
        self.agent.forget_all()
        self.state.wipe()
        self.catalog.begin()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def consul_app(consul: Consul) -> web.Application:
    """Return the application: every route under /v1."""
    from lictor.dev.consul import (  # noqa: PLC0415 - the pages know the parts, the parts know no page
        pages_acl,
        pages_agent,
        pages_catalog,
        pages_config,
        pages_connect,
        pages_intentions,
        pages_keys,
        pages_legacy,
        pages_register,
    )

    app = web.Application(middlewares=[_outermost(consul), _errors, _tokens(consul)], client_max_size=16 << 20)
    of_mesh = (pages_connect, pages_intentions, pages_legacy)
    of_catalog = (pages_catalog, pages_register)
    for pages in (pages_agent, *of_catalog, pages_config, *of_mesh, pages_keys, pages_acl):
        app.add_routes(pages.routes(consul))
    app.router.add_get("/", _to_ui)
    app.router.add_get("/ui/{rest:.*}", _ui)
    return app


async def _to_ui(_: web.Request) -> web.Response:
    return web.Response(status=301, headers={"Location": "/ui/"})


async def _ui(_: web.Request) -> web.Response:
    return web.Response(text="The dev server has no UI: ask the HTTP API under /v1/ or `lictor`.\n")


def _outermost(consul: Consul) -> Any:
    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        policy = consul.settings.default_policy
        response.headers["X-Consul-Default-Acl-Policy"] = policy
        return response

    return outermost


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return refusal(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ",".join(("OPTIONS", *(word for word in METHODS if word in error.allowed_methods)))
        if request.method == "OPTIONS":
            return web.Response(headers={"Allow": allowed}, content_type="application/json")
        text = f"method {request.method} not allowed"
        return web.Response(status=405, text=text, headers={"Allow": allowed})
    except web.HTTPNotFound:
        return web.Response(status=404, text=_unknown(request))


def _unknown(request: web.Request) -> str:
    if not request.path.startswith("/v1/"):
        return OUTSIDE
    if _OF_CONSUL.match(request.path):
        return f"{request.method} {request.path}: the dev server of Lictor does not do this; a real Consul does\n"
    return NOT_AN_ENDPOINT


def _tokens(consul: Consul) -> Any:
    @web.middleware
    async def tokens(request: web.Request, handler: Handler) -> web.StreamResponse:
        _refuse_enterprise(request)
        if consul.state.leaderless and not _works_without_leader(request.path):
            raise Refused(500, "No cluster leader")
        authorizer = consul.acl.resolve(token_of(request))
        if not authorizer.known and not _open_to_all(request.path):
            raise _not_found(request)
        request[AUTHORIZER] = authorizer
        return await handler(request)

    return tokens


def _not_found(request: web.Request) -> Refused:
    """Return the refusal of a token that does not exist."""
    if request.path == "/v1/acl/token/self":
        return Refused(403, "token does not exist: ACL not found", indexed=True)
    if request.path == "/v1/agent/connect/authorize":
        return Refused(403, "Could not resolve token to authorizer: ACL not found")
    read = request.method == "GET" and request.path.startswith(_OF_SERVERS)
    return Refused(403, "ACL not found", indexed=read)


def token_of(request: web.Request) -> str:
    """Return the token of a request: of the query, of Consul's header, of a bearer's."""
    bearer = request.headers.get("Authorization", "")
    of_bearer = bearer[7:] if bearer[:7].lower() == "bearer " else ""
    return request.query.get("token") or request.headers.get("X-Consul-Token") or of_bearer


def _open_to_all(path: str) -> bool:
    return path.startswith(("/v1/status/", "/v1/agent/connect/ca/roots", "/v1/connect/ca/roots", "/v1/acl/bootstrap"))


def _works_without_leader(path: str) -> bool:
    return path.startswith(("/v1/agent/", "/v1/status/")) and "/connect/" not in path


def _refuse_enterprise(request: web.Request) -> None:
    if request.path.startswith(_FOR_ALL_NAMESPACES):
        return
    for name, what in (("ns", "Namespaces are"), ("partition", "Partitions are")):
        if request.query.get(name):
            raise Refused(400, f'Invalid query parameter: "{name}" - {what} a Consul Enterprise feature')
    for name, what in (("X-Consul-Namespace", "Namespaces are"), ("X-Consul-Partition", "Partitions are")):
        if request.headers.get(name):
            raise Refused(400, f'Invalid header: "{name}" - {what} a Consul Enterprise feature')
