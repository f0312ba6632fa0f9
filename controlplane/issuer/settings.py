"""Where Vault is, which role signs, and how to log in. Secrets are named by file, never held in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.errors import ConfigError, Problem

METHODS = ("approle", "token", "jwt", "kubernetes", "cert")
_KUBERNETES_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """How to log in. Which files are needed depends on the method; see `needed`."""

    method: str = "approle"
    mount: str = ""  # of the auth method; its usual one by default
    role: str = ""  # of jwt, kubernetes and cert
    role_id_file: str = ""
    secret_id_file: str = ""
    wrapped: bool = True  # the secret-id file holds a wrapping token
    token_file: str = ""
    token: str = field(default="", repr=False)
    jwt_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def path(self) -> str:
        """Return the mount of the auth method."""
        return self.mount or self.method

    def needed(self) -> dict[str, str]:
        """Return the settings without which this method cannot log in, by name."""
        match self.method:
            case "approle":
                return {"role_id_file": self.role_id_file, "secret_id_file": self.secret_id_file}
            case "jwt":
                return {"jwt_file": self.jwt_file, "role": self.role}
            case "kubernetes":
                return {"role": self.role}
            case "cert":
                return {"cert_file": self.cert_file, "key_file": self.key_file}
            case _:
                return {} if self.token else {"token_file": self.token_file}


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """The Vault server and the role that signs our leaf. `ttl` "" leaves it to the role."""

    address: str
    mount: str = "pki_mesh"
    role: str = "mesh"
    ttl: str = ""
    ca_file: str = ""
    namespace: str = ""
    login: LoginSettings = field(default_factory=LoginSettings)


def check_vault(settings: VaultSettings, where: str) -> tuple[Problem, ...]:
    """Return what is wrong or missing, by field. Files of secrets may appear later; they need not be there yet."""
    problems = []
    if not settings.address.startswith(("http://", "https://")):
        problems.append(
            Problem(f"{where}.address", f"{settings.address!r} is not a URL", "write https://vault.example:8200")
        )
    if settings.ca_file and not Path(settings.ca_file).is_file():
        problems.append(Problem(f"{where}.ca_file", f"{settings.ca_file} is not there", "name a PEM file"))
    login = settings.login
    if login.method not in METHODS:
        problems.append(
            Problem(f"{where}.auth.method", f"{login.method!r} is not known", f"one of {', '.join(METHODS)}")
        )
        return tuple(problems)
    problems += [
        Problem(f"{where}.auth.{name}", f"is needed for {login.method}", f"add `{name}: ...`")
        for name, value in login.needed().items()
        if not value
    ]
    return tuple(problems)


def vault_settings(environment: Mapping[str, str]) -> VaultSettings | None:
    """Return the settings in the environment; None when Vault is not configured there.

    VAULT_ADDR alone is not enough, since many shells have it set: LICTOR_VAULT_ROLE says that it is meant for us.
    Raise ConfigError with every mistake.
    """
    address, role = environment.get("VAULT_ADDR", ""), environment.get("LICTOR_VAULT_ROLE", "")
    if not address or not role:
        return None

    def own(name: str, default: str = "") -> str:
        return environment.get(f"LICTOR_VAULT_{name}", default)

    settings = VaultSettings(
        address=address,
        mount=own("MOUNT", "pki_mesh"),
        role=role,
        ttl=own("TTL"),
        ca_file=environment.get("VAULT_CACERT", ""),
        namespace=environment.get("VAULT_NAMESPACE", ""),
        login=LoginSettings(
            method=own("AUTH", "approle"),
            mount=own("AUTH_MOUNT"),
            role=own("AUTH_ROLE"),
            role_id_file=own("ROLE_ID_FILE"),
            secret_id_file=own("SECRET_ID_FILE"),
            wrapped=own("WRAPPED", "true").lower() not in {"false", "0", "no"},
            token_file=own("TOKEN_FILE"),
            token=environment.get("VAULT_TOKEN", ""),
            jwt_file=own("JWT_FILE"),
            cert_file=own("CERT_FILE"),
            key_file=own("KEY_FILE"),
        ),
    )
    problems = check_vault(settings, "vault")
    if problems:
        raise ConfigError(problems)
    return settings


def kubernetes_token_file(login: LoginSettings) -> str:
    """Return where the service account's token is."""
    return login.jwt_file or _KUBERNETES_TOKEN
