"""Where the agent is and how to speak to it: Consul's own environment variables, flags and a file's `consul` block.

Source: https://developer.hashicorp.com/consul/commands#environment-variables.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from policies.errors import ConfigError, Problem

log = structlog.get_logger(__name__)

DEFAULT_ADDRESS = "127.0.0.1:8500"
_TRUE = frozenset({"1", "t", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """The agent's address and credentials. `address` is as the user wrote it: host:port, URL or unix://path."""

    address: str = DEFAULT_ADDRESS
    token: str = field(default="", repr=False)
    token_file: str = ""
    basic_auth: str = field(default="", repr=False)
    tls: bool = False
    verify: bool = True
    ca_file: str = ""
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_server_name: str = ""

    @property
    def socket_path(self) -> str:
        """Return the path of the agent's unix socket, or ""."""
        return self.address.removeprefix("unix://") if self.address.startswith("unix://") else ""

    @property
    def base_url(self) -> str:
        """Return the URL that API paths are appended to."""
        if self.socket_path:
            return "http://localhost"
        scheme, _, rest = self.address.rpartition("://")
        scheme = "https" if self.tls and scheme in {"", "http"} else scheme or "http"
        return f"{scheme}://{rest.rstrip('/')}"

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach the agent: a unix socket or loopback."""
        host = urlsplit(self.base_url).hostname or ""
        if self.socket_path or host == "localhost":
            return True
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return False

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the context for an https agent, else None. Raise ConfigError for files that do not load."""
        if not self.base_url.startswith("https://"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None, capath=self.ca_path or None)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client_cert:
                context.load_cert_chain(self.client_cert, self.client_key or None)
        except (OSError, ssl.SSLError) as error:
            where = "Consul TLS files"
            raise ConfigError((Problem(where, str(error), "check CONSUL_CACERT, CONSUL_CLIENT_CERT, _KEY"),)) from error
        return context


class Token:
    """The agent's token as it is now: a token file is read anew, so that a rotated one is taken up.

    A file that cannot be read or is empty, as it is for a moment while somebody writes it, does not make us anonymous:
    the last token stays. Told once each way.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._file = settings.token_file
        self._last = "" if self._file else settings.token
        self._failing = False

    def __repr__(self) -> str:
        """Return everything but the value."""
        return f"Token(file={self._file!r})"

    def current(self) -> str:
        """Return the token, "" when there never was one."""
        if not self._file:
            return self._last
        try:
            found, error = Path(self._file).read_text(encoding="utf-8").strip(), "it is empty"
        except (OSError, ValueError) as reason:
            found, error = "", getattr(reason, "strerror", None) or "it is no text"
        if not found and not self._failing:
            effect = "the last token stays" if self._last else "requests go without a token"
            log.warning("token_file_failing", file=self._file, error=error, effect=effect)
        if found and self._failing:
            log.info("token_file_recovered", file=self._file)
        self._failing = not found
        self._last = found or self._last
        return self._last


def consul_settings(environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> ConsulSettings:
    """Return the settings from the environment, with overrides (flags, a file) by the same names on top.

    Raise ConfigError with every mistake: an address that is none, a file that is not there, a namespace.
    """
    values = {**environment, **{key: value for key, value in (overrides or {}).items() if value}}
    problems: list[Problem] = []
    settings = ConsulSettings(
        address=_address(values, problems),
        token=values.get("CONSUL_HTTP_TOKEN", ""),
        token_file=_file(values, "CONSUL_HTTP_TOKEN_FILE", problems),
        basic_auth=values.get("CONSUL_HTTP_AUTH", ""),
        tls=values.get("CONSUL_HTTP_SSL", "").lower() in _TRUE,
        verify=values.get("CONSUL_HTTP_SSL_VERIFY", "true").lower() in _TRUE,
        ca_file=_file(values, "CONSUL_CACERT", problems),
        ca_path=_file(values, "CONSUL_CAPATH", problems),
        client_cert=_file(values, "CONSUL_CLIENT_CERT", problems),
        client_key=_file(values, "CONSUL_CLIENT_KEY", problems),
        tls_server_name=values.get("CONSUL_TLS_SERVER_NAME", ""),
    )
    problems.extend(
        Problem(key, "namespaces and partitions are Consul Enterprise", f"unset {key}")
        for key in ("CONSUL_NAMESPACE", "CONSUL_PARTITION")
        if values.get(key, "default") not in {"", "default"}
    )
    if problems:
        raise ConfigError(tuple(problems))
    return settings


def _address(values: Mapping[str, str], problems: list[Problem]) -> str:
    address = values.get("CONSUL_HTTP_ADDR", "") or DEFAULT_ADDRESS
    if address.startswith("unix://"):
        return address
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        good = bool(parts.hostname) and parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        good = False
    if not good:
        fix = "write host:port, http://host:port, https://host:port or unix:///path"
        problems.append(Problem("CONSUL_HTTP_ADDR", f"{address!r} is not an address", fix))
        return DEFAULT_ADDRESS
    if parts.port is None and parts.scheme == "http" and "://" not in address:
        return f"{address}:8500"
    return address


def _file(values: Mapping[str, str], key: str, problems: list[Problem]) -> str:
    path = values.get(key, "")
    if path and not Path(path).exists():
        problems.append(Problem(key, f"{path} is not there", "name a file that this user may read"))
    return path
