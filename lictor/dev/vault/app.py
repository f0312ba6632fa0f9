"""HTTP for the dev Vault: JSON in, envelopes out, wrapping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from lictor.dev.vault.answers import Ask, Failed, Json, Reply
from lictor.dev.vault.core import Vault
from lictor.dev.vault.fields import Unfit, parse_seconds
from lictor.dev.vault.tokens import new_id

_OPERATIONS = {"GET": "read", "HEAD": "read", "PUT": "update", "POST": "update", "DELETE": "delete", "LIST": "list"}
_JSON_HEADERS = {"Cache-Control": "no-store"}
_MERGE_PATCH = "application/merge-patch+json"
_FORM = "application/x-www-form-urlencoded"
_GO_KINDS = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}


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
    operation = _operation(request)
    path = request.match_info["path"].strip("/")
    data: Mapping[str, Any] = dict(request.query) if operation in {"read", "list", "delete"} else {}
    raw = await request.read()
    if raw.strip() and operation == "update":
        text = raw.decode("utf-8", "replace")
        is_form = request.content_type == _FORM and text.lstrip()[:1] not in {"{", "["}
        data = dict(parse_qsl(text, keep_blank_values=True)) if is_form else _object(text)
    if request.headers.get("X-Vault-Namespace", "").strip("/") not in {"", "root"}:
        raise Failed(404, "namespace not found")
    bearer = request.headers.get("Authorization", "")
    token = request.headers.get("X-Vault-Token") or (bearer[7:] if bearer.startswith("Bearer ") else "")
    return Ask(operation, path, data, token, _wrap(request), request.remote or "127.0.0.1")


def _operation(request: web.Request) -> str:
    if request.method == "PATCH":
        if request.content_type != _MERGE_PATCH:
            told = f"PATCH requires Content-Type of {_MERGE_PATCH}, provided {request.content_type}"
            raise Failed(415, told)
        return "patch"
    if request.method == "OPTIONS":
        raise Failed(400, "cannot handle internal-only request operation")
    operation = _OPERATIONS.get(request.method)
    if operation is None:
        raise Failed(405)
    return "list" if operation == "read" and request.query.get("list") == "true" else operation


def _object(text: str) -> Mapping[str, Any]:
    """Return the JSON object of a body. Raise Failed."""
    begin = "failed to decode JSON input: "
    decoder = json.JSONDecoder()
    try:
        found, end = decoder.raw_decode(text.lstrip())
        rest = text.lstrip()[end:].strip()
        if rest:
            decoder.raw_decode(rest)  # a second value is left alone, but it has to be one
    except ValueError as error:
        unfinished = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
        raise Failed(400, begin + ("unexpected EOF" if unfinished else str(error))) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        kind = _GO_KINDS[type(found)]
        raise Failed(400, f"{begin}json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    return found


def _wrap(request: web.Request) -> float:
    text = request.headers.get("X-Vault-Wrap-TTL", "")
    begin = "error parsing X-Vault-Wrap-TTL header: "
    try:
        seconds = parse_seconds(text or 0)
    except Unfit as error:
        raise Failed(400, f"{begin}{error}") from error
    if seconds < 0:
        raise Failed(400, f"{begin}requested wrap ttl cannot be negative")
    return seconds


def _response(vault: Vault, ask: Ask, reply: Reply) -> web.StreamResponse:
    if reply.raw is not None:
        body, kind = reply.raw
        status = reply.status if body else 204
        return web.Response(body=body or None, status=status, content_type=kind, headers=_JSON_HEADERS)
    if reply.empty:
        return web.Response(status=reply.status, content_type="application/json", headers=_JSON_HEADERS)
    if reply.flat:
        return _json(reply.data or {}, reply.status)
    if reply.wrap_info is not None:
        return _json({**_envelope(Reply()), "request_id": "", "wrap_info": reply.wrap_info}, 200)
    if ask.wrap and (reply.data is not None or reply.auth is not None):
        held = {"data": reply.data, "auth": reply.auth, "warnings": list(reply.warnings)}
        info = vault.tokens.wrap(held, ask, reply.accessor)
        return _json({**_envelope(Reply()), "request_id": "", "wrap_info": info}, 200)
    envelope = _envelope(reply)
    return _json({**(reply.data or {}), **envelope} if reply.twice else envelope, reply.status)


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
    text = json.dumps(page, separators=(",", ":"), ensure_ascii=False) + "\n"
    return web.Response(body=text.encode(), status=status, content_type="application/json", headers=_JSON_HEADERS)
