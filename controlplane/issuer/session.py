"""A session with Vault: one token for all that is asked in it, kept alive, and the one request that is made of a PKI.

hvac is synchronous: it runs in two threads of its own, so that a hung Vault holds up nothing else. Redirects are not
followed (the token would go along); environment and .netrc are not read.
Source: https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import hvac
import hvac.exceptions
import requests
import requests.adapters

from controlplane.issuer.login import Login, VaultToken
from controlplane.issuer.settings import VaultSettings
from policies.errors import BadLeaf, IssuerError, IssuerForbidden, IssuerRefused, IssuerUnreachable

TIMEOUTS = (2.0, 8.0)  # seconds to connect, to read
_TOKEN_SHARE = 0.5  # of a token's life after which it is renewed
_SHORTEST_PAUSE = 0.5  # seconds between renewals of a token that nears its greatest age
_T = TypeVar("_T")


class VaultSession:
    """The session. Many may use it at once; credentials are shown only once."""

    def __init__(self, settings: VaultSettings) -> None:
        self.settings = settings
        self.token_due = 0.0  # monotonic
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="vault")
        self._session = _session(settings)
        self._login = Login(settings.login, self._client)
        self._token: VaultToken | None = None
        self._turn = asyncio.Lock()  # a secret-id that logs in twice is spent the second time

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def sign(self, mount: str, role: str, body: Mapping[str, str], *, aside: bool = False) -> list[str]:
        """Return what `<mount>/sign/<role>` answers as PEM: the certificate, its issuer and the chain, unordered.

        `aside`: that our token may not is no reason to log in again, which would spend the secret-id that the leaf
        lives on. Raise IssuerError.
        """
        where = f"{mount.strip('/')}/sign/{role}"
        client = self._client(self._token.value if self._token is not None else "")

        def ask() -> dict[str, Any]:
            try:
                return _data(client.write_data(where, data=dict(body)))
            except hvac.exceptions.Forbidden as error:
                if not aside or not _knows(client):
                    raise
                message = f"Vault's policy does not let us update {where}"
                raise IssuerRefused(message) from error

        data = await self._call(ask)
        pems = [str(data.get("certificate") or ""), str(data.get("issuing_ca") or "")]
        return pems + [str(pem) for pem in data.get("ca_chain") or ()]

    # --- the token ---

    async def keep_token(self) -> None:
        """Have a token that lasts: log in, or renew it when half of its life is over. Raise IssuerError."""
        async with self._turn:
            await self._keep_token()

    async def _keep_token(self) -> None:
        if self._token is None:
            self._token = await self._call(self._login)
        elif time.monotonic() < self.token_due:
            return
        elif self._token.renewable:
            try:
                self._token = await self._call(self._renew)
            except IssuerForbidden:  # at its greatest age, or revoked
                self._token = None
                self._token = await self._call(self._login)
        elif self._token.ttl:
            self._token = await self._call(self._login)
        # A lease of 0 after a renewal is no token without an end but one at its end.
        life = self._token.ttl if self._token.ttl or self._token.renewable else float("inf")
        self.token_due = time.monotonic() + max(_SHORTEST_PAUSE, life * _TOKEN_SHARE)

    def _renew(self) -> VaultToken:
        assert self._token is not None  # noqa: S101 - only a token at hand is renewed
        try:
            auth = self._client(self._token.value).auth.token.renew_self()["auth"]
        except hvac.exceptions.InternalServerError as error:
            if "max TTL" not in str(error):
                raise
            message = f"Vault renews our token no more: {_said(error)}"
            raise IssuerForbidden(message) from error
        return VaultToken(self._token.value, float(auth["lease_duration"]), bool(auth["renewable"]))

    # --- asking ---

    def _client(self, token: str) -> hvac.Client:
        return hvac.Client(
            url=self.settings.address,
            token=token,
            session=self._session,
            timeout=TIMEOUTS,
            allow_redirects=False,
            namespace=self.settings.namespace or None,
        )

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in a thread; raise hvac's and requests' errors as ours."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except IssuerError:
            raise
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized) as error:
            self._token = None
            message = f"Vault refuses our token or credentials: {_said(error)}"
            raise IssuerForbidden(message) from error
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath) as error:
            message = f"Vault refuses the request: {_said(error)}"
            raise IssuerRefused(message) from error
        except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
            reason = _of_the_system(error)
            where = urlsplit(self.settings.address).netloc.rpartition("@")[2]
            message = f"no Vault answers at {where}: {reason}" if reason else f"Vault cannot be asked: {_said(error)}"
            raise IssuerUnreachable(message) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"Vault's answer is not what its API promises: {error!r}"
            raise BadLeaf(message) from error


def _knows(client: hvac.Client) -> bool:
    """Return whether Vault takes the client's token at all."""
    try:
        client.auth.token.lookup_self()
    except hvac.exceptions.Forbidden:
        return False
    return True


def _data(answer: Any) -> dict[str, Any]:
    data: dict[str, Any] = answer["data"]
    return data


def _refuse_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    if response.is_redirect or 300 <= response.status_code < 400:  # noqa: PLR2004
        message = f"status {response.status_code}: a standby that points elsewhere? Use the active node's address"
        raise IssuerUnreachable(message)


def _of_the_system(error: BaseException) -> str:
    """Return why there was no connection, "" if that is not what is wrong."""
    found: BaseException | None = error if isinstance(error, requests.ConnectionError) else None
    while found is not None and not isinstance(found, ConnectionRefusedError | socket.gaierror):
        found = found.__cause__ or found.__context__
    return (found.strerror or "") if isinstance(found, OSError) else ""


def _said(error: Exception) -> str:
    """Return an error's text without what requests puts in of addresses and retries."""
    errors = getattr(error, "errors", None)
    return "; ".join(str(one) for one in errors) if errors else f"{type(error).__name__}: {str(error)[:200]}"


def _session(settings: VaultSettings) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.verify = settings.ca_file or True
    session.hooks["response"].append(_refuse_redirect)
    if settings.login.method == "cert":
        session.mount("https://", _CertificateAdapter(settings))
    return session


class _CertificateAdapter(requests.adapters.HTTPAdapter):
    """Shows a client certificate to Vault, for the cert method."""

    def __init__(self, settings: VaultSettings) -> None:
        self._context = ssl.create_default_context(cafile=settings.ca_file or None)
        self._context.load_cert_chain(settings.login.cert_file, settings.login.key_file)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Use the context with the certificate."""
        super().init_poolmanager(*arguments, **{**named, "ssl_context": self._context})
