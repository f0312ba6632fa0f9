"""Who a peer is: trust domains, SPIFFE IDs and leaf certificates, made only by parsing.

A value of one of these types is valid; the rest of the program never re-checks it.
Source: SPIFFE-ID standard; Consul's layout `spiffe://<trust domain>/ns/default/dc/<dc>/svc/<service>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A service's SPIFFE ID. `str()` gives the URI."""

    trust_domain: str
    datacenter: str
    service: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"spiffe://{self.trust_domain}/ns/default/dc/{self.datacenter}/svc/{self.service}"


@dataclass(frozen=True, slots=True)
class Roots:
    """The trust bundle: every root that Consul lists, active or not (`/v1/agent/connect/ca/roots`)."""

    trust_domain: str
    active_id: str
    pems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf certificate with its key. The key is never shown."""

    spiffe_id: SpiffeId
    serial: str
    not_before: datetime
    not_after: datetime
    chain_pem: str
    key_pem: bytes = field(repr=False)
