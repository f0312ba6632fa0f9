"""Certificate signing requests for a dialogue with Vault: good ones, and those that a hostile sidecar might send."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

WEB = "spiffe://mesh.consul/ns/default/dc/dc1/svc/web"
DB = "spiffe://mesh.consul/ns/default/dc/dc1/svc/db"


def signing_requests() -> dict[str, str]:
    """Return requests as PEM, by the names that the dialogues use: each call has new keys."""
    return {
        "csr_web": _request(uris=[WEB]),
        "csr_db": _request(uris=[DB]),
        "csr_suffix": _request(uris=[f"{WEB}/x"]),
        "csr_both": _request(uris=[WEB, DB]),
        "csr_twice": _request(uris=[WEB, WEB]),
        "csr_nothing": _request(),
        "csr_named": _request(common_name="db", uris=[WEB]),
        "csr_dns": _request(dns=["web.example.com"]),
        "csr_dns_beside": _request(uris=[WEB], dns=["web.example.com"]),
        "csr_wildcard": _request(dns=["*.example.com"]),
        "csr_ip": _request(uris=[WEB], ips=["10.0.0.1"]),
        "csr_email": _request(uris=[WEB], emails=["a@example.com"]),
        "csr_ca": _request(uris=[WEB], ca=True),
        "csr_code": _request(uris=[WEB], usage=ExtendedKeyUsageOID.CODE_SIGNING),
        "csr_rsa": _request(uris=[WEB], key=rsa.generate_private_key(65537, 2048)),
        "csr_ed25519": _request(uris=[WEB], key=ed25519.Ed25519PrivateKey.generate()),
        "csr_p384": _request(uris=[WEB], key=ec.generate_private_key(ec.SECP384R1())),
        "csr_p224": _request(uris=[WEB], key=ec.generate_private_key(ec.SECP224R1())),
        "csr_common": _request(common_name="web.example.com"),
        "csr_tampered": _tampered(_request(common_name="tampered.example.com")),
    }


def _request(
    *,
    common_name: str = "",
    uris: Sequence[str] = (),
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    emails: Sequence[str] = (),
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    key: Any = None,
) -> str:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ip_address(address)) for address in ips]
    names += [x509.RFC822Name(address) for address in emails]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def _tampered(text: str) -> str:
    """Return a request whose name is not what was signed."""
    der = x509.load_pem_x509_csr(text.encode()).public_bytes(serialization.Encoding.DER)
    changed = der.replace(b"tampered", b"hampered")
    begin, _, rest = text.partition("\n")
    end = rest.strip().rpartition("\n")[2]
    return f"{begin}\n{encodebytes(changed).decode()}{end}\n"
