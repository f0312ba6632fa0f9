"""Following the certificates that the listeners call for: one task for each, begun and ended with the table.

called_for(table) ─▶ tasks ─ source ─▶ CertificateUpdate ─▶ snapshot
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import structlog

from controlplane.certificates import CertificateSource, SourceStatus, failed
from controlplane.certificates.files import LOOK_SECONDS, Watched
from policies.edge.server_certificates import CertificateReference, CertificateUpdate, ClientCaUpdate
from policies.edge.tls import CertificateSettings
from policies.errors import BadServerCertificate, Problem
from policies.updates import Update

log = structlog.get_logger(__name__)

OpenSource = Callable[[CertificateSettings], CertificateSource]


class Certificates:
    """The tasks of one gateway. `take` is given every update; `statuses` tell how the sources stand, to any thread."""

    def __init__(self, open_source: OpenSource, take: Callable[[Update], None]) -> None:
        self.statuses: dict[CertificateReference, SourceStatus] = {}
        self._open = open_source
        self._take = take
        self._settings: dict[CertificateReference, CertificateSettings] = {}
        self._tasks: dict[CertificateReference, asyncio.Task[None]] = {}
        self._cas: dict[str, asyncio.Task[None]] = {}
        self._ca_statuses: dict[str, SourceStatus] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.Event().wait()
        finally:
            self._tasks.clear()
            self._cas.clear()

    def adjust(self, wanted: Mapping[CertificateReference, CertificateSettings], cas: AbstractSet[str]) -> None:
        """Begin and end what is called for. A certificate that comes from elsewhere now stays until the next one."""
        for reference in set(self._tasks).difference(wanted):
            self._tasks.pop(reference).cancel()
            self._settings.pop(reference)
            self.statuses.pop(reference)
            self._take(CertificateUpdate(reference, None))
        for reference, settings in wanted.items():
            if self._settings.get(reference) == settings:
                continue
            if reference in self._tasks:
                self._tasks[reference].cancel()
            source = self._open(settings)
            self._settings[reference] = settings
            self.statuses[reference] = source.status
            self._tasks[reference] = self._group.create_task(self._follow(reference, source), name=str(reference))
        for file in set(self._cas).difference(cas):
            self._cas.pop(file).cancel()
            self._ca_statuses.pop(file)
            self._take(ClientCaUpdate(file, None))
        for file in set(cas).difference(self._cas):
            self._ca_statuses[file] = SourceStatus(f"client CA {file}")
            self._cas[file] = self._group.create_task(self._follow_ca(file), name=f"client CA {file}")

    def awaited(self) -> frozenset[CertificateReference]:
        """Return the certificates whose sources have not failed: they are there, or about to come."""
        return frozenset(reference for reference, status in self.statuses.items() if not status.error)

    def problems(self) -> tuple[Problem, ...]:
        """Return what is wrong with the sources now."""
        named = [(str(reference), status) for reference, status in self.statuses.copy().items()]
        named += [(status.kind, status) for status in self._ca_statuses.copy().values()]
        return tuple(
            Problem(f"certificate {name}", status.error, "the last good one stays; a listener without one is closed")
            for name, status in named
            if status.error
        )

    async def _follow(self, reference: CertificateReference, source: CertificateSource) -> None:
        async for certificate in source.certificates():
            self._take(CertificateUpdate(reference, certificate))

    async def _follow_ca(self, file: str) -> None:
        watched, status = Watched((file,)), self._ca_statuses[file]
        while True:
            try:
                found = await asyncio.to_thread(watched.changed)
                if found is not None:
                    self._take(ClientCaUpdate(file, found[0].decode("ascii", "ignore")))
                    status.succeed()
            except BadServerCertificate as error:
                failed(status, error)
            await asyncio.sleep(LOOK_SECONDS)
