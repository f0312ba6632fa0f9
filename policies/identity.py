"""Who a peer is: SPIFFE IDs and leaf certificates, made only by parsing.

A value of one of these types is valid; the rest of the program never re-checks it.
Source: the SPIFFE-ID and X509-SVID standards; Consul's layout `spiffe://<trust domain>/ns/default/dc/<dc>/svc/<name>`.
OpenSSL has checked chain, dates and purpose before `verify_peer` is asked; it lets through a CA as leaf, several URI
SANs and none at all, so those are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, unquote

from policies.certificates import read_certificate
from policies.errors import IdentityError

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH = re.compile(
    r"/(?:ap/(?P<partition>[^/]+)/)?ns/(?P<namespace>[^/]+)/dc/(?P<datacenter>[^/]+)/svc/(?P<service>[^/]+)"
)
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x20/?#\\\x7f]")
_MAX_URI = 2048


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A service's SPIFFE ID. `str()` gives the URI."""

    trust_domain: str
    datacenter: str
    service: str

    def __str__(self) -> str:
        """Return the URI, path parts escaped."""
        datacenter, service = quote(self.datacenter, safe=""), quote(self.service, safe="")
        return f"spiffe://{self.trust_domain}/ns/default/dc/{datacenter}/svc/{service}"

    @classmethod
    def parse(cls, uri: str) -> SpiffeId:
        """Return the ID in a URI. Raise IdentityError (`not_spiffe`, `not_a_service`)."""
        scheme, _, rest = uri.partition("://")
        host, slash, path = rest.partition("/")
        trust_domain = host.lower()
        if scheme.lower() != "spiffe" or not _TRUST_DOMAIN.fullmatch(trust_domain) or len(uri) > _MAX_URI:
            raise IdentityError("not_spiffe", f"{uri!r} is not a SPIFFE ID")
        if "?" in path or "#" in path:
            raise IdentityError("not_spiffe", f"{uri!r} has a query or a fragment, which a SPIFFE ID may not")
        found = _PATH.fullmatch(slash + path)
        if found is None:
            raise IdentityError("not_a_service", f"{uri!r} is not the ID of a service")
        if found["namespace"] != "default" or found["partition"] not in {None, "default"}:
            raise IdentityError("not_a_service", f"{uri!r} is of another namespace or partition than default")
        return cls(trust_domain, _name(uri, found["datacenter"]), _name(uri, found["service"]))


def sni_of(service: str, datacenter: str, trust_domain: str) -> str:
    """Return the SNI by which a service, or `subset.service`, is asked for, in lower case."""
    return f"{service}.default.{datacenter}.internal.{trust_domain}".lower()


def _name(uri: str, escaped: str) -> str:
    try:
        return parse_service_name(unquote(escaped, errors="strict"))
    except (IdentityError, UnicodeDecodeError) as error:
        raise IdentityError("not_a_service", f"{uri!r} names no service: {error}") from error


def parse_service_name(text: str) -> str:
    """Return the name if it can stand in a path and in a SPIFFE ID. Raise IdentityError (`bad_name`)."""
    if not text or text in {".", ".."} or _FORBIDDEN_IN_NAMES.search(text):
        raise IdentityError("bad_name", f"{text!r} cannot name a service: no blanks, slashes, dots alone")
    return text


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


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified peer: who it is, and until when its certificate says so."""

    spiffe_id: SpiffeId
    not_after: datetime


def verify_peer(certificate: bytes, trust_domain: str, now: datetime) -> Peer:
    """Return who a peer's certificate (DER) proves it to be.

    Raise IdentityError with the reason `unreadable`, `expired`, `not_yet_valid`, `ca_certificate`, `wrong_usage`,
    `no_san`, `two_uris`, `not_spiffe`, `not_a_service` or `wrong_trust_domain`.
    """
    try:
        leaf = read_certificate(certificate)
    except ValueError as error:
        raise IdentityError("unreadable", f"the certificate cannot be read: {error}") from error
    if now > leaf.not_after:
        raise IdentityError("expired", f"the certificate ended at {leaf.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if now < leaf.not_before:
        raise IdentityError("not_yet_valid", f"the certificate starts at {leaf.not_before:%Y-%m-%dT%H:%M:%SZ}")
    if leaf.signs:
        raise IdentityError("ca_certificate", "the certificate may sign others: it is no leaf")
    if not leaf.for_tls:
        raise IdentityError("wrong_usage", "the certificate is not for TLS")
    spiffe_id = SpiffeId.parse(_only(leaf.uris))
    if spiffe_id.trust_domain != trust_domain.lower():
        raise IdentityError("wrong_trust_domain", f"{spiffe_id} is not of trust domain {trust_domain}")
    return Peer(spiffe_id, leaf.not_after)


def _only(uris: Sequence[str]) -> str:
    if not uris:
        raise IdentityError("no_san", "the certificate names no URI")
    if len(uris) > 1:
        raise IdentityError("two_uris", f"the certificate names {len(uris)} URIs, a SPIFFE ID must be alone")
    return uris[0]
