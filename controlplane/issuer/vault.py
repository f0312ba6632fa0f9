"""Leaves from Vault's PKI: key and request made here, `sign/<role>`, the answer checked.

hvac is synchronous: it runs in two threads of its own, so that a hung Vault holds up nothing else. Redirects are not
followed (the token would go along); environment and .netrc are not read.
Source: https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import hvac
import hvac.exceptions
import requests
import requests.adapters
import structlog

from controlplane.issuer import IssuerStatus
from controlplane.issuer.csr import new_key, ordered_chain, private_pem, signing_request
from controlplane.issuer.leaf import checked_leaf
from controlplane.issuer.login import Login, VaultToken
from controlplane.issuer.settings import VaultSettings
from policies.errors import BadLeaf, IssuerError, IssuerForbidden, IssuerRefused, IssuerUnreachable
from policies.identity import Leaf, SpiffeId
from policies.rotation import pause_before, retry_pause

log = structlog.get_logger(__name__)

TIMEOUTS = (2.0, 8.0)  # seconds to connect, to read
_TOKEN_SHARE = 0.5  # of a token's life after which it is renewed
_SHORTEST_PAUSE = 0.5  # seconds between renewals of a token that nears its greatest age
_T = TypeVar("_T")


class VaultIssuer:
    """The issuer."""

    def __init__(self, settings: VaultSettings) -> None:
        self.status = IssuerStatus("vault")
        self._settings = settings
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="vault")
        self._session = _session(settings)
        self._login = Login(settings.login, self._client)
        self._token: VaultToken | None = None
        self._token_due = 0.0  # monotonic

    async def leaves(self, spiffe_id: SpiffeId) -> AsyncGenerator[Leaf, None]:
        """Yield the first leaf as soon as Vault gives it, then each next one in its time."""
        leaf: Leaf | None = None
        due = time.monotonic()
        while True:
            try:
                await self._keep_token()
                if time.monotonic() >= due:
                    leaf = await self._sign(spiffe_id)
                    due = time.monotonic() + self._renewal_pause(leaf)
                    self._succeeded()
                    yield leaf
                    continue
                self._succeeded()
            except IssuerError as error:
                await asyncio.sleep(self._failed(error, leaf))
                continue
            await asyncio.sleep(max(0.05, min(due, self._token_due) - time.monotonic()))

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    # --- the token ---

    async def _keep_token(self) -> None:
        """Have a token that lasts: log in, or renew it when half of its life is over."""
        if self._token is None:
            self._token = await self._call(self._login)
        elif time.monotonic() < self._token_due:
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
        self._token_due = time.monotonic() + max(_SHORTEST_PAUSE, life * _TOKEN_SHARE)

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

    # --- the leaf ---

    async def _sign(self, spiffe_id: SpiffeId) -> Leaf:
        key = new_key()
        body = {"csr": signing_request(key, spiffe_id), "common_name": "", "format": "pem"}
        if self._settings.ttl:
            body["ttl"] = self._settings.ttl
        where = f"{self._settings.mount.strip('/')}/sign/{self._settings.role}"
        token = self._token.value if self._token is not None else ""
        data = await self._call(lambda: _data(self._client(token).write_data(where, data=body)))
        pems = [str(data.get("certificate") or ""), str(data.get("issuing_ca") or "")]
        pems += [str(pem) for pem in data.get("ca_chain") or ()]
        return checked_leaf(spiffe_id, ordered_chain(pems), private_pem(key), datetime.now(UTC))

    def _renewal_pause(self, leaf: Leaf) -> float:
        now = datetime.now(UTC)  # its life begins here: Vault dates it back, for clocks that are behind
        pause = pause_before(max(now, leaf.not_before), leaf.not_after, now, random.random())
        self.status.issued += 1
        self.status.next_renewal = time.time() + pause
        log.info("leaf_issued", issuer="vault", serial=leaf.serial, ends=leaf.not_after.isoformat())
        return pause

    # --- asking ---

    def _client(self, token: str) -> hvac.Client:
        return hvac.Client(
            url=self._settings.address,
            token=token,
            session=self._session,
            timeout=TIMEOUTS,
            allow_redirects=False,
            namespace=self._settings.namespace or None,
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
            message = f"Vault cannot be asked: {_said(error)}"
            raise IssuerUnreachable(message) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"Vault's answer is not what its API promises: {error!r}"
            raise BadLeaf(message) from error

    def _succeeded(self) -> None:
        if self.status.failing_since is not None:
            seconds = round(time.time() - self.status.failing_since, 1)
            log.info("issuer_recovered", issuer="vault", seconds=seconds)
        self.status.failing_since = None
        self.status.failures = 0
        self.status.error = ""

    def _failed(self, error: IssuerError, leaf: Leaf | None) -> float:
        """Note a failure, telling it once; return the pause before the next try."""
        self.status.failures += 1
        said = str(error)
        if self.status.failing_since is None or (error.terminal and said != self.status.error):
            log.warning("issuer_failing", issuer="vault", error=said)
        self.status.failing_since = self.status.failing_since or time.time()
        self.status.error = said
        remaining = leaf.not_after.timestamp() - time.time() if leaf is not None else 0.0
        return 0.05 + retry_pause(self.status.failures, remaining, random.random())


def _data(answer: Any) -> dict[str, Any]:
    data: dict[str, Any] = answer["data"]
    return data


def _refuse_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    if response.is_redirect or 300 <= response.status_code < 400:  # noqa: PLR2004
        message = f"status {response.status_code}: a standby that points elsewhere? Use the active node's address"
        raise IssuerUnreachable(message)


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
