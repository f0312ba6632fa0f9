"""Where the certificates of the edge come from: files, a Vault role, Consul's entries.

A source is a stream of certificates of one reference: the first as soon as one can be had, then each next one. It
never ends and does not raise for what may get better; its `status` tells what is wrong meanwhile, and the last good
one stays.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from controlplane.issuer import IssuerStatus
from policies.edge.server_certificates import ServerCertificate, read_server_certificate
from policies.errors import BadServerCertificate

log = structlog.get_logger(__name__)

SourceStatus = IssuerStatus  # they stand as issuers do; `kind` says in words where from


class CertificateSource(Protocol):
    """A source of the certificates of one reference."""

    status: SourceStatus

    def certificates(self) -> AsyncIterator[ServerCertificate]:
        """Yield the certificate, and each next one before the last ends."""
        ...


def checked_pair(chain_pem: str, key_pem: bytes, source: str) -> ServerCertificate:
    """Return the certificate when the key fits it. Raise BadServerCertificate saying what is wrong, never the key."""
    certificate = read_server_certificate(chain_pem, key_pem, source)
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(chain_pem.encode() + b"\n" + key_pem)
        # An encrypted key is asked for its password on the terminal unless one is given here.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, ValueError) as error:
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        message = f"{source}: " + (
            "the key is of another certificate" if mismatch else f"the key is of no use: {error}"
        )
        raise BadServerCertificate(message) from error
    finally:
        os.close(descriptor)
    return certificate


def succeeded(status: SourceStatus, certificate: ServerCertificate) -> None:
    """Note that a source gave a certificate."""
    status.issued += 1
    status.succeed()
    log.info(
        "certificate_read",
        source=status.kind,
        names=certificate.names,
        serial=certificate.serial,
        ends=certificate.not_after.isoformat(),
    )


def failed(status: SourceStatus, error: Exception) -> None:
    """Note that a source could not give one, telling it once."""
    said = str(error)
    if said != status.error:
        log.warning("certificate_failing", source=status.kind, error=said)
    status.fail(said)
