"""Against a list of answers; tests/conformance/test_edge_certificates.py asks a real Consul."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.certificates.entries import EntrySource
from harness.certificates import Authority
from harness.servers import eventually
from policies.edge.server_certificates import ServerCertificate
from policies.edge.tls import EntryCertificate
from policies.errors import CatalogError, CatalogUnreachable

CA = Authority()


@dataclass
class Said:
    data: Any
    cursor: str


class Scripted:
    """Answers in order, the last one again and again."""

    def __init__(self, answers: Iterable[Said | CatalogError]) -> None:
        self.answers = list(answers)

    async def entry(self, kind: str, name: str, cursor: str, wait: float) -> Said:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Said) and answer.cursor == cursor:
            await asyncio.sleep(min(wait, 0.01))
        if isinstance(answer, CatalogError):
            raise answer
        return answer


def inline(certificate: ServerCertificate, key: bytes | None = None) -> dict[str, Any]:
    return {"Certificate": certificate.chain_pem, "PrivateKey": (key or certificate.key_pem).decode()}


def source(answers: Iterable[Said | CatalogError], kind: str = "inline-certificate") -> EntrySource:
    return EntrySource(EntryCertificate(kind, "web"), Scripted(answers), look_seconds=0.01)


async def test_an_inline_certificate_is_given_when_it_is_new() -> None:
    first, second = CA.server("web.com"), CA.server("web.com")
    broken = CatalogUnreachable("config", "no route")
    reading = source([Said(inline(first), "1"), Said(inline(first), "1"), broken, Said(inline(second), "2")])
    stream = reading.certificates()
    async with asyncio.timeout(10):
        assert [(await anext(stream)).serial for _ in range(2)] == [first.serial, second.serial]
    assert reading.status.error == ""
    await stream.aclose()


async def test_a_missing_entry_and_a_wrong_key_are_told_without_the_key() -> None:
    first, second = CA.server("web.com"), CA.server("web.com")
    answers = [Said(None, "1"), Said(inline(first, second.key_pem), "2"), Said(inline(first), "3")]
    told: list[str] = []
    reading = source(answers)
    stream = reading.certificates()
    original = reading._read

    async def read(entry: Any, *, changed: bool) -> ServerCertificate | None:
        told.append(reading.status.error)
        return await original(entry, changed=changed)

    reading._read = read  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        assert (await anext(stream)).serial == first.serial
    assert "there is no such entry" in told[1]
    assert "the key is of another certificate" in told[2]
    assert "PRIVATE" not in "".join(told)
    await stream.aclose()


async def test_a_file_system_certificate_follows_its_files_and_its_paths(tmp_path: Path) -> None:
    certificates = [CA.server("web.com") for _ in range(3)]
    entries = []
    for number, certificate in enumerate(certificates[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "pem").write_text(certificate.chain_pem)
        (folder / "key").write_bytes(certificate.key_pem)
        entries.append({"Certificate": str(folder / "pem"), "PrivateKey": str(folder / "key")})
    reading = source([Said(entries[0], "1"), Said(entries[0], "1"), Said(entries[1], "2")], "file-system-certificate")
    stream = reading.certificates()
    async with asyncio.timeout(10):
        assert [(await anext(stream)).serial for _ in range(2)] == [one.serial for one in certificates[:2]]
        waiting = asyncio.create_task(anext(stream))
        (tmp_path / "1" / "pem").write_text(certificates[2].chain_pem)
        await eventually(lambda: "another certificate" in reading.status.error)
        (tmp_path / "1" / "key").write_bytes(certificates[2].key_pem)
        assert (await waiting).serial == certificates[2].serial
    await stream.aclose()
