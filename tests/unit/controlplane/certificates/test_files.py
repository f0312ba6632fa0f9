from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from controlplane.certificates.files import FileSource, Watched
from harness.certificates import Authority
from harness.servers import eventually
from policies.edge.server_certificates import ServerCertificate
from policies.edge.tls import FileCertificate
from policies.errors import BadServerCertificate

CA = Authority()


def put(folder: Path, certificate: ServerCertificate) -> None:
    for name, content in (("web.pem", certificate.chain_pem.encode()), ("web.key", certificate.key_pem)):
        fresh = folder / f".{name}"
        fresh.write_bytes(content)
        fresh.replace(folder / name)


def source(folder: Path) -> FileSource:
    return FileSource(FileCertificate(str(folder / "web.pem"), str(folder / "web.key")), look_seconds=0.01)


async def test_a_pair_is_read_and_again_when_it_has_changed(tmp_path: Path) -> None:
    first, second = CA.server("web.com"), CA.server("web.com", rsa_key=True)
    put(tmp_path, first)
    stream = source(tmp_path).certificates()
    async with asyncio.timeout(10):
        assert (await anext(stream)).serial == first.serial
        put(tmp_path, second)
        assert (await anext(stream)).serial == second.serial
    await stream.aclose()


async def test_half_a_pair_is_told_and_the_whole_one_taken(tmp_path: Path) -> None:
    first, second = CA.server("web.com"), CA.server("web.com")
    put(tmp_path, first)
    reading = source(tmp_path)
    stream = reading.certificates()
    async with asyncio.timeout(10):
        await anext(stream)
        (tmp_path / "web.pem").write_text(second.chain_pem)
        waiting = asyncio.create_task(anext(stream))
        await eventually(lambda: "the key is of another certificate" in reading.status.error)
        assert "PRIVATE" not in reading.status.error
        (tmp_path / "web.pem").write_text(second.chain_pem[:200])
        await eventually(lambda: "holds no PEM certificate" in reading.status.error)
        put(tmp_path, second)
        assert (await waiting).serial == second.serial
        assert (reading.status.error, reading.status.issued) == ("", 2)
    await stream.aclose()


async def test_files_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    reading = source(tmp_path)
    stream = reading.certificates()
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(anext(stream))
        await eventually(lambda: "web.pem: No such file" in reading.status.error)
        put(tmp_path, CA.server("web.com"))
        await waiting
    await stream.aclose()


async def test_a_key_with_a_password_asks_nobody(tmp_path: Path) -> None:
    put(tmp_path, CA.server("web.com"))
    (tmp_path / "web.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBAAAAAAAAAAAAAAAAAA\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    reading = source(tmp_path)
    stream = reading.certificates()
    waiting = asyncio.create_task(anext(stream))
    await eventually(lambda: "the key is of no use" in reading.status.error)
    waiting.cancel()


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes swaps the folder of a secret."""
    for name, content in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(content)
    link = tmp_path / "now"
    link.symlink_to("one")
    watched = Watched((str(link / "file"),))
    assert (watched.changed(), watched.changed()) == ((b"1",), None)
    other = tmp_path / "next"
    other.symlink_to("two")
    os.replace(other, link)  # noqa: PTH105 - atomic, as it is done there
    assert watched.changed() == (b"2",)


def test_what_cannot_be_read_is_told_once_a_change(tmp_path: Path) -> None:
    watched = Watched((str(tmp_path / "lost"),))
    with pytest.raises(BadServerCertificate, match="No such file"):
        watched.changed()
    assert watched.changed() is None
