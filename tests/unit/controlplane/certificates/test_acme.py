from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.certificates import acme
from controlplane.certificates.acme import AcmeSource
from controlplane.certificates.acme_state import AcmeState
from harness.certificates import Authority, Mistakes
from harness.servers import eventually
from lictor.up.ports import free_ports
from policies.edge.acme import AcmeCertificate, AcmeChallenge
from policies.edge.server_certificates import ServerCertificate
from policies.rotation import RenewalPolicy

CA = Authority()
QUICK = RenewalPolicy(first_retry=0.05, longest_retry=0.05)


class Nobody:
    def offer(self, challenge: AcmeChallenge) -> None:
        raise AssertionError

    def withdraw(self, challenge: AcmeChallenge) -> None:
        raise AssertionError


@pytest.fixture
def settings(tmp_path: Path) -> AcmeCertificate:
    """Return an order from a CA that is not there."""
    (port,) = free_ports(1)
    return AcmeCertificate(f"http://127.0.0.1:{port}/directory", ("web.com",), str(tmp_path))


@contextlib.asynccontextmanager
async def given(source: AcmeSource) -> AsyncIterator[list[ServerCertificate]]:
    found: list[ServerCertificate] = []

    async def follow() -> None:
        async for certificate in source.certificates():
            found.append(certificate)  # noqa: PERF401 - it is looked at while it grows

    task = asyncio.create_task(follow())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def keep(settings: AcmeCertificate, mistakes: Mistakes = Mistakes()) -> ServerCertificate:
    made = CA.server("web.com", mistakes=mistakes)
    AcmeState(settings).keep_certificate(made.chain_pem, made.key_pem)
    return made


async def test_what_was_kept_is_shown_without_asking_the_ca(settings: AcmeCertificate) -> None:
    kept = keep(settings)
    source = AcmeSource(settings, Nobody(), QUICK)
    async with given(source) as found:
        await eventually(lambda: found)
        await asyncio.sleep(0.05)
        assert [one.chain_pem for one in found] == [kept.chain_pem]
        assert source.status.error == ""
        assert source.status.issued == 1
        assert source.status.next_renewal is not None
        assert kept.not_after.timestamp() - source.status.next_renewal > 0


async def test_what_is_due_is_shown_while_the_ca_is_away_and_that_is_told(settings: AcmeCertificate) -> None:
    kept = keep(settings, Mistakes(starts=timedelta(hours=-10), ends=timedelta(hours=1)))
    source = AcmeSource(settings, Nobody(), QUICK)
    async with given(source) as found:
        error = await eventually(lambda: source.status.error)
        assert error.startswith("the CA cannot be asked: ConnectionError")
        assert [one.chain_pem for one in found] == [kept.chain_pem]
        assert source.status.failures >= 1
        assert source.status.failing_since is not None


async def test_what_another_process_orders_is_waited_for(
    settings: AcmeCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme, "BUSY_SECONDS", 0.01)
    source = AcmeSource(settings, Nobody(), QUICK)
    with AcmeState(settings).alone() as free:
        assert free
        async with given(source) as found:
            await asyncio.sleep(0.1)
            assert found == []
            assert source.status.error == "", "it has not asked"
            kept = keep(settings)
            await eventually(lambda: found)
            assert [one.chain_pem for one in found] == [kept.chain_pem]


async def test_a_folder_that_cannot_be_used_is_told_before_the_ca_is_asked(settings: AcmeCertificate) -> None:
    blocked = AcmeCertificate(settings.directory, settings.names, "/proc/nowhere")
    source = AcmeSource(blocked, Nobody(), QUICK)
    async with given(source):
        error = await eventually(lambda: source.status.error)
        assert error.startswith("/proc/nowhere: ")
