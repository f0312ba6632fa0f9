"""Certificates by ACME (RFC 8555): what the operator says, when to ask again, and what a CA comes and asks for.

A challenge that is pending is offered to the data path as one of two values: a text to be read over plaintext HTTP
(RFC 8555, section 8.3), or a certificate to be seen in a TLS handshake of its own (RFC 8737).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from policies.rotation import RenewalPolicy

HTTP_01, TLS_ALPN_01 = "http-01", "tls-alpn-01"
WELL_KNOWN = "/.well-known/acme-challenge/"
ALPN = "acme-tls/1"

# Public CAs count what they sign and what they refuse. Between these points of its life a certificate is renewed.
RENEWAL = RenewalPolicy(earliest=2 / 3, latest=0.72)
REFUSED = RenewalPolicy(first_retry=60.0, longest_retry=3600.0)  # Let's Encrypt lets a name fail five times an hour
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class AcmeCertificate:
    """A certificate for `names` from the CA with this `directory`.

    `state_dir` keeps account and certificates over a restart. `ca_file` "" trusts the system's roots for the directory
    itself; `eab_key_id` "" binds the account to nothing (`eab_hmac_file` holds the key in base64url).
    """

    directory: str
    names: tuple[str, ...]
    state_dir: str
    challenge: str = HTTP_01
    email: str = ""
    ca_file: str = ""
    eab_key_id: str = ""
    eab_hmac_file: str = ""


@dataclass(frozen=True, slots=True)
class HttpChallenge:
    """A CA will ask for the token, and has to be answered with the key authorization."""

    token: str
    key_authorization: str


@dataclass(frozen=True, slots=True)
class TlsChallenge:
    """A CA will shake hands for the name, and has to be shown this certificate."""

    name: str
    chain_pem: str
    key_pem: bytes = field(repr=False)


AcmeChallenge = HttpChallenge | TlsChallenge


def wrong_name(name: str) -> str:
    """Return why these challenges cannot prove a name, "" if they can."""
    if name.startswith("*."):
        return "a wildcard is proved by DNS alone, which is not done here"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.split(".")
        well_made = len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)  # noqa: PLR2004 - RFC 1035
        return "" if well_made else "is not a DNS name"
    return "is an IP address, expected a DNS name"
