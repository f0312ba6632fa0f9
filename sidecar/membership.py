"""Our place in the catalog, taken and given up. A registration that is not ours stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from controlplane.consul.catalog import Catalog
from controlplane.registration import DRAIN_REASON, Definition
from sidecar.patience import quietly, until_answered

log = structlog.get_logger(__name__)


class Membership:
    """The registration that we go by. `definitions` are what we register, none where somebody else has done so."""

    def __init__(self, catalog: Catalog, proxy_id: str, definitions: Sequence[Definition]) -> None:
        self.proxy_id = proxy_id
        self.ids = tuple(str(definition["ID"]) for definition in definitions)
        self._catalog = catalog
        self._definitions = definitions

    async def take(self) -> None:
        """Register, asking until Consul answers, and end the maintenance of a drain before."""
        for definition in self._definitions:
            await until_answered(partial(self._catalog.register, definition), terminal_too=True)
        if self._definitions:
            log.info("registered", ids=list(self.ids))
        await quietly(self.end_maintenance())

    async def begin_maintenance(self, service_id: str) -> None:
        """Let callers go elsewhere."""
        await self._catalog.maintenance(service_id, enable=True, reason=DRAIN_REASON)

    async def end_maintenance(self) -> None:
        """End the maintenance that a drain began; an operator's own stays."""
        if await self._catalog.maintenance_reason(self.proxy_id) in {None, DRAIN_REASON}:
            await self._catalog.maintenance(self.proxy_id, enable=False, reason="")

    async def deregister(self, service_id: str) -> None:
        """Give up what we registered."""
        await self._catalog.deregister(service_id)
