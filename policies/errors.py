"""Every error that Lictor raises on purpose, in one tree.

    MeshError
    ├── ConfigError           the operator's file, flag or environment; carries every problem found
    ├── IdentityError         a certificate or SPIFFE ID that proves nothing
    ├── PreambleError         a connection that does not begin as its listener demands
    ├── FilterError           a go-bexpr filter that does not parse or does not fit its row
    ├── EntryError            a config entry or intention that cannot be understood; costs only itself
    │   └── ChainError        a discovery chain that cannot be compiled or read
    ├── CatalogError          Consul did not give what was asked
    │   ├── CatalogUnreachable    no connection, or it broke
    │   ├── CatalogTimedOut       no answer in time
    │   ├── CatalogRateLimited    429
    │   ├── CatalogFault          5xx, no leader
    │   ├── CatalogBadAnswer      an answer that is not what the API promises
    │   ├── CatalogForbidden      403: token missing, unknown or without permission      (terminal)
    │   ├── CatalogNotFound       404                                                    (terminal)
    │   └── CatalogRefused        other 4xx: the request itself is wrong                 (terminal)
    ├── IssuerError           no leaf
    │   ├── IssuerUnreachable     no connection, timeout, sealed, rate limited, 5xx
    │   ├── IssuerForbidden       credentials refused: a new login is needed             (terminal)
    │   ├── IssuerRefused         the request violates the role                          (terminal)
    │   ├── BadLeaf               an answer that is not the certificate that was asked for
    │   └── BadServerCertificate  a certificate for the edge that cannot be shown to anybody
    └── UpstreamError         the other end of a proxied exchange
        ├── ConnectFailed
        │   ├── LeafEnded         it was not even tried: our own leaf has ended
        │   └── NameNotResolved   there is no address to try
        └── ConnectTimedOut

`terminal` errors do not get better by asking again; everything else is retried with back-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class MeshError(Exception):
    """Root of the tree."""

    terminal: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, what is wrong, how to mend it."""

    where: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the problem as one line for a person."""
        text = f"{self.where}: {self.message}"
        return f"{text}; {self.fix}" if self.fix else text


def unknown_field(where: str, field: str) -> Problem:
    """Return the problem of a field that a later Consul may have, while all else of its entry is followed."""
    return Problem(where, f"its {field} is not understood", "it is not followed")


class ConfigError(MeshError):
    """The operator's input is wrong. Carries every problem at once, in the order of the input."""

    terminal = True

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class IdentityError(MeshError):
    """A peer or a SPIFFE ID proves nothing. `reason` is a short fixed word for counters, such as `two_uris`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PreambleError(MeshError):
    """A connection does not begin as its listener demands. `reason` is a short fixed word for counters."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FilterError(MeshError):
    """A filter does not parse, or its selector does not fit the row it is asked about."""


class EntryError(MeshError):
    """A config entry or intention that cannot be understood."""


class ChainError(EntryError):
    """A discovery chain that cannot be compiled or read."""


_TOKENS = "--token-file, CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN, or `consul: {token_file: ...}` of a file"


class CatalogError(MeshError):
    """Consul did not give what was asked. `where` is the method and path, never a token; `status` 0 is no answer.

    `advice` says where to look, "" where nobody knows.
    """

    status: int = 0

    @property
    def advice(self) -> str:
        """Return what to do about it."""
        return ""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(f"{where}: {detail}")
        self.where = where
        self.detail = detail


class CatalogUnreachable(CatalogError):
    """No connection to the agent, or it broke before the answer was whole."""

    @property
    def advice(self) -> str:
        """Return where the address comes from."""
        return "start it, or say where it is: --http-addr, CONSUL_HTTP_ADDR, or `consul: {address: ...}` of a file"


class CatalogTimedOut(CatalogError):
    """No answer in time."""


class CatalogRateLimited(CatalogError):
    """429: too many requests or connections."""


class CatalogFault(CatalogError):
    """5xx, among them "No cluster leader" and what Consul refuses of an entry."""

    @property
    def advice(self) -> str:
        """Return what to do about an entry that meets a service of tcp: so is one of which nobody has said a word."""
        if "protocol" in self.detail and '"tcp"' in self.detail:
            return 'write Protocol = "http" into its service-defaults first, if that is what it speaks'
        return ""


class CatalogBadAnswer(CatalogError):
    """An answer that is not what the API promises: not JSON, or of another shape."""


class CatalogForbidden(CatalogError):
    """403: the token is missing, unknown or lacks a permission."""

    terminal = True

    @property
    def advice(self) -> str:
        """Return what to do about the token."""
        if "ACL not found" in self.detail:
            return f"this Consul does not know the token: check {_TOKENS}"
        if "anonymous token" in self.detail:
            return f"no token was given: name one by {_TOKENS}"
        return "the token's policy lacks this permission"


class CatalogNotFound(CatalogError):
    """404. `index` is where a blocking query can wait for it to appear, or ""."""

    terminal = True
    index: str = ""


class CatalogRefused(CatalogError):
    """Another 4xx: the request itself is wrong."""

    terminal = True


class IssuerError(MeshError):
    """No leaf."""


class IssuerUnreachable(IssuerError):
    """The issuer cannot be asked just now: no connection, timeout, sealed, rate limited or 5xx."""


class IssuerForbidden(IssuerError):
    """The credentials are refused: a new login is needed."""

    terminal = True


class IssuerRefused(IssuerError):
    """The request violates the role; asking again does not help."""

    terminal = True


class BadLeaf(IssuerError):
    """The issuer answered with something else than the certificate that was asked for."""


class BadServerCertificate(IssuerError):
    """A certificate for the edge cannot be used: unreadable, of another key, or the settings do not fit it."""


class UpstreamError(MeshError):
    """The other end of a proxied exchange failed."""


class ConnectFailed(UpstreamError):
    """Refused, reset, or its certificate is not the expected one."""


class LeafEnded(ConnectFailed):
    """There is nothing to show the other end: our own leaf has ended. No fault of the endpoint."""


class NameNotResolved(ConnectFailed):
    """A host name has no address, or DNS does not say."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.detail = detail


class ConnectTimedOut(UpstreamError):
    """No connection within the connect timeout."""
