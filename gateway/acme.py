"""A certificate by ACME, in the YAML's `tls: certificates:`.

- name: shop                             # the first of its names by default
  acme:
    directory: https://acme-v02.api.letsencrypt.org/directory
    agree_terms_of_service: true
    email: operator@example.com
    names: [shop.example.com, www.shop.example.com]
    challenge: http-01                   # or tls-alpn-01
    state_dir: /var/lib/lictor/acme
    ca_file: /etc/lictor/acme-ca.pem     # of the directory's own TLS, where the system does not know it
    eab_key_id: ...                      # where the CA binds accounts to its customers
    eab_hmac_file: /etc/lictor/eab-key
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from policies.edge.acme import HTTP_01, TLS_ALPN_01, AcmeCertificate, wrong_name
from policies.edge.server_certificates import canonical_name
from sidecar.yaml_reader import Section


def read_acme(block: Section) -> AcmeCertificate:
    """Return what stands there; mistakes are noted at the block."""
    names = tuple(canonical_name(name) for name in block.texts("names"))
    if not names:
        block.note("names", "is missing", "add `names: [shop.example.com]`")
    for name in names:
        if wrong := wrong_name(name):
            block.note("names", f"{name!r} {wrong}", "write DNS names in ASCII (xn--...)")
    found = AcmeCertificate(
        directory=block.text("directory", required=True),
        names=tuple(dict.fromkeys(names)),
        state_dir=block.text("state_dir", required=True),
        challenge=block.text("challenge", HTTP_01, choices=(HTTP_01, TLS_ALPN_01)),
        email=block.text("email"),
        ca_file=block.text("ca_file"),
        eab_key_id=block.text("eab_key_id"),
        eab_hmac_file=block.text("eab_hmac_file"),
    )
    if found.directory and (wrong := wrong_directory(found.directory)):
        block.note("directory", f"{found.directory!r} {wrong}", "whoever can change its answers gets certificates")
    if not block.flag("agree_terms_of_service"):
        block.note("agree_terms_of_service", "is not true", "read the CA's terms, then say so")
    if bool(found.eab_key_id) != bool(found.eab_hmac_file):
        block.note("eab_key_id", "stands alone", "give both eab_key_id and eab_hmac_file, or neither")
    block.done()
    return found


def wrong_directory(url: str) -> str:
    """Return why a directory is not to be trusted, "" if it is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "is not a URL"
    if parts.scheme == "https" and host:
        return ""
    if parts.scheme == "http" and (host == "localhost" or _is_loopback(host)):
        return ""
    return "is not an https:// URL"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
