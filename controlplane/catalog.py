"""Consul's HTTP API as the mesh needs it: python-consul2, extended. Nothing else imports it.

python-consul2 has the seam (a client with one HTTP object) and groups for the agent's services; it lacks pooling,
timeouts, TLS, typed errors, safe paths and half of the endpoints of a mesh. All of that is here: one pooled session,
blocking queries under a semaphore well below the agent's limit of connections, a timeout for every request, no
redirects (they would carry the token elsewhere), path segments that cannot climb.
Source: https://developer.hashicorp.com/consul/api-docs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from consul import base
from controlplane.consul_settings import ConsulSettings, Token
from controlplane.places import MAX_FIRST_READS, MAX_INTENTIONS, MAX_WATCHES, Places
from controlplane.registration import SIDECAR_SUFFIX
from controlplane.rows import Later, Rows
from controlplane.shapes import (
    checked_entry,
    checked_instances,
    checked_match,
    checked_object,
    checked_roots,
    checked_rows,
    checked_service,
    checked_services,
)
from policies.errors import (
    CatalogBadAnswer,
    CatalogError,
    CatalogFault,
    CatalogForbidden,
    CatalogNotFound,
    CatalogRateLimited,
    CatalogRefused,
    CatalogTimedOut,
    CatalogUnreachable,
)
from policies.watches import (
    ApiGatewayWatch,
    ChainWatch,
    DefaultActionWatch,
    DefaultsWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    MeshWatch,
    OutsideWatch,
    RegistrationWatch,
    ResolverWatch,
    RootsWatch,
    RoutesWatch,
    TerminatingWatch,
    UpstreamWatch,
    Watch,
)

REQUEST_SECONDS = 10.0  # for anything that does not block
SLACK_SECONDS = 5.0  # on top of a blocking query's wait and the server's jitter of wait/16
_LARGE_BODY = 32 * 1024  # from here on decoded piece by piece, when its turn comes
_MADE_UP_SOURCE = "lictor-default-action-probe"
_REASONS_OF_THE_DEFAULT = ("Default ", "ACLs disabled")  # else an intention: "Matched L4 intention: ..."


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a read. `cursor` goes into the next blocking read: an index, or a content hash.

    `filtered`: the token could not see everything (X-Consul-Results-Filtered-By-ACLs).
    """

    data: Any
    cursor: str = ""
    filtered: bool = False


class Segment(str):
    """A path segment that came from outside; quoted as a whole."""

    __slots__ = ()


def path(*parts: str | Segment) -> str:
    """Return an API path. Raise CatalogRefused for a segment that could climb out of it."""
    quoted = []
    for part in parts:
        if isinstance(part, Segment) and (part in {"", ".", ".."} or "\x00" in part or "/" in part or "\\" in part):
            where = "/".join(parts)
            raise CatalogRefused(where, f"{str(part)!r} cannot be part of a path")
        quoted.append(quote(part, safe="") if isinstance(part, Segment) else part)
    return "/v1/" + "/".join(quoted)


# --- the HTTP object that python-consul2 is given ------------------------------------------------------------------


class PooledHttp(base.HTTPClient):  # type: ignore[misc]
    """python-consul2's HTTP interface on one pooled aiohttp session. Every error is a CatalogError."""

    def __init__(self, settings: ConsulSettings) -> None:
        super().__init__()
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tls = settings.ssl_context()

    def get(self, callback: Any, path: str, params: Any = None, headers: Any = None) -> Any:
        """Read."""
        return self._request("GET", callback, path, params, headers, None)

    def put(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        """Write."""
        return self._request("PUT", callback, path, params, headers, data)

    def post(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        """Ask with a body."""
        return self._request("POST", callback, path, params, headers, data)

    def delete(self, callback: Any, path: str, params: Any = None, data: Any = "", headers: Any = None) -> Any:
        """Delete."""
        return self._request("DELETE", callback, path, params, headers, data)

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # let the transports see it

    async def _request(
        self, method: str, callback: Callable[[Any], Any], path: str, params: Any, headers: Any, data: Any
    ) -> Any:
        query = [(key, str(value)) for key, value in (params or ())]
        seconds = REQUEST_SECONDS
        wait = dict(query).get("wait")
        blocks = wait is not None and any(key in {"index", "hash"} for key, _ in query)
        if blocks and wait is not None:
            waits = float(wait.removesuffix("s"))
            seconds = waits + waits / 16 + SLACK_SECONDS
        return callback(await self._send(method, path, query, headers, data, seconds))

    async def _send(
        self, method: str, path: str, query: list[tuple[str, str]], headers: Any, data: Any, seconds: float
    ) -> base.Response:
        where = f"{method} {path}"
        url = URL(self._settings.base_url + path + (f"?{urlencode(query)}" if query else ""), encoded=True)
        try:
            async with self._open().request(
                method,
                url,
                data=data or None,
                headers=self._headers(headers),
                timeout=aiohttp.ClientTimeout(total=seconds, connect=REQUEST_SECONDS),
                allow_redirects=False,
                ssl=self._tls if self._tls is not None else True,
                server_hostname=self._settings.tls_server_name or None,
            ) as answer:
                content = [piece async for piece in answer.content.iter_any()]
                status, received = answer.status, answer.headers
        except TimeoutError as error:
            raise CatalogTimedOut(where, f"no answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CatalogUnreachable(where, _said(error)) from error
        large = _is_large(content) and status == 200  # noqa: PLR2004 - nobody reads it as text
        text = "" if large else b"".join(content).decode("utf-8", "replace")
        _check(where, status, text, received.get("X-Consul-Index", ""))
        return base.Response(status, received, text, content)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            socket_path = self._settings.socket_path
            connector = aiohttp.UnixConnector(socket_path, limit=0) if socket_path else aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    def _headers(self, headers: Any) -> dict[str, str]:
        sent = dict(headers or {})
        if self._settings.basic_auth:
            sent["Authorization"] = "Basic " + base64.b64encode(self._settings.basic_auth.encode()).decode()
        return sent


def _is_large(content: Sequence[bytes]) -> bool:
    return sum(map(len, content)) > _LARGE_BODY


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check(where: str, status: int, text: str, index: str) -> None:
    """Raise the typed error of a status, if it is one."""
    said = text.strip()[:500] or f"status {status}"
    if status < 300:  # noqa: PLR2004
        return
    error = _error_of(where, status, said, index)
    error.status = status
    raise error


def _error_of(where: str, status: int, said: str, index: str) -> CatalogError:
    if status == 403:  # noqa: PLR2004
        return CatalogForbidden(where, said)
    if status == 404:  # noqa: PLR2004
        missing = CatalogNotFound(where, said)
        missing.index = index
        return missing
    if status == 429:  # noqa: PLR2004
        return CatalogRateLimited(where, said)
    if status >= 500:  # noqa: PLR2004
        return CatalogFault(where, said)
    return CatalogRefused(where, said)


class _Client(base.Consul):  # type: ignore[misc]
    """python-consul2's client with our HTTP object, our token and nothing from the environment."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._token = Token(settings)
        with _without_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of its own legacy groups at every construction
            super().__init__()

    def http_connect(self, *_: Any, **__: Any) -> PooledHttp:
        """Return the HTTP object; called by the constructor."""
        return PooledHttp(self._settings)

    @property
    def token(self) -> str:
        """Return the token as it is now."""
        return self._token.current()

    @token.setter
    def token(self, _: object) -> None:
        """Ignore what the constructor found in the environment."""


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide CONSUL_* from python-consul2's constructor, which lets them override arguments and fails on some."""
    hidden = {key: os.environ.pop(key) for key in tuple(os.environ) if key.startswith("CONSUL_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


# --- the catalog ---------------------------------------------------------------------------------------------------


class Catalog:
    """The agent. `async with` it; every method raises a CatalogError when it does not get its answer."""

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self._client = _Client(settings)
        self._blocking = Places(MAX_WATCHES)
        self._judging = Places(MAX_INTENTIONS)
        self._first_reads = Places(MAX_FIRST_READS)

    async def __aenter__(self) -> Self:
        """Open lazily: the first request connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.http.close()

    # --- reads that can be watched ---

    async def read(self, watch: Watch, cursor: str, wait: float) -> Answer:
        """Return a watch's answer: at once without a cursor, else when it changed or after `wait` seconds."""
        match watch:
            case ChainWatch() | EndpointsWatch() | OutsideWatch() | ResolverWatch() | DefaultsWatch():
                async with (self._blocking if cursor else self._first_reads).place():
                    return await self._upstream(watch, cursor, wait)
            case RootsWatch():
                answer = await self._get(path("agent/connect/ca/roots"), cursor, wait)
                return _checked(answer, checked_roots("agent/connect/ca/roots", answer.data))
            case RegistrationWatch(proxy_id):
                return await self._registration(proxy_id, cursor, wait)
            case IntentionsWatch(service):
                query = {"by": "destination", "name": service}
                async with self._judging.place():
                    response = await self._fetch(path("connect/intentions/match"), cursor, wait, query)
                where = "connect/intentions/match"
                return _answer_later(response, where, 2, lambda data: checked_match(where, data, service))
            case DefaultActionWatch(service):
                return Answer(await self._default_action(service))
            case GatewayServicesWatch(name):
                where = f"catalog/gateway-services/{name}"
                response = await self._fetch(path("catalog/gateway-services", Segment(name)), cursor, wait, {})
                return _answer_later(response, where, 1, lambda data: checked_rows(where, data, "Service", Mapping))
            case RoutesWatch(kind):
                where = f"config/{kind}"
                response = await self._fetch(path("config", kind), cursor, wait, {})
                return _answer_later(response, where, 2, lambda data: checked_rows(where, data, "Name", str))
            case _:
                return await self._entry(*_kind_and_name(watch), cursor, wait)

    async def _upstream(self, watch: UpstreamWatch, cursor: str, wait: float) -> Answer:
        match watch:
            case ChainWatch():
                return await self._chain(watch, cursor, wait)
            case EndpointsWatch(service, datacenter):
                query = {"dc": datacenter} if datacenter else {}
                return await self._instances(path("health/connect", Segment(service)), cursor, wait, query)
            case OutsideWatch(service):
                return await self._instances(path("health/service", Segment(service)), cursor, wait, {})
            case ResolverWatch(service):
                return await self._entry("service-resolver", service, cursor, wait)
            case DefaultsWatch(""):
                return await self._entry("proxy-defaults", "global", cursor, wait)
            case DefaultsWatch(service):
                return await self._entry("service-defaults", service, cursor, wait)

    async def leaf(self, service: str, cursor: str, wait: float) -> Answer:
        """Return the agent's leaf of a service, key included (`GET /v1/agent/connect/ca/leaf/:service`)."""
        return await self._get(path("agent/connect/ca/leaf", Segment(service)), cursor, wait)

    async def entry(self, kind: str, name: str, cursor: str = "", wait: float = 0) -> Answer:
        """Return a config entry, decoded, None when there is none (`GET /v1/config/:kind/:name`)."""
        answer = await self._entry(kind, name, cursor, wait)
        return Answer(answer.data.decoded(), answer.cursor) if isinstance(answer.data, Later) else answer

    async def service(self, service_id: str) -> Mapping[str, Any]:
        """Return a service of this agent (`GET /v1/agent/service/:id`). Raise CatalogNotFound."""
        return checked_service("agent/service", (await self._get(path("agent/service", Segment(service_id)))).data)

    async def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Return all services of this agent by ID (`GET /v1/agent/services`)."""
        return checked_services("agent/services", (await self._get(path("agent/services"))).data)

    async def roots(self) -> Mapping[str, Any]:
        """Return the CA roots (`GET /v1/agent/connect/ca/roots`)."""
        answer = await self._get(path("agent/connect/ca/roots"))
        return checked_roots("agent/connect/ca/roots", answer.data)

    async def own_chain(self, service: str) -> Any:
        """Return a service's chain, which tells its datacenter and protocol (`GET /v1/discovery-chain/:service`)."""
        data = (await self._chain(ChainWatch(service, service), "", 0)).data
        return await asyncio.to_thread(data.decoded) if isinstance(data, Later) else data

    # --- writes ---

    async def register(self, definition: Mapping[str, Any]) -> None:
        """Register a service or proxy (`PUT /v1/agent/service/register`). Idempotent."""
        await self._client.http.put(
            _raw,
            path("agent/service/register"),
            params=[("replace-existing-checks", "true")],
            data=json.dumps(definition),
            headers=self._authorization(),
        )

    async def deregister(self, service_id: str) -> None:
        """Deregister by ID; one that is not there is fine (`PUT /v1/agent/service/deregister/:id`)."""
        _guard(service_id)
        try:
            await self._client.agent.service.deregister(quote(service_id, safe=""))
        except CatalogNotFound:
            return

    async def maintenance(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Put a service into maintenance or out of it (`PUT /v1/agent/service/maintenance/:id`)."""
        _guard(service_id)
        word = "true" if enable else "false"
        await self._client.agent.service.maintenance(quote(service_id, safe=""), word, reason=reason)

    async def maintenance_reason(self, service_id: str) -> str | None:
        """Return why a service is in maintenance (`GET /v1/agent/checks`); None when it is not, or we may not see."""
        checks = checked_object("agent/checks", (await self._get(path("agent/checks"))).data)
        check = checks.get(f"_service_maintenance:{service_id}")
        return str(check.get("Notes") or "") if isinstance(check, Mapping) else None

    async def ask(self, method: str, parts: Sequence[str], query: Mapping[str, str], body: object = None) -> Any:
        """Return the decoded answer of any path: what the operator's command line asks. None for an empty one."""
        where = path(*(Segment(part) for part in parts))
        send = getattr(self._client.http, method.lower())
        named: dict[str, Any] = {} if method == "GET" else {"data": "" if body is None else json.dumps(body)}
        response = await send(_raw, where, params=list(query.items()), headers=self._authorization(), **named)
        return await _decode(response, where) if response.content else None

    # --- how ---

    async def _registration(self, proxy_id: str, cursor: str, wait: float) -> Answer:
        query = [("hash", cursor), ("wait", f"{wait:g}s")] if cursor else []
        response = await self._client.http.get(
            _raw, path("agent/service", Segment(proxy_id)), params=query, headers=self._authorization()
        )
        answer = _answer_later(response, "agent/service", 3, lambda data: checked_service("agent/service", data))
        return Answer(answer.data, response.headers.get("X-Consul-ContentHash", ""))

    async def _default_action(self, service: str) -> bool | None:
        """Return whether the agent allows what no intention says, None when it cannot be known.

        A source that nobody has is authorized by the default, unless an intention of `*` stands before it: the reason
        tells which. The sidecar's own name, which tokens of sidecars may ask about too, is met by fewer intentions.
        Where they hide the default there as well, the agent's settings tell it to whoever may read the agent.
        """
        uri = f"spiffe://{(await self.roots())['TrustDomain']}/ns/default/dc/none/svc/{_MADE_UP_SOURCE}"
        told = await self._authorize(service, uri)
        with suppress(CatalogForbidden):
            told = await self._authorize(service + SIDECAR_SUFFIX, uri) if told is None else told
        with suppress(CatalogForbidden):
            told = await self._configured_default() if told is None else told
        return told

    async def _authorize(self, target: str, uri: str) -> bool | None:
        """Ask `POST /v1/agent/connect/authorize`; None when the answer does not come from the default."""
        where = "agent/connect/authorize"
        body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "00"}
        response = await self._client.http.post(_raw, path(where), data=json.dumps(body), headers=self._authorization())
        data = checked_object(where, await _decode(response, where), "Authorized", "Reason")
        return data["Authorized"] is True if str(data["Reason"]).startswith(_REASONS_OF_THE_DEFAULT) else None

    async def _configured_default(self) -> bool | None:
        """Return the default by `GET /v1/agent/self`, which needs agent:read; None when it does not say."""
        data = checked_object("agent/self", (await self._get(path("agent/self"))).data)
        settings = data.get("DebugConfig")
        if not isinstance(settings, Mapping) or not isinstance(settings.get("ACLsEnabled"), bool):
            return None
        resolver = settings.get("ACLResolverSettings")
        of_acls = resolver.get("ACLDefaultPolicy") if isinstance(resolver, Mapping) else None
        said = settings.get("DefaultIntentionPolicy") or (of_acls if settings["ACLsEnabled"] else "allow")
        return {"allow": True, "deny": False}.get(str(said))

    async def _chain(self, watch: ChainWatch, cursor: str, wait: float) -> Answer:
        query = {"compile-dc": watch.datacenter} if watch.datacenter else {}
        overrides: dict[str, Any] = {}
        if watch.protocol:
            overrides["OverrideProtocol"] = watch.protocol
        if watch.connect_timeout_ms > 0:
            overrides["OverrideConnectTimeout"] = f"{watch.connect_timeout_ms}ms"
        where = path("discovery-chain", Segment(watch.service))
        if overrides:
            response = await self._client.http.post(
                _raw,
                where,
                params=_blocking(cursor, wait, query),
                data=json.dumps(overrides),
                headers=self._authorization(),
            )
        else:
            response = await self._fetch(where, cursor, wait, query)
        return _answer_later(response, where, 5, lambda data: _checked_chain(where, data))

    async def _entry(self, kind: str, name: str, cursor: str, wait: float) -> Answer:
        """Return a config entry; None when there is none, which can be waited on like any other answer."""
        try:
            response = await self._fetch(path("config", kind, Segment(name)), cursor, wait, {})
        except CatalogNotFound as error:
            if not error.index:
                raise CatalogBadAnswer(error.where, "a 404 that is not Consul's: it has no index") from error
            return Answer(None, error.index)
        where = f"config/{kind}/{name}"
        return _answer_later(response, where, 4, lambda data: checked_entry(where, data, kind))

    async def _instances(self, where: str, cursor: str, wait: float, query: Mapping[str, str]) -> Answer:
        """Return instances: a list, or Rows that are yet to be decoded when they are many."""
        response = await self._fetch(where, cursor, wait, query)
        if _is_large(response.content):
            return _answer_of(response, Rows(where, response.content))
        return _answer_of(response, checked_instances(where, await _decode(response, where)))

    async def _get(
        self, where: str, cursor: str = "", wait: float = 0, query: Mapping[str, str] | None = None
    ) -> Answer:
        return await _answer(await self._fetch(where, cursor, wait, query or {}), where)

    async def _fetch(self, where: str, cursor: str, wait: float, query: Mapping[str, str]) -> base.Response:
        return await self._client.http.get(
            _raw, where, params=_blocking(cursor, wait, query), headers=self._authorization()
        )

    def _authorization(self) -> dict[str, str]:
        token = self._client.token
        return {"X-Consul-Token": token} if token else {}


def _kind_and_name(watch: MeshWatch | IngressWatch | ApiGatewayWatch | TerminatingWatch) -> tuple[str, str]:
    """Return which config entry a watch is of."""
    match watch:
        case MeshWatch():
            return "mesh", "mesh"
        case IngressWatch(name):
            return "ingress-gateway", name
        case ApiGatewayWatch(name):
            return "api-gateway", name
        case TerminatingWatch(name):
            return "terminating-gateway", name


def _raw(response: base.Response) -> base.Response:
    return response


def _guard(service_id: str) -> None:
    path("agent/service", Segment(service_id))


def _blocking(cursor: str, wait: float, query: Mapping[str, str]) -> list[tuple[str, str]]:
    params = list(query.items())
    return [*params, ("index", cursor), ("wait", f"{wait:g}s")] if cursor else params


async def _answer(response: base.Response, where: str) -> Answer:
    return _answer_of(response, await _decode(response, where))


def _answer_of(response: base.Response, data: Any) -> Answer:
    filtered = response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true"
    return Answer(data, response.headers.get("X-Consul-Index", ""), filtered)


def _checked(answer: Answer, data: Any) -> Answer:
    return Answer(data, answer.cursor, answer.filtered)


async def _decode(response: base.Response, where: str) -> Any:
    if _is_large(response.content):
        return await asyncio.to_thread(_json, response.content, where)
    return _json(response.content, where)


def _json(content: Sequence[bytes], where: str) -> Any:
    try:
        return json.loads(b"".join(content))
    except (ValueError, RecursionError) as error:
        raise CatalogBadAnswer(where, f"the answer is not JSON: {error}") from error


def _answer_later(response: base.Response, where: str, depth: int, check: Callable[[Any], Any]) -> Answer:
    """Return the checked answer; a long one is decoded by whoever reads it, that many levels of it piece by piece."""
    if _is_large(response.content):
        return _answer_of(response, Later(where, response.content, depth, check))
    return _answer_of(response, check(_json(response.content, where)))


def _checked_chain(where: str, data: object) -> Mapping[str, Any]:
    found = checked_object(where, data, "Chain")["Chain"]
    return checked_object(where, found, "StartNode", "Nodes", "Targets")


__all__ = ["Answer", "Catalog", "CatalogError", "Segment", "path"]
