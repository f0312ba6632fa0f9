from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from controlplane.certificates import SourceStatus
from controlplane.certificates.follower import Certificates
from harness.certificates import Authority
from harness.servers import eventually
from policies.edge.server_certificates import CertificateReference, CertificateUpdate, ClientCaUpdate, ServerCertificate
from policies.edge.tls import CertificateSettings, FileCertificate
from policies.updates import Update

CA = Authority()
WEB, API = CertificateReference("own", "web"), CertificateReference("own", "api")
GIVEN = CA.server("web.com")


class Once:
    """A source of one certificate."""

    def __init__(self, settings: CertificateSettings) -> None:
        self.settings = settings
        self.status = SourceStatus("test")

    async def certificates(self) -> AsyncGenerator[ServerCertificate, None]:
        yield GIVEN
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def following() -> AsyncIterator[tuple[Certificates, list[Update], list[Once]]]:
    updates: list[Update] = []
    opened: list[Once] = []

    def open_source(settings: CertificateSettings) -> Once:
        opened.append(Once(settings))
        return opened[-1]

    certificates = Certificates(open_source, updates.append)
    running = asyncio.create_task(certificates.run())
    await asyncio.sleep(0)
    yield certificates, updates, opened
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_called_for_is_fetched_until_nobody_does() -> None:
    async with following() as (certificates, updates, opened):
        one, other = FileCertificate("a", "b"), FileCertificate("c", "d")
        for _ in range(2):
            certificates.adjust({WEB: one}, frozenset())
        await eventually(lambda: updates == [CertificateUpdate(WEB, GIVEN)])
        certificates.adjust({WEB: other, API: one}, frozenset())
        assert [source.settings for source in opened] == [one, other, one]
        await eventually(lambda: len(updates) == 3)
        assert CertificateUpdate(WEB, None) not in updates  # the old one stays until the next
        certificates.adjust({API: one}, frozenset())
        assert updates[-1] == CertificateUpdate(WEB, None)
        assert certificates.awaited() == {API}


async def test_a_failing_source_is_a_problem_and_not_awaited() -> None:
    async with following() as (certificates, _, opened):
        certificates.adjust({WEB: FileCertificate("a", "b")}, frozenset())
        opened[0].status.error = "web.pem: No such file"
        (problem,) = certificates.problems()
        assert (problem.where, problem.message) == ("certificate own web", "web.pem: No such file")
        assert certificates.awaited() == frozenset()


async def test_who_signs_callers_is_read_and_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(CA.pem)
    async with following() as (certificates, updates, _):
        certificates.adjust({}, frozenset({str(file), str(tmp_path / "lost")}))
        await eventually(lambda: updates == [ClientCaUpdate(str(file), CA.pem)])
        await eventually(lambda: "No such file" in str(certificates.problems()))
        certificates.adjust({}, frozenset())
        await eventually(lambda: ClientCaUpdate(str(file), None) in updates)
        assert certificates.problems() == ()
