"""Logging in to Vault: each method turns files into a client token. Runs in the issuer's threads.

Credentials that were refused are not sent again until their file changes: a spent secret-id does not come back to
life, and unwrapping a wrapping token twice is what an alarm looks like.
Source: https://developer.hashicorp.com/vault/api-docs/auth, .../system/wrapping-unwrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import hvac.exceptions
import structlog

from controlplane.issuer.settings import LoginSettings, kubernetes_token_file
from policies.errors import IssuerForbidden, IssuerRefused

log = structlog.get_logger(__name__)

MakeClient = Callable[[str], hvac.Client]


@dataclass(slots=True)
class VaultToken:
    """A client token. `ttl` in seconds, 0 = it does not end; shown without its value."""

    value: str
    ttl: float
    renewable: bool

    def __repr__(self) -> str:
        """Return everything but the value."""
        return f"VaultToken(ttl={self.ttl}, renewable={self.renewable})"


class Login:
    """One way in. `make_client` gives a client for a token, which may be empty."""

    def __init__(self, settings: LoginSettings, make_client: MakeClient) -> None:
        self._settings = settings
        self._make_client = make_client
        self._refused = ""  # the credentials that were refused last
        self._spent = ""  # the wrapping token that we have unwrapped ourselves

    def __call__(self) -> VaultToken:
        """Return a token. Raise IssuerForbidden when the credentials at hand are of no use; hvac's errors pass."""
        match self._settings.method:
            case "approle":
                return self._approle()
            case "token":
                return self._token()
            case "jwt":
                return self._post({"role": self._settings.role, "jwt": _read(self._settings.jwt_file)})
            case "kubernetes":
                jwt = _read(kubernetes_token_file(self._settings))
                return self._post({"role": self._settings.role, "jwt": jwt})
            case _:
                return self._post({"name": self._settings.role} if self._settings.role else {})

    def _approle(self) -> VaultToken:
        role_id, secret = _read(self._settings.role_id_file), _read(self._settings.secret_id_file)
        self._check_new(secret)
        try:
            secret_id = secret
            if self._settings.wrapped:
                secret_id = self._unwrap(secret)
                self._spent = secret
            return self._post({"role_id": role_id, "secret_id": secret_id})
        except (IssuerForbidden, IssuerRefused, hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden):
            self._refused = secret
            raise

    def _check_new(self, secret: str) -> None:
        if secret == self._spent:
            message = (
                f"the wrapping token in {self._settings.secret_id_file} has served us already;"
                " write a new one there (vault/issue-secret-id.sh)"
            )
            raise IssuerForbidden(message)
        if secret == self._refused:
            message = (
                f"the secret-id in {self._settings.secret_id_file} was refused before;"
                " write a new one there (vault/issue-secret-id.sh)"
            )
            raise IssuerForbidden(message)

    def _unwrap(self, wrapping_token: str) -> str:
        """Return the wrapped secret-id, after making sure that it was wrapped where secret-ids are made."""
        client = self._make_client("")
        try:
            found = client.write_data("sys/wrapping/lookup", data={"token": wrapping_token})
            created_at = str(found["data"]["creation_path"])
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden, KeyError, TypeError) as error:
            log.error("secret_id_intercepted", file=self._settings.secret_id_file)
            message = (
                f"the wrapping token in {self._settings.secret_id_file} is unknown, spent or expired."
                " If it was delivered just now, somebody else may have unwrapped it: find out who. Then write a new one"
            )
            raise IssuerForbidden(message) from error
        expected = f"auth/{self._settings.path}/role/"
        if not (created_at.startswith(expected) and created_at.endswith("/secret-id")):
            message = f"the wrapping token was made at {created_at}, expected {expected}<service>/secret-id"
            raise IssuerRefused(message)
        return str(self._make_client(wrapping_token).sys.unwrap()["data"]["secret_id"])

    def _token(self) -> VaultToken:
        value = _read(self._settings.token_file) if self._settings.token_file else self._settings.token
        data = self._make_client(value).auth.token.lookup_self()["data"]
        return VaultToken(value, float(data.get("ttl") or 0), bool(data.get("renewable")))

    def _post(self, body: Mapping[str, Any]) -> VaultToken:
        client = self._make_client("")
        answer = client.adapter.post(f"/v1/auth/{self._settings.path}/login", json=dict(body))
        auth = answer["auth"]
        return VaultToken(str(auth["client_token"]), float(auth["lease_duration"]), bool(auth["renewable"]))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise IssuerForbidden(message) from error
