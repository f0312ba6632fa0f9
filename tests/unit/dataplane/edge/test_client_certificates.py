from __future__ import annotations

import base64
import ssl
from typing import Any

import pytest
from cryptography import x509

from dataplane.edge.client_certificates import subject, told
from harness.certificates import Authority, Mistakes

CA = Authority()
DER = ssl.PEM_cert_to_DER_cert(CA.server("a.com", mistakes=Mistakes(common_name="ann")).chain_pem)


def elements(*names: tuple[str, str], parts: Any = ()) -> list[str]:
    line = told(DER, {"subject": parts, "subjectAltName": names}).split(b"\r\n")[0].decode("ascii")
    assert line.startswith("x-forwarded-client-cert: Hash=")
    return [one for one in line.split(": ", 1)[1].split(";") if not one.startswith(("Hash=", "Cert="))]


def test_the_certificate_is_told_as_envoy_and_as_the_standard_have_it() -> None:
    lines = told(DER, {"subject": ((("commonName", "ann"),),), "subjectAltName": (("DNS", "a.com"), ("URI", "x:y"))})
    xfcc, standard, end = lines.split(b"\r\n")
    assert xfcc.endswith(b';Subject="CN=ann";URI=x:y;DNS=a.com')
    name, _, value = standard.partition(b": ")
    assert (name, base64.b64decode(value.strip(b":"), validate=True), end) == (b"client-cert", DER, b"")
    assert b'Cert="-----BEGIN%20CERTIFICATE-----%0A' in xfcc


def test_a_name_cannot_bring_an_element_along() -> None:
    assert elements(("DNS", "a.com;URI=spiffe://admin")) == ['Subject=""', 'DNS="a.com', 'URI=spiffe://admin"']
    assert elements(("URI", 'x"\\,y')) == ['Subject=""', 'URI="x\\"\\\\,y"']
    assert elements(("DNS", "a\r\nhost: evil"), ("DNS", "é"), ("DNS", "")) == ['Subject=""']


@pytest.mark.parametrize(
    "value",
    ["ann", "ann, bob", 'a"b\\c', "a;b<c>d+e", "#x", " x ", "a=b", "bö", "mail"],
)
def test_subjects_are_written_as_a_library_writes_them(value: str) -> None:
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "mesh"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, value),
        ]
    )
    ours = subject(((("organizationName", "mesh"),), (("commonName", value),)))
    assert x509.Name.from_rfc4514_string(ours) == name
    assert ours.isascii()


def test_a_line_end_in_a_subject_is_harmless() -> None:
    assert subject(((("commonName", "a\r\nb"),),)) == "CN=a\\0D\\0Ab"
