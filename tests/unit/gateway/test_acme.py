from __future__ import annotations

from pathlib import Path

import pytest

from gateway.acme import wrong_directory
from gateway.config import read_gateway
from policies.edge.acme import AcmeCertificate
from policies.edge.tls import CertificateSettings
from policies.errors import ConfigError


def read(tmp_path: Path, text: str) -> dict[str, CertificateSettings]:
    file = tmp_path / "edge.yaml"
    file.write_text(f"gateway: {{service: edge, address: 127.0.0.1:8443}}\ntls:\n  certificates:\n{text}\n")
    edge = read_gateway(file, {}).edge
    assert edge is not None
    return dict(edge.tls.certificates)


def test_every_word_is_read(tmp_path: Path) -> None:
    text = """
    - acme: {directory: "https://ca/directory", agree_terms_of_service: true, names: [Shop.com], state_dir: /var/acme}
    - name: all
      acme:
        directory: http://127.0.0.1:8200/v1/pki/acme/directory
        agree_terms_of_service: true
        email: o@example.com
        names: [a.com, b.com, a.com.]
        challenge: tls-alpn-01
        state_dir: /var/acme
        ca_file: /etc/ca.pem
        eab_key_id: customer-1
        eab_hmac_file: /etc/hmac
"""
    assert read(tmp_path, text) == {
        "shop.com": AcmeCertificate("https://ca/directory", ("shop.com",), "/var/acme"),
        "all": AcmeCertificate(
            "http://127.0.0.1:8200/v1/pki/acme/directory",
            ("a.com", "b.com"),
            "/var/acme",
            "tls-alpn-01",
            "o@example.com",
            "/etc/ca.pem",
            "customer-1",
            "/etc/hmac",
        ),
    }


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = """
    - acme: {directory: "http://ca/directory", names: ["*.a.com", 192.0.2.1], challenge: dns-01, eab_key_id: x}
    - acme: {agree_terms_of_service: false, state: /x}
"""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    told = [str(problem) for problem in caught.value.problems]
    for words in (
        "directory: 'http://ca/directory' is not an https:// URL",
        "names: '*.a.com' a wildcard is proved by DNS alone",
        "names: '192.0.2.1' is an IP address",
        "challenge: 'dns-01' is not one of http-01, tls-alpn-01",
        "state_dir: is missing",
        "agree_terms_of_service: is not true",
        "eab_key_id: stands alone",
        "directory: is missing",
        "names: is missing",
        "state: is not a known field",
    ):
        assert any(words in one for one in told), (words, told)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://acme.example.com/directory", True),
        ("http://127.0.0.1:8200/v1/pki/acme/directory", True),
        ("http://[::1]/directory", True),
        ("http://localhost/directory", True),
        ("http://acme.example.com/directory", False),
        ("http://127.evil.example/directory", False),
        ("https://", False),
        ("https://[", False),
        ("acme.example.com", False),
    ],
)
def test_a_directory_is_reached_over_tls_or_on_this_machine(url: str, *, good: bool) -> None:
    assert (wrong_directory(url) == "") is good
