"""Who a peer is: SPIFFE IDs and leaf certificates, made only by parsing.

A value of one of these types is valid; the rest of the program never re-checks it.
Source: the SPIFFE-ID and X509-SVID standards; Consul's layout `spiffe://<trust domain>/ns/default/dc/<dc>/svc/<name>`.
OpenSSL has checked chain, dates and purpose before `verify_peer` is asked; it lets through a CA as leaf, several URI
SANs and none at all, so those are checked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from policies.errors import IdentityError

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH = re.compile(
    r"/(?:ap/(?P<partition>[^/]+)/)?ns/(?P<namespace>[^/]+)/dc/(?P<datacenter>[^/]+)/svc/(?P<service>[^/]+)"
)
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x20/?#\\\x7f]")
_MAX_URI = 2048
_E = TypeVar("_E", bound=x509.ExtensionType)


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
        leaf = x509.load_der_x509_certificate(certificate)
        extensions = leaf.extensions
    except ValueError as error:
        raise IdentityError("unreadable", f"the certificate cannot be read: {error}") from error
    if now > leaf.not_valid_after_utc:
        raise IdentityError("expired", f"the certificate ended at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if now < leaf.not_valid_before_utc:
        raise IdentityError(
            "not_yet_valid", f"the certificate starts at {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        )
    _check_is_leaf(extensions)
    spiffe_id = SpiffeId.parse(only_uri(extensions))
    if spiffe_id.trust_domain != trust_domain.lower():
        raise IdentityError("wrong_trust_domain", f"{spiffe_id} is not of trust domain {trust_domain}")
    return Peer(spiffe_id, leaf.not_valid_after_utc)


def _check_is_leaf(extensions: x509.Extensions) -> None:
    """Refuse a certificate that may sign others, or that is for neither end of a TLS connection."""
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (usage is not None and (usage.key_cert_sign or usage.crl_sign)):
        raise IdentityError("ca_certificate", "the certificate may sign others: it is no leaf")
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    tls = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    if purposes is not None and not tls & set(purposes):
        raise IdentityError("wrong_usage", "the certificate is not for TLS")


def only_uri(extensions: x509.Extensions) -> str:
    """Return the one URI among the subject alternative names. Raise IdentityError (`no_san`, `two_uris`)."""
    names = _extension(extensions, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    if not uris:
        raise IdentityError("no_san", "the certificate names no URI")
    if len(uris) > 1:
        raise IdentityError("two_uris", f"the certificate names {len(uris)} URIs, a SPIFFE ID must be alone")
    return uris[0]


def _extension(extensions: x509.Extensions, kind: type[_E]) -> _E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
