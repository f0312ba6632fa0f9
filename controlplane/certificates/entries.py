"""Certificates of the edge from Consul's entries.

An `inline-certificate` holds both PEMs, a `file-system-certificate` paths on the gateway's machine. Entries are not
part of the snapshot: a key belongs in no dump of it.
Source: `GET /v1/config/:kind/:name`, blocking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from controlplane.certificates import SourceStatus, checked_pair, failed, succeeded
from controlplane.certificates.files import LOOK_SECONDS, Watched, pair
from policies.edge.server_certificates import ServerCertificate
from policies.edge.tls import EntryCertificate
from policies.errors import BadServerCertificate, CatalogError
from policies.rotation import retry_pause
from policies.weak import mapping

INLINE, FILES = "inline-certificate", "file-system-certificate"
KINDS = (INLINE, FILES)
WAIT_SECONDS = 25.0


class EntryAnswer(Protocol):
    """What the catalog answers."""

    @property
    def data(self) -> Any:
        """Return the decoded entry, None where there is none."""
        ...

    @property
    def cursor(self) -> str:
        """Return what the next blocking read waits from."""
        ...


class Entries(Protocol):
    """The part of the catalog that gives entries."""

    async def entry(self, kind: str, name: str, cursor: str, wait: float) -> EntryAnswer:
        """Return a config entry."""
        ...


class EntrySource:
    """The source of one entry."""

    def __init__(self, settings: EntryCertificate, entries: Entries, look_seconds: float = LOOK_SECONDS) -> None:
        self.status = SourceStatus(f"{settings.kind} {settings.name}")
        self._settings = settings
        self._entries = entries
        self._look_seconds = look_seconds
        self._watched: Watched | None = None

    async def certificates(self) -> AsyncGenerator[ServerCertificate, None]:
        """Yield the entry's certificate, and again whenever entry or files have become another good one."""
        kind, name = self._settings.kind, self._settings.name
        # A short block leaves time to look at files between two reads of their entry.
        wait = WAIT_SECONDS if kind == INLINE else self._look_seconds
        cursor = ""
        while True:
            try:
                answer = await self._entries.entry(kind, name, cursor, wait)
            except CatalogError as error:
                cursor, self._watched = "", None
                failed(self.status, error)
                await asyncio.sleep(0.05 + retry_pause(self.status.failures, 0.0, random.random()))
                continue
            changed, cursor = answer.cursor != cursor or not cursor, answer.cursor
            try:
                found = await self._read(mapping(answer.data), changed=changed)
                if found is not None:
                    succeeded(self.status, found)
                    yield found
            except BadServerCertificate as error:
                failed(self.status, error)
            if not cursor:
                await asyncio.sleep(1.0)

    async def _read(self, entry: Mapping[str, Any], *, changed: bool) -> ServerCertificate | None:
        """Return what the entry leads to if that is new. Raise BadServerCertificate."""
        if not entry:
            if changed:
                message = "there is no such entry, or the token lacks mesh:read"
                raise BadServerCertificate(message)
            return None
        one, other = str(entry.get("Certificate") or ""), str(entry.get("PrivateKey") or "")
        if self._settings.kind == INLINE:
            return checked_pair(one, other.encode(), self.status.kind) if changed else None
        if self._watched is None or changed:
            self._watched = Watched((one, other))
        contents = await asyncio.to_thread(self._watched.changed)
        return pair(contents, self.status.kind) if contents is not None else None
