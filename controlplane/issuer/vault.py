"""Leaves from Vault's PKI: key and request made here, `sign/<role>`, the answer checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from controlplane.issuer import IssuerStatus
from controlplane.issuer.csr import new_key, ordered_chain, private_pem, signing_request
from controlplane.issuer.leaf import checked_leaf
from controlplane.issuer.renewal import renewed
from controlplane.issuer.session import VaultSession
from controlplane.issuer.settings import VaultSettings
from policies.identity import Leaf, SpiffeId


class VaultIssuer:
    """The issuer. Its session serves others as well."""

    def __init__(self, settings: VaultSettings) -> None:
        self.status = IssuerStatus("vault")
        self.session = VaultSession(settings)

    async def leaves(self, spiffe_id: SpiffeId, status: IssuerStatus | None = None) -> AsyncGenerator[Leaf, None]:
        """Yield the first leaf as soon as Vault gives it, then each next one in its time."""
        async for leaf in renewed(self.session, status or self.status, lambda: self._sign(spiffe_id), "leaf_issued"):
            yield leaf

    async def close(self) -> None:
        """Let go of threads and connections."""
        await self.session.close()

    async def _sign(self, spiffe_id: SpiffeId) -> Leaf:
        settings, key = self.session.settings, new_key()
        body = {"csr": signing_request(key, spiffe_id), "common_name": "", "format": "pem"}
        if settings.ttl:
            body["ttl"] = settings.ttl
        pems = await self.session.sign(settings.mount, settings.role, body)
        return checked_leaf(spiffe_id, ordered_chain(pems), private_pem(key), datetime.now(UTC))
