from __future__ import annotations

from policies.edge.server_certificates import CertificateReference
from policies.edge.tls import (
    NO_WORDS,
    EdgeTls,
    EntryCertificate,
    FileCertificate,
    Hsts,
    ListenerTls,
    PortWords,
    settings_of,
)

WEB = FileCertificate("web.pem", "web.key")
EDGE = EdgeTls({"web": WEB}, everywhere=PortWords(strict_sni=True), ports={8080: NO_WORDS})
INLINE = CertificateReference("inline-certificate", "c1")


def test_a_reference_tells_where_its_certificate_comes_from() -> None:
    own, lost = CertificateReference("own", "web"), CertificateReference("own", "lost")
    assert settings_of(own, EDGE) == WEB
    assert settings_of(lost, EDGE) is None
    assert settings_of(INLINE, EDGE) == EntryCertificate("inline-certificate", "c1")
    assert EDGE.own_references() == (own,)
    assert ListenerTls((own,), {"a.com": INLINE, "b.com": own}).references() == (own, INLINE)


def test_a_ports_own_words_replace_those_for_all() -> None:
    assert EDGE.words(8443).strict_sni
    assert EDGE.words(8080) is NO_WORDS


def test_hsts_is_written_as_its_standard_says() -> None:
    assert str(Hsts(300)) == "max-age=300"
    assert str(Hsts(31536000, include_subdomains=True, preload=True)) == "max-age=31536000; includeSubDomains; preload"
