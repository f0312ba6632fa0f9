"""Keys, signing requests, and the order of the chain that comes back. Keys are made here and stay in memory."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from policies.errors import BadLeaf
from policies.identity import SpiffeId

_LONGEST_COMMON_NAME = 64  # characters, ub-common-name of X.520


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> str:
    """Return a PEM request with an empty subject and this one URI."""
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(uri, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def server_request(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> str:
    """Return a PEM request for these DNS names. The first is the common name too, if it fits: roles ask for one."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name(names))] if common_name(names) else []
    listed = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).add_extension(listed, False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def common_name(names: Sequence[str]) -> str:
    """Return the first name if it can be a common name, else nothing."""
    return names[0] if names and len(names[0]) <= _LONGEST_COMMON_NAME else ""


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as PKCS 8, for the TLS library alone."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ordered_chain(pems: Sequence[str]) -> str:
    """Return the chain that Vault sent, the leaf first and then its issuers in order, as PEM. Raise BadLeaf.

    Roots are left out of the chain: peers have their own.
    """
    certificates = _load(pems)
    chain = _ordered(certificates[0], certificates[1:])
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain)


def _load(pems: Sequence[str]) -> list[x509.Certificate]:
    try:
        certificates = [one for pem in pems if pem.strip() for one in x509.load_pem_x509_certificates(pem.encode())]
    except ValueError as error:
        message = f"the issuer's answer holds no readable certificate: {error}"
        raise BadLeaf(message) from error
    if not certificates:
        message = "the issuer's answer holds no certificate"
        raise BadLeaf(message)
    return certificates


def _ordered(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Return the leaf and those who signed it, each once and in order, without self-signed roots."""
    chain, rest = [leaf], [one for one in others if one.issuer != one.subject or not _signed_by(one, one)]
    while True:
        signer = next((one for one in rest if one not in chain and _signed_by(chain[-1], one)), None)
        if signer is None:
            break
        chain.append(signer)
    # What does not sign the leaf's line may still be a bridge to another root: peers need it, after the line.
    extra = [one for index, one in enumerate(rest) if one not in chain and one not in rest[:index]]
    if len(chain) == 1 and others and not any(_signed_by(leaf, one) for one in others):
        message = "the issuer's chain does not begin with who signed the leaf"
        raise BadLeaf(message)
    return [*chain, *extra]


def _signed_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # another name, kind of key, or signature
        return False
    return True
