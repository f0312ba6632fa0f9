"""The conversation with an ACME CA, by certbot's library: account, order, proof of each name, certificate.

The library is synchronous: each of its calls runs in a thread, with a time limit, and what is waited for in between is
waited for here. The only importer of `acme` and `josepy`, itself imported where a file asks for ACME.
Source: RFC 8555; RFC 8737 for tls-alpn-01, which the library leaves to its users.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests
from acme import challenges, client, errors, messages
from acme.crypto_util import make_csr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from controlplane.certificates.acme_state import Account, AcmeState
from controlplane.issuer.csr import new_key, private_pem
from policies.edge.acme import TLS_ALPN_01, AcmeCertificate, AcmeChallenge, HttpChallenge, TlsChallenge
from policies.errors import IssuerError, IssuerRefused, IssuerUnreachable

CALL_SECONDS = 10
PROOF_SECONDS = 60.0  # for a CA to come and look
ISSUE_SECONDS = 60.0  # and to sign
LOOK_SECONDS = 0.5
_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_T = TypeVar("_T")


class Answers(Protocol):
    """Where challenges are put for the CA to find them."""

    def offer(self, challenge: AcmeChallenge) -> None:
        """Answer it from now on."""
        ...

    def withdraw(self, challenge: AcmeChallenge) -> None:
        """Know nothing of it any more."""
        ...


@challenges.ChallengeResponse.register
class _TlsAlpnResponse(challenges.KeyAuthorizationChallengeResponse):
    typ = TLS_ALPN_01


@challenges.Challenge.register
class _TlsAlpn(challenges.KeyAuthorizationChallenge):
    response_cls = _TlsAlpnResponse
    typ = TLS_ALPN_01

    def validation(self, account_key: JWK, **_: Any) -> str:
        return self.key_authorization(account_key)


class AcmeClient:
    """One certificate's client."""

    def __init__(self, settings: AcmeCertificate, state: AcmeState, answers: Answers) -> None:
        self._settings = settings
        self._state = state
        self._answers = answers
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="acme")

    def close(self) -> None:
        """Let go of the thread; a call under way ends with its time limit."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def obtain(self) -> tuple[str, bytes]:
        """Return a new certificate with its chain, and its key, both PEM.

        Raise IssuerUnreachable when the CA cannot be asked, IssuerRefused with its words when it says no.
        """
        key = private_pem(new_key())
        ca = await self._call(self._connect)
        order = await self._call(ca.new_order, make_csr(key, list(self._settings.names)))
        for authorization in order.authorizations:
            if authorization.body.status != messages.STATUS_VALID:
                await self._prove(ca, authorization)
        order = await self._call(_finalized, ca, order)
        end = asyncio.get_running_loop().time() + ISSUE_SECONDS
        while not order.fullchain_pem and asyncio.get_running_loop().time() < end:
            order = await self._call(_looked_at, ca, order)
        if not order.fullchain_pem:
            message = f"the CA has not signed within {ISSUE_SECONDS:g} s"
            raise IssuerUnreachable(message)
        return str(order.fullchain_pem), key

    # --- the account ---

    def _connect(self) -> client.ClientV2:
        known = self._state.account()
        key = JWKEC.from_json(known.key) if known is not None else JWKEC(key=new_key())
        network = client.ClientNetwork(
            key,
            alg=ES256,
            verify_ssl=self._settings.ca_file or True,  # type: ignore[arg-type] # it is handed on to requests
            user_agent="lictor",
            timeout=CALL_SECONDS,
        )
        ca = client.ClientV2(client.ClientV2.get_directory(self._settings.directory, network), network)
        if known is not None:
            if self._is_known(ca, known):
                return ca
            network.key = key = JWKEC(key=new_key())  # that of an account that was closed is refused for good
        network.account = None
        uri = self._register(ca, key)
        self._state.keep_account(Account(uri, key.to_json()))
        return ca

    @staticmethod
    def _is_known(ca: client.ClientV2, account: Account) -> bool:
        resource = messages.RegistrationResource(uri=account.uri, body=messages.Registration())
        try:
            ca.net.account = ca.query_registration(resource)
        except messages.Error as error:
            if error.code not in {"accountDoesNotExist", "unauthorized"}:
                raise
            return False
        return ca.net.account.body.status in {None, messages.STATUS_VALID}

    def _register(self, ca: client.ClientV2, key: Any) -> str:
        binding = None
        if self._settings.eab_key_id:
            secret = Path(self._settings.eab_hmac_file).read_text(encoding="ascii").strip()
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), self._settings.eab_key_id, secret, ca.directory
            )
        wanted = messages.NewRegistration.from_data(
            email=self._settings.email or None, terms_of_service_agreed=True, external_account_binding=binding
        )
        try:
            made = ca.new_account(wanted)
        except errors.ConflictError as error:  # it knows this key
            made = messages.RegistrationResource(uri=error.location, body=messages.Registration())
        ca.net.account = made
        return str(made.uri)

    # --- the proof ---

    async def _prove(self, ca: client.ClientV2, authorization: messages.AuthorizationResource) -> None:
        name = str(authorization.body.identifier.value)
        offered = [one for one in authorization.body.challenges if one.chall.typ == self._settings.challenge]
        if not offered:
            kinds = ", ".join(sorted(one.chall.typ for one in authorization.body.challenges))
            message = f"the CA does not prove {name} by {self._settings.challenge}, but by {kinds}"
            raise IssuerRefused(message)
        response, key_authorization = offered[0].response_and_validation(ca.net.key)
        pending = _pending(self._settings.challenge, name, offered[0].chall, key_authorization)
        self._answers.offer(pending)
        try:
            await self._call(ca.answer_challenge, offered[0], response)
            end = asyncio.get_running_loop().time() + PROOF_SECONDS
            while authorization.body.status == messages.STATUS_PENDING and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(LOOK_SECONDS)
                authorization, _ = await self._call(ca.poll, authorization)
        finally:
            self._answers.withdraw(pending)
        if authorization.body.status != messages.STATUS_VALID:
            said = "; ".join(_words(one.error) for one in authorization.body.challenges if one.error is not None)
            message = f"the CA does not find {name} proved by {self._settings.challenge}: "
            raise IssuerRefused(message + (said or f"still {authorization.body.status.name}"))

    # --- calls ---

    async def _call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Do blocking work in the thread; raise the library's errors as ours."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except IssuerError:
            raise
        except messages.Error as error:
            if not messages.is_acme_error(error) or error.code == "serverInternal":
                said = _words(error) or "an error that is none of ACME's: is it sealed, or is this no directory?"
                message = f"the CA cannot be asked: {said}"
                raise IssuerUnreachable(message) from error
            message = f"the CA refuses: {_words(error)}"
            raise IssuerRefused(message) from error
        except errors.IssuanceError as error:
            message = f"the CA does not sign: {_words(error.error)}"
            raise IssuerRefused(message) from error
        except (requests.RequestException, errors.Error, OSError) as error:
            message = f"the CA cannot be asked: {type(error).__name__}: {str(error)[:200]}"
            raise IssuerUnreachable(message) from error
        except (JoseError, KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"the CA's answer is not what ACME promises: {error!r:.200}"
            raise IssuerUnreachable(message) from error


def _finalized(ca: client.ClientV2, order: messages.OrderResource) -> messages.OrderResource:
    try:
        return ca.begin_finalization(order)
    except messages.Error as error:
        if error.code != "orderNotReady":
            raise
        return order  # it is asked again while it is looked at


def _looked_at(ca: client.ClientV2, order: messages.OrderResource) -> messages.OrderResource:
    """Return the order with its certificate, or as it was when that is not there in a moment."""
    try:
        return ca.poll_finalization(order, datetime.now() + timedelta(seconds=2))  # noqa: DTZ005 - the library's clock
    except errors.TimeoutError:
        return order


def _pending(kind: str, name: str, challenge: Any, key_authorization: str) -> AcmeChallenge:
    if kind == TLS_ALPN_01:
        return challenge_certificate(name, key_authorization)
    return HttpChallenge(str(challenge.encode("token")), key_authorization)


def challenge_certificate(name: str, key_authorization: str) -> TlsChallenge:
    """Return the self-signed certificate of RFC 8737: one name, and what proves it in a critical extension."""
    key, now = new_key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lictor")])
    digest = hashlib.sha256(key_authorization.encode()).digest()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    return TlsChallenge(name, certificate.public_bytes(serialization.Encoding.PEM).decode(), private_pem(key))


def _words(error: messages.Error) -> str:
    """Return what the CA says is wrong, on one line."""
    parts = [str(error.code or ""), str(error.detail or "")]
    parts += [_words(one) for one in error.subproblems or ()]
    return " ".join(" ".join(part.split()) for part in parts if part)[:500]
