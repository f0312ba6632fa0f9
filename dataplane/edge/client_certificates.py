"""What a gateway tells the service of a caller's certificate, in fields that no caller can write itself.

`X-Forwarded-Client-Cert` as Envoy has it (elements Hash, Cert, Subject, URI, DNS; `By` is for certificates that name a
URI, which those of the edge do not), and `Client-Cert` of RFC 9440, which passes the sidecars unchanged.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from dataplane.clock import NEVER

_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "userId": "UID",
}
_PLAIN = re.compile(r"[!-~]+")  # what a name in a certificate may be to be told at all
_SPECIAL = re.compile(r'[,;="\\]')  # what would end an element, so that a name could bring others along


def caller_lines(transport: asyncio.BaseTransport) -> bytes:
    """Return the field lines about the verified certificate of a caller; none where it came without."""
    der = transport.get_extra_info("certificate")
    facts = transport.get_extra_info("peercert") if der else None
    return told(der, facts) if facts else b""


def caller_ends(transport: asyncio.BaseTransport) -> float:
    """Return when the verified certificate of a caller ends (seconds since the epoch); never where it came without."""
    facts = transport.get_extra_info("peercert")
    return float(ssl.cert_time_to_seconds(facts["notAfter"])) if facts else NEVER


def told(der: bytes, facts: dict[str, Any]) -> bytes:
    """Return the lines about a certificate. `facts` are what `SSLSocket.getpeercert` says of it."""
    names = [(kind, name) for kind, name in facts.get("subjectAltName", ()) if _PLAIN.fullmatch(name)]
    elements = [
        f"Hash={hashlib.sha256(der).hexdigest()}",
        f'Cert="{quote(ssl.DER_cert_to_PEM_cert(der), safe="")}"',
        f'Subject="{subject(facts.get("subject", ()))}"',
        *(f"{word}={_value(name)}" for word in ("URI", "DNS") for kind, name in names if kind == word),
    ]
    encoded = base64.b64encode(der)
    return b"x-forwarded-client-cert: %b\r\nclient-cert: :%b:\r\n" % (";".join(elements).encode(), encoded)


def _value(name: str) -> str:
    if not _SPECIAL.search(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def subject(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    r"""Return a subject as RFC 2253 writes it, the last part first, in ASCII: `CN=ann\, bob,O=mesh`."""
    written = ["+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part) for part in parts]
    return ",".join(reversed(written))


def _escaped(value: str) -> str:
    text = "".join(_character(one) for one in value)
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(value) > 1 else text


def _character(one: str) -> str:
    if one in ',+"\\<>;':
        return "\\" + one
    if " " <= one <= "~":
        return one
    return "".join(f"\\{octet:02X}" for octet in one.encode("utf-8", "replace"))
