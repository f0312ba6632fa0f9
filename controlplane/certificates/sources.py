"""Which source a certificate's settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controlplane.certificates import CertificateSource
from controlplane.certificates.entries import Entries, EntrySource
from controlplane.certificates.files import FileSource
from policies.edge.acme import AcmeCertificate
from policies.edge.tls import CertificateSettings, EntryCertificate, FileCertificate

if TYPE_CHECKING:
    from controlplane.certificates.acme_client import Answers
    from controlplane.issuer.session import VaultSession


def source_of(
    settings: CertificateSettings, entries: Entries, session: Callable[[], VaultSession], answers: Answers
) -> CertificateSource:
    """Return the source. `session` is asked for only where Vault is needed; `answers` is where ACME's CAs look."""
    match settings:
        case FileCertificate():
            return FileSource(settings)
        case AcmeCertificate():
            from controlplane.certificates.acme import AcmeSource  # noqa: PLC0415 - 9 MB that only its users pay

            return AcmeSource(settings, answers)
        case EntryCertificate():
            return EntrySource(settings, entries)
        case _:
            from controlplane.certificates.vault import VaultSource  # noqa: PLC0415 - 17 MB that only its users pay

            return VaultSource(settings, session())
