"""Where the certificates of this process come from: its own leaf, and what a gateway has besides.

A terminating gateway has a leaf for each linked service, the other gateways a certificate for each TLS listener. All of
it is on the control loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from controlplane.issuer import Issuer
from controlplane.issuer.consul import ConsulIssuer
from policies.errors import Problem
from policies.identity import Leaf, SpiffeId
from policies.snapshot import Role, Snapshot
from policies.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.certificates.follower import Certificates
    from controlplane.consul.catalog import Catalog
    from controlplane.issuer.linked import LinkedLeaves
    from controlplane.issuer.session import VaultSession
    from dataplane.edge.challenges import Challenges
    from policies.updates import Update
    from sidecar.settings import ProcessSettings


class Sources:
    """All of them. What they give becomes updates of the snapshot, by `take`.

    `challenges` is where the proofs are laid down that an ACME server asks for, of a gateway with listeners.
    """

    def __init__(
        self,
        settings: ProcessSettings,
        catalog: Catalog,
        challenges: Challenges | None,
        take: Callable[[Update], None],
    ) -> None:
        self._settings = settings
        self._pki: VaultSession | None = None
        self.issuer = self._make_issuer(catalog)
        self.linked = self._make_linked(take)
        self.certificates = self._make_certificates(catalog, challenges, take)

    def leaves(self, snapshot: Snapshot) -> AsyncIterator[Leaf] | None:
        """Return the stream of our own leaf as soon as the snapshot tells who we are."""
        spiffe_id = _spiffe_id(snapshot)
        return self.issuer.leaves(spiffe_id) if spiffe_id is not None else None

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """Return what goes on for as long as the process lives."""
        return [source.run() for source in (self.certificates, self.linked) if source is not None]

    def follow_links(self, snapshot: Snapshot) -> None:
        """Have the leaves of the services that are linked now."""
        own = _spiffe_id(snapshot)
        if self.linked is not None and own is not None:
            self.linked.adjust({name: SpiffeId(own.trust_domain, own.datacenter, name) for name in snapshot.links})

    def follow_listeners(self, table: Table, datacenter: str) -> None:
        """Have the certificates that a table's listeners call for."""
        if self.certificates is not None:
            from policies.edge.called_certificates import called_for, client_cas  # noqa: PLC0415 - a sidecar needs none of it

            self.certificates.adjust(called_for(table, datacenter), client_cas(table))

    def arrived(self, snapshot: Snapshot) -> bool:
        """Return whether the snapshot has all that is about to come."""
        certificates = self.certificates.awaited() if self.certificates is not None else frozenset()
        leaves = self.linked.awaited() if self.linked is not None else frozenset()
        there = snapshot.material.certificates if snapshot.material is not None else ()
        return certificates.issubset(there) and leaves.issubset(snapshot.leaves)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return what cannot be had just now, beside our own leaf."""
        return tuple(
            problem
            for source in (self.certificates, self.linked)
            if source is not None
            for problem in source.problems()
        )

    async def close(self) -> None:
        """Let go of connections and threads."""
        await self.issuer.close()
        if self._pki is not None:
            await self._pki.close()

    def _make_issuer(self, catalog: Catalog) -> Issuer:
        if self._settings.vault is None:
            return ConsulIssuer(catalog, local=self._settings.consul.is_local)
        from controlplane.issuer.vault import VaultIssuer  # noqa: PLC0415 - 17 MB that only Vault's users pay

        return VaultIssuer(self._settings.vault)

    def _make_linked(self, take: Callable[[Update], None]) -> LinkedLeaves | None:
        if self._settings.role is not Role.TERMINATING:
            return None
        from controlplane.issuer.linked import LinkedLeaves  # noqa: PLC0415 - a sidecar needs none of it

        return LinkedLeaves(self.issuer, take)

    def _make_certificates(
        self, catalog: Catalog, challenges: Challenges | None, take: Callable[[Update], None]
    ) -> Certificates | None:
        if challenges is None:
            return None
        from controlplane.certificates.follower import Certificates  # noqa: PLC0415 - a sidecar needs none of it
        from controlplane.certificates.sources import source_of  # noqa: PLC0415 - the same

        return Certificates(lambda settings: source_of(settings, catalog, self._session, challenges), take)

    def _session(self) -> VaultSession:
        """Return the session with Vault: the leaf's if that comes from there, for credentials may be good only once."""
        from controlplane.issuer.session import VaultSession  # noqa: PLC0415 - 17 MB that only Vault's users pay
        from controlplane.issuer.vault import VaultIssuer  # noqa: PLC0415 - the same

        if isinstance(self.issuer, VaultIssuer):
            return self.issuer.session
        if self._pki is None:
            assert self._settings.pki is not None  # noqa: S101 - a certificate of Vault's needs its block in the file
            self._pki = VaultSession(self._settings.pki)
        return self._pki


def _spiffe_id(snapshot: Snapshot) -> SpiffeId | None:
    registration, roots = snapshot.registration, snapshot.roots
    if registration is None or roots is None:
        return None
    return SpiffeId(roots.trust_domain, registration.datacenter, registration.service)
