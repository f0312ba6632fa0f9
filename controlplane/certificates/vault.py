"""Certificates of the edge from a Vault PKI role: key and request with DNS names made here, renewed as leaves are."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from controlplane.certificates import SourceStatus, checked_pair
from controlplane.issuer.csr import common_name, new_key, ordered_chain, private_pem, server_request
from controlplane.issuer.renewal import renewed
from controlplane.issuer.session import VaultSession
from policies.edge.server_certificates import ServerCertificate, canonical_name
from policies.edge.tls import VaultCertificate
from policies.errors import BadServerCertificate


class VaultSource:
    """The source."""

    def __init__(self, settings: VaultCertificate, session: VaultSession) -> None:
        self.status = SourceStatus(f"Vault role {settings.mount}/{settings.role}")
        self._settings = settings
        self._session = session

    async def certificates(self) -> AsyncGenerator[ServerCertificate, None]:
        """Yield the first as soon as Vault gives it, then each next one in its time."""
        async for certificate in renewed(self._session, self.status, self._sign, "certificate_issued"):
            yield certificate

    async def _sign(self) -> ServerCertificate:
        settings, key = self._settings, new_key()
        names = settings.names
        body = {"csr": server_request(key, names), "alt_names": ",".join(names), "format": "pem"}
        if common_name(names):
            body["common_name"] = common_name(names)
        if settings.ttl:
            body["ttl"] = settings.ttl
        pems = await self._session.sign(settings.mount, settings.role, body, aside=True)
        certificate = checked_pair(ordered_chain(pems), private_pem(key), self.status.kind)
        lacking = [name for name in names if canonical_name(name) not in certificate.names]
        if lacking:
            message = f"{self.status.kind} signed a certificate without {', '.join(lacking)}"
            raise BadServerCertificate(message)
        return certificate
