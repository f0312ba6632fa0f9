"""The config entries that `lictor up` writes into a Consul, and takes back at its end.

A made entry never replaces one that is there. An entry of the file does, and stays: what it replaced is not known any
more. What was not there before is deleted at the end, unless somebody has changed it meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.consul.catalog import Catalog
from lictor.up.console import Console
from lictor.up.entries import title
from policies.entries import entry_name
from policies.errors import CatalogError, MeshError

Json = dict[str, Any]
TAKE_BACK_SECONDS = 5.0


class EntryRefused(MeshError):
    """Consul does not take an entry."""


@dataclass(slots=True)
class Written:
    """The entries of one run."""

    catalog: Catalog
    console: Console
    created: list[tuple[str, str, int]] = field(default_factory=list)  # kind, name, ModifyIndex

    async def write(self, entries: Sequence[Json], made: Sequence[Json]) -> None:
        """Write entries in this order; those among `made` only where there is none. Raise EntryRefused."""
        ours = {title(entry) for entry in made}
        for entry in entries:
            try:
                await self._write(entry, made=title(entry) in ours)
            except CatalogError as error:
                message = f"Consul does not take {title(entry)}: {error}"
                raise EntryRefused(message) from error

    async def _write(self, entry: Json, *, made: bool) -> None:
        if await self.catalog.ask("PUT", ("config",), {"cas": "0"}, entry) is True:
            kind, name = str(entry["Kind"]), entry_name(entry)
            held = await self.catalog.ask("GET", ("config", kind, name), {})
            self.created.append((kind, name, int(held["ModifyIndex"])))
        elif made:
            self.console.progress(f"{title(entry)} is there already and stays as it is")
        else:
            self.console.progress(f"{title(entry)} is there already and is replaced")
            await self.catalog.ask("PUT", ("config",), {}, entry)

    async def take_back(self) -> None:
        """Delete what was not there before; say what has to stay."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKE_BACK_SECONDS):
                for kind, name, index in reversed(self.created):
                    await self._delete(kind, name, index)
                self.created.clear()

    async def _delete(self, kind: str, name: str, index: int) -> None:
        try:
            gone = await self.catalog.ask("DELETE", ("config", kind, name), {"cas": str(index)})
        except CatalogError as error:
            self.console.progress(f"{kind}/{name} stays in Consul: {error}")
            return
        if gone is not True:
            self.console.progress(f"{kind}/{name} stays in Consul: somebody has changed it meanwhile")
