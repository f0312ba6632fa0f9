"""The check of what an issuer sends back, before anybody is shown it."""

from __future__ import annotations

import os
import re
import ssl
from datetime import datetime

from policies.certificates import Certificate, read_certificate
from policies.errors import BadLeaf, IdentityError
from policies.identity import Leaf, SpiffeId, verify_peer

_PEM = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def checked_leaf(spiffe_id: SpiffeId, chain_pem: str, key_pem: bytes, now: datetime) -> Leaf:
    """Return the leaf that an issuer sent, as chain (the leaf first) and key. Raise BadLeaf saying what is wrong.

    The certificate must be for our key, name exactly our URI, be no CA and be valid now. That the chain leads to a root
    of the mesh is tried with a handshake before the leaf is put in force.
    """
    der, leaf = _first(chain_pem)
    try:
        peer = verify_peer(der, spiffe_id.trust_domain, now)
    except IdentityError as error:
        message = f"the issuer's certificate is no leaf of ours: {error}"
        raise BadLeaf(message) from error
    if peer.spiffe_id != spiffe_id:
        message = f"the issuer's certificate is for {peer.spiffe_id}, asked for was {spiffe_id}"
        raise BadLeaf(message)
    _check_key(chain_pem, key_pem)
    return Leaf(
        spiffe_id=spiffe_id,
        serial=f"{leaf.serial:x}",
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        chain_pem=chain_pem,
        key_pem=key_pem,
    )


def _first(chain_pem: str) -> tuple[bytes, Certificate]:
    found = _PEM.search(chain_pem)
    if found is None:
        message = "the issuer's answer holds no certificate"
        raise BadLeaf(message)
    try:
        der = ssl.PEM_cert_to_DER_cert(found[0])
        return der, read_certificate(der)
    except ValueError as error:
        message = f"the issuer's answer holds no readable certificate: {error}"
        raise BadLeaf(message) from error


def _check_key(chain_pem: str, key_pem: bytes) -> None:
    """Let OpenSSL compare certificate and key, which it reads from an anonymous file in memory."""
    descriptor = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(chain_pem.encode() + key_pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        message = (
            "the issuer's certificate is for another key" if mismatch else f"the issuer's key is of no use: {error}"
        )
        raise BadLeaf(message) from error
    finally:
        os.close(descriptor)
