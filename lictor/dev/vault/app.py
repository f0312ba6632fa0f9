"""HTTP for the dev Vault: JSON in, envelopes out, wrapping."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from lictor.dev.vault.answers import Ask, Failed, Json, Reply, seconds
from lictor.dev.vault.core import Vault
from lictor.dev.vault.tokens import new_id

_OPERATIONS = {"GET": "read", "HEAD": "read", "PUT": "update", "POST": "update", "DELETE": "delete", "LIST": "list"}
HEALTH_METHODS = frozenset({"GET", "HEAD"})


def vault_app(vault: Vault) -> web.Application:
    """Return the application: every path under /v1."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            ask = await _ask(request)
            if vault.signing_delay and not vault.sealed and vault.signs(ask):
                await asyncio.sleep(vault.signing_delay)
            return _response(vault, ask, vault.answer(ask))
        except Failed as error:
            return _json({"errors": list(error.errors)}, error.status)

    app = web.Application(client_max_size=32 << 20)
    app.router.add_route("*", "/v1/{path:.*}", handle)
    return app


async def _ask(request: web.Request) -> Ask:
    operation = _OPERATIONS.get(request.method)
    if operation is None:
        raise Failed(405)
    if request.query.get("list") == "true" and operation == "read":
        operation = "list"
    data: Any = dict(request.query) if operation in {"read", "list", "delete"} else {}
    raw = await request.read()
    if raw.strip() and operation in {"update", "delete"}:
        try:
            data = json.loads(raw)
        except ValueError as error:
            raise Failed(400, f"error parsing JSON: {error}") from error
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise Failed(400, "error parsing JSON: an object was expected")
    bearer = request.headers.get("Authorization", "")
    token = request.headers.get("X-Vault-Token") or (bearer[7:] if bearer[:7].lower() == "bearer " else "")
    wrap = request.headers.get("X-Vault-Wrap-TTL", "")
    path = request.match_info["path"].strip("/")
    return Ask(operation, path, data, token, seconds(wrap, "X-Vault-Wrap-TTL"))


def _response(vault: Vault, ask: Ask, reply: Reply) -> web.StreamResponse:
    if reply.raw is not None:
        return web.Response(body=reply.raw[0], content_type=reply.raw[1])
    if reply.data is None and reply.auth is None:
        return web.Response(status=reply.status)
    if reply.flat:
        return _json(reply.data or {}, reply.status)
    envelope = _envelope(reply)
    if ask.wrap:
        info = vault.tokens.wrap({"data": reply.data, "auth": reply.auth}, ask, reply.accessor)
        return _json({**_envelope(Reply()), "request_id": "", "wrap_info": info}, 200)
    if reply.warnings == ("both",):
        return _json({**(reply.data or {}), **envelope, "warnings": None}, 200)
    return _json(envelope, 200)


def _envelope(reply: Reply) -> Json:
    return {
        "request_id": new_id(),
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": reply.data,
        "wrap_info": None,
        "warnings": list(reply.warnings) or None,
        "auth": reply.auth,
    }


def _json(page: Json, status: int) -> web.Response:
    text = json.dumps(page, separators=(",", ":"), ensure_ascii=False)
    return web.Response(
        text=text + "\n", status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
