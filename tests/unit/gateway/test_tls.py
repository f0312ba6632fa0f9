from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import read_gateway
from policies.edge.tls import (
    EdgeTls,
    FileCertificate,
    Hsts,
    PortWords,
    RedirectToTls,
    VaultCertificate,
)
from policies.errors import ConfigError

HEAD = """
gateway: {service: edge, address: '192.0.2.10:8443', kind: KIND}
issuer: consul
vault: {address: 'https://vault:8200', auth: {method: token, token_file: /t}}
"""


def read(folder: Path, text: str, kind: str = "ingress", head: str = HEAD) -> EdgeTls:
    file = folder / "edge.yaml"
    file.write_text(head.replace("KIND", kind) + text)
    edge = read_gateway(file, {}).edge
    assert edge is not None
    return edge.tls


def test_everything_that_can_be_said_is_read(tmp_path: Path) -> None:
    text = """
tls:
  certificates:
    - {cert_file: /etc/web.pem, key_file: /etc/web.key}
    - {name: inside, vault_role: edge, mount: pki, names: [A.example.com., "*.b.com"], ttl: 24h}
    - {vault_role: other}
  domain: Mesh.
  hsts: {max_age: 8760h, include_subdomains: true, preload: true}
  redirect: {port: 8443}
  client_ca_file: /etc/callers.pem
  ports:
    - {port: 8443, require_client_certificate: true, strict_sni: true}
    - {port: 8080, redirect: {port: 9443, status: 301}, client_ca_file: ""}
"""
    hsts = Hsts(31_536_000, include_subdomains=True, preload=True)
    assert read(tmp_path, text) == EdgeTls(
        certificates={
            "web": FileCertificate("/etc/web.pem", "/etc/web.key"),
            "inside": VaultCertificate("pki", "edge", ("a.example.com", "*.b.com"), "24h"),
            "other": VaultCertificate("pki_edge", "other", ()),
        },
        everywhere=PortWords(RedirectToTls(8443), hsts, "/etc/callers.pem"),
        ports={
            8443: PortWords(RedirectToTls(8443), hsts, "/etc/callers.pem", True, True),
            8080: PortWords(RedirectToTls(9443, 301), hsts, ""),
        },
        domain="mesh",
    )


def test_without_a_word_nothing_is_said(tmp_path: Path) -> None:
    assert read(tmp_path, "") == EdgeTls()


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = """
tls:
  certificates:
    - {cert_file: /etc/web.pem}
    - {name: a, vault_role: edge, names: ["é.com", "*"]}
    - {name: a, cert_file: x, key_file: y}
  require_client_certificate: true
  hsts: {include_subdomains: true}
  redirect: {port: 99999, status: 302}
  ports: [{port: 1}, {port: 1, tls: no}]
"""
    head = HEAD.replace("vault: {address: 'https://vault:8200', auth: {method: token, token_file: /t}}\n", "")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, head=head)
    told = "\n".join(str(problem) for problem in caught.value.problems)
    for word in (
        "key_file: is missing",
        "there is no `vault` block",
        "'é.com' is no DNS name",
        "'*' is no DNS name",
        "'a' is there already",
        "needs to know who may sign them",
        "max_age: is missing",
        "99999 is not a port",
        "302 is not one of 301, 308",
        "1 is there already",
        "tls: is not a known field",
    ):
        assert word in told, word
