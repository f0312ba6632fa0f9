"""python-consul2, extended. Nothing else imports it.

It has the seam (a client with one HTTP object) and groups for the agent's services; it lacks pooling, timeouts, TLS,
typed errors and half of the endpoints of a mesh. All of that is here: one pooled session, a timeout for every request,
no redirects (they would carry the token elsewhere).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

import aiohttp
from yarl import URL

from consul import base
from controlplane.consul.rows import is_large
from controlplane.consul.settings import ConsulSettings, Token
from policies.errors import (
    CatalogError,
    CatalogFault,
    CatalogForbidden,
    CatalogNotFound,
    CatalogRateLimited,
    CatalogRefused,
    CatalogTimedOut,
    CatalogUnreachable,
)

REQUEST_SECONDS = 10.0  # for anything that does not block
SLACK_SECONDS = 5.0  # on top of a blocking query's wait and the server's jitter of wait/16

Response: TypeAlias = base.Response  # `headers`, and `content`: the bytes in the pieces in which they came


class Client(base.Consul):  # type: ignore[misc]
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

    async def send(
        self, method: str, path: str, query: Iterable[tuple[str, str]] = (), body: object = None
    ) -> Response:
        """Return the answer to what python-consul2 has no words for. Raise CatalogError when it is none."""
        token = self.token
        headers = {"X-Consul-Token": token} if token else {}
        return await self.http.send(method, path, query, headers, "" if body is None else json.dumps(body))


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide CONSUL_* from python-consul2's constructor, which lets them override arguments and fails on some."""
    hidden = {key: os.environ.pop(key) for key in tuple(os.environ) if key.startswith("CONSUL_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


class PooledHttp(base.HTTPClient):  # type: ignore[misc]
    """python-consul2's HTTP interface on one pooled aiohttp session. Every error is a CatalogError."""

    def __init__(self, settings: ConsulSettings) -> None:
        super().__init__()
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tls = settings.ssl_context()

    async def get(self, callback: Callable[[Response], Any], path: str, params: Any = None, headers: Any = None) -> Any:
        """Read."""
        return callback(await self.send("GET", path, params, headers))

    async def put(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Write."""
        return callback(await self.send("PUT", path, params, headers, data))

    async def post(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Ask with a body."""
        return callback(await self.send("POST", path, params, headers, data))

    async def delete(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Delete."""
        return callback(await self.send("DELETE", path, params, headers, data))

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # let the transports see it

    async def send(self, method: str, path: str, params: Any, headers: Any, data: Any = "") -> Response:
        """Return the answer. Raise CatalogError when none comes, or one that is an error."""
        where = f"{method} {path}"
        query = [(key, str(value)) for key, value in (params or ())]
        url = URL(self._settings.base_url + path + (f"?{urlencode(query)}" if query else ""), encoded=True)
        seconds = _patience(dict(query))
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
            raise CatalogUnreachable(where, self._why(error)) from error
        large = is_large(content) and status == 200  # noqa: PLR2004 - nobody reads it as text
        text = "" if large else b"".join(content).decode("utf-8", "replace")
        _check(where, status, text, received.get("X-Consul-Index", ""))
        return Response(status, received, text, content)

    def _why(self, error: Exception) -> str:
        """Return why there is no answer: what the system says, without what aiohttp makes of it."""
        reason = getattr(error, "os_error", None)
        if reason is None or isinstance(error, aiohttp.ClientSSLError):
            return _said(error)
        known = isinstance(reason.errno, int) and reason.errno > 0
        said = os.strerror(reason.errno) if known else reason.strerror or str(reason)
        place = self._settings.socket_path or urlsplit(self._settings.base_url).netloc.rpartition("@")[2]
        return f"no agent answers at {place}: {said}"

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


def _patience(query: dict[str, str]) -> float:
    """Return how many seconds an answer may take: a blocking query is given its wait."""
    if "wait" not in query or not query.keys() & {"index", "hash"}:
        return REQUEST_SECONDS
    waits = float(query["wait"].removesuffix("s"))
    return waits + waits / 16 + SLACK_SECONDS


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
