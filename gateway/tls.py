"""The YAML's `tls`.

tls:
  certificates:                          # the first is shown where no other fits the name asked for
    - {name: web, cert_file: /etc/lictor/web.pem, key_file: /etc/lictor/web.key}
    - {name: edge, vault_role: edge, mount: pki_edge, names: [edge.example.com], ttl: 24h}
    - {acme: {...}}                      # see `acme` beside this module
    - {vault_role: edge}                 # without names: those that Consul would give an ingress gateway
  domain: consul                         # Consul's, for those
  hsts: {max_age: 8760h, include_subdomains: true, preload: false}
  redirect: {port: 8443, status: 308}    # of plaintext listeners, to this TLS listener
  client_ca_file: /etc/lictor/callers.pem
  require_client_certificate: true       # else a caller may come without
  strict_sni: true                       # close on names that no certificate is for
  ports:                                 # what differs on one port
    - {port: 8080, redirect: {port: 9443}}
"""

from __future__ import annotations

from pathlib import Path

from gateway.acme import read_acme
from policies.edge.server_certificates import canonical_name
from policies.edge.tls import (
    DEFAULT_DOMAIN,
    NO_WORDS,
    CertificateSettings,
    EdgeTls,
    FileCertificate,
    Hsts,
    PortWords,
    RedirectToTls,
    VaultCertificate,
)
from sidecar.yaml_reader import Section

_STATUSES = (301, 308)


def read_tls(document: Section) -> EdgeTls:
    """Return what stands there."""
    tls = document.section("tls")
    certificates: dict[str, CertificateSettings] = {}
    for row in tls.sections("certificates"):
        name, settings = _certificate(row, document)
        row.done()
        if name in certificates:
            row.note("name", f"{name!r} is there already", "give each certificate a name of its own")
        certificates[name] = settings
    domain = canonical_name(tls.text("domain", DEFAULT_DOMAIN))
    everywhere = _words(tls, NO_WORDS)
    ports: dict[int, PortWords] = {}
    for row in tls.sections("ports"):
        port = row.port("port", required=True)
        if port in ports:
            row.note("port", f"{port} is there already", "keep one of them")
        ports[port] = _words(row, everywhere)
        row.done()
    tls.done()
    return EdgeTls(certificates, everywhere, ports, domain)


def _certificate(row: Section, document: Section) -> tuple[str, CertificateSettings]:
    if row.has("acme"):
        ordered = read_acme(row.section("acme"))
        return row.text("name", ordered.names[0] if ordered.names else "acme"), ordered
    if row.has("vault_role"):
        role, mount = row.text("vault_role"), row.text("mount", "pki_edge")
        names = tuple(canonical_name(name) for name in row.texts("names"))
        if not document.has("vault"):
            row.note("vault_role", "there is no `vault` block", "add `vault: {address: ...}`")
        for name in names:
            if not name.isascii() or not name.strip("*."):
                row.note("names", f"{name!r} is no DNS name", "write it in ASCII (xn--...)")
        return row.text("name", role), VaultCertificate(mount, role, names, row.text("ttl"))
    cert_file, key_file = row.text("cert_file", required=True), row.text("key_file", required=True)
    return row.text("name", Path(cert_file).stem), FileCertificate(cert_file, key_file)


def _words(block: Section, general: PortWords) -> PortWords:
    """Return what is said here, and of what is not said the general."""
    words = PortWords(
        redirect=_redirect(block.section("redirect")) if block.has("redirect") else general.redirect,
        hsts=_hsts(block.section("hsts")) if block.has("hsts") else general.hsts,
        client_ca_file=block.text("client_ca_file", general.client_ca_file),
        require_client_certificate=block.flag("require_client_certificate", default=general.require_client_certificate),
        strict_sni=block.flag("strict_sni", default=general.strict_sni),
    )
    if words.require_client_certificate and not words.client_ca_file:
        block.note("require_client_certificate", "needs to know who may sign them", "add `client_ca_file: ...`")
    return words


def _redirect(block: Section) -> RedirectToTls:
    port, status = block.port("port", required=True), block.number("status", 308)
    if status not in _STATUSES:
        block.note("status", f"{status} is not one of 301, 308", "308 keeps the method")
    block.done()
    return RedirectToTls(port, status)


def _hsts(block: Section) -> Hsts:
    if not block.has("max_age"):
        block.note("max_age", "is missing", "add `max_age: 8760h`")
    age = block.duration("max_age", 0)
    if age < 0:
        block.note("max_age", "is negative")
    found = Hsts(int(age), block.flag("include_subdomains"), block.flag("preload"))
    block.done()
    return found
