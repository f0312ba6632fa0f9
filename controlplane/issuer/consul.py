"""Leaves from the agent's Connect CA: the agent makes the key, the servers sign, the agent renews.

For a mesh that exists already. The agent gives the same key to every caller that reaches it, whatever their token, so
the unit of trust is the host; `vault` keeps keys in the sidecar instead.
Source: `GET /v1/agent/connect/ca/leaf/:service`, blocking.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from controlplane.issuer import IssuerStatus, failed, succeeded
from controlplane.issuer.leaf import checked_leaf
from policies.errors import BadLeaf, CatalogError, IssuerError
from policies.identity import Leaf, SpiffeId

log = structlog.get_logger(__name__)

WAIT_SECONDS = 30.0
MAX_READS = 16  # at once, of a gateway with many leaves; the agent allows 200 connections per client address


class LeafAnswer(Protocol):
    """What the catalog answers."""

    @property
    def data(self) -> Any:
        """Return the decoded answer."""
        ...

    @property
    def cursor(self) -> str:
        """Return what the next blocking read waits from."""
        ...


class LeafSource(Protocol):
    """The part of the catalog that gives leaves."""

    async def leaf(self, service: str, cursor: str, wait: float) -> LeafAnswer:
        """Return the leaf of a service."""
        ...


class ConsulIssuer:
    """The issuer. `local` says whether only this machine can reach the agent."""

    def __init__(self, source: LeafSource, *, local: bool) -> None:
        self.status = IssuerStatus("consul")
        self._source = source
        self._reads = asyncio.Semaphore(MAX_READS)
        self._streams = 0
        if not local:
            log.warning(
                "issuer_shared_agent",
                hint="the agent hands a service's key to whoever reaches it: use a unix socket or loopback, or Vault",
            )

    async def leaves(self, spiffe_id: SpiffeId, status: IssuerStatus | None = None) -> AsyncIterator[Leaf]:
        """Yield the agent's leaf, and each next one when the agent has it."""
        self._streams += 1
        try:
            async for leaf in self._leaves(spiffe_id, status or self.status):
                yield leaf
        finally:
            self._streams -= 1

    async def _leaves(self, spiffe_id: SpiffeId, status: IssuerStatus) -> AsyncIterator[Leaf]:
        cursor = ""
        leaf: Leaf | None = None
        while True:
            try:
                async with self._reads:
                    wait = WAIT_SECONDS * min(1.0, MAX_READS / self._streams)  # so that each has its turn
                    answer = await self._source.leaf(spiffe_id.service, cursor, wait)
                found = _leaf(spiffe_id, answer.data)
            except (CatalogError, IssuerError) as error:
                cursor = ""
                await asyncio.sleep(failed(status, error, leaf.not_after if leaf is not None else None))
                continue
            succeeded(status)
            cursor = answer.cursor
            if leaf is None or found.serial != leaf.serial:
                leaf = found
                status.issued += 1
                log.info("leaf_issued", issuer="consul", serial=leaf.serial, ends=leaf.not_after.isoformat())
                yield leaf
            elif not cursor:
                await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Nothing of its own to let go of."""


def _leaf(spiffe_id: SpiffeId, data: Any) -> Leaf:
    if not isinstance(data, dict) or not data.get("CertPEM") or not data.get("PrivateKeyPEM"):
        message = "the agent's answer holds no certificate and key"
        raise BadLeaf(message)
    return checked_leaf(spiffe_id, str(data["CertPEM"]), str(data["PrivateKeyPEM"]).encode(), datetime.now(UTC))
