"""Certificates by ACME as a source: the one that was kept, then each next one, ordered when it is due.

kept and good ──▶ yield ──▶ wait for its renewal ──▶ lock ──▶ kept anew by another process? ──▶ yield
                                    ▲                 └──▶ order ──▶ keep ──▶ yield
                                    └── failure: told once, the last one stays, the pauses grow
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import structlog

from controlplane.certificates import SourceStatus, failed, succeeded
from controlplane.certificates.acme_client import AcmeClient, Answers
from controlplane.certificates.acme_state import AcmeState
from policies.edge.acme import REFUSED, RENEWAL, AcmeCertificate
from policies.edge.server_certificates import ServerCertificate
from policies.errors import IssuerError, IssuerUnreachable
from policies.rotation import DEFAULT_POLICY, RenewalPolicy, pause_before, retry_pause

log = structlog.get_logger(__name__)

LONGEST_SLEEP = 3600.0  # seconds: clocks are set, machines are suspended
BUSY_SECONDS = 1.0  # between looks at an order that another process has under way


class AcmeSource:
    """One certificate. `refused` are the pauses after a refusal; a CA that is away is asked again sooner."""

    def __init__(self, settings: AcmeCertificate, answers: Answers, refused: RenewalPolicy = REFUSED) -> None:
        self.status = SourceStatus(f"ACME {settings.directory}")
        self._settings = settings
        self._state = AcmeState(settings)
        self._client = AcmeClient(settings, self._state, answers)
        self._refused = refused

    async def certificates(self) -> AsyncGenerator[ServerCertificate, None]:
        """Yield the certificate, and each next one before the last ends."""
        shown: ServerCertificate | None = None
        due = 0.0  # seconds since the epoch
        try:
            while True:
                try:
                    kept = self._kept(shown)
                    if kept is not None:
                        shown, due = kept, time.time() + _pause(kept.not_before, kept)
                        self._given(kept, due)
                        yield kept
                    elif time.time() < due:
                        await asyncio.sleep(min(due - time.time(), LONGEST_SLEEP))
                    elif (ordered := await self._order(shown)) is not None:
                        # Its life begins here: a CA may date back what it signs, for clocks that are behind.
                        shown, due = ordered, time.time() + _pause(datetime.now(UTC), ordered)
                        self._given(ordered, due)
                        yield ordered
                except IssuerError as error:
                    await asyncio.sleep(self._failed(error, shown))
        finally:
            self._client.close()

    def _kept(self, shown: ServerCertificate | None) -> ServerCertificate | None:
        """Return what is kept if it is another one than this, and has not ended."""
        kept = self._state.certificate()
        return kept if kept is not None and kept != shown and kept.not_after > datetime.now(UTC) else None

    async def _order(self, shown: ServerCertificate | None) -> ServerCertificate | None:
        """Return a new certificate, which is kept; None when another process has one or is about to."""
        with self._state.alone() as free:
            if not free:
                await asyncio.sleep(BUSY_SECONDS)
                return None
            if self._kept(shown) is not None:
                return None
            log.info("certificate_ordering", source=self.status.kind, names=self._settings.names)
            chain, key = await self._client.obtain()
            return await asyncio.to_thread(self._state.keep_certificate, chain, key)

    def _given(self, certificate: ServerCertificate, due: float) -> None:
        succeeded(self.status, certificate)
        self.status.next_renewal = due

    def _failed(self, error: IssuerError, shown: ServerCertificate | None) -> float:
        """Note a failure; return the pause before the next try."""
        failed(self.status, error)
        left = shown.not_after.timestamp() - time.time() if shown is not None else 0.0
        policy = DEFAULT_POLICY if isinstance(error, IssuerUnreachable) else self._refused
        return 0.05 + retry_pause(self.status.failures, left, random.random(), policy)


def _pause(begins: datetime, certificate: ServerCertificate) -> float:
    return pause_before(begins, certificate.not_after, datetime.now(UTC), random.random(), RENEWAL)
