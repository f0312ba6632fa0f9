"""Certificates of the edge from PEM files, read again whenever one of them changes.

Files are looked at rather than watched: it works on every file system, and for a rename of a folder's link alike. A
pair that is half written does not fit, is told, and is read again when the other half comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import structlog

from controlplane.certificates import SourceStatus, checked_pair, failed, succeeded
from policies.edge.server_certificates import ServerCertificate
from policies.edge.tls import FileCertificate
from policies.errors import BadServerCertificate

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
_LARGEST = 1 << 20  # bytes of a PEM file


class FileSource:
    """The source of one pair of files."""

    def __init__(self, settings: FileCertificate, look_seconds: float = LOOK_SECONDS) -> None:
        self.status = SourceStatus(f"file {settings.cert_file}")
        self._files = (settings.cert_file, settings.key_file)
        self._look_seconds = look_seconds

    async def certificates(self) -> AsyncGenerator[ServerCertificate, None]:
        """Yield the pair, and again whenever it has become another good one."""
        watched = Watched(self._files)
        while True:
            try:
                found = await asyncio.to_thread(watched.changed)
                if found is not None:
                    certificate = pair(found, self.status.kind)
                    succeeded(self.status, certificate)
                    yield certificate
            except BadServerCertificate as error:
                failed(self.status, error)
            await asyncio.sleep(self._look_seconds)


def pair(contents: tuple[bytes, ...], source: str) -> ServerCertificate:
    """Return the certificate in the contents of its two files. Raise BadServerCertificate."""
    try:
        return checked_pair(contents[0].decode(), contents[1], source)
    except UnicodeDecodeError as error:
        message = f"{source}: is no PEM text"
        raise BadServerCertificate(message) from error


class Watched:
    """Files that are looked at now and then. Its method blocks and belongs in a thread."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = [Path(file) for file in files]
        self._seen: list[tuple[int, ...]] | None = None

    def changed(self) -> tuple[bytes, ...] | None:
        """Return what the files hold when one has changed since the last call, else None.

        Raise BadServerCertificate once for each change to something that cannot be read.
        """
        looks = [_look(file) for file in self._files]
        if looks == self._seen:
            return None
        self._seen = looks
        return tuple(_read(file) for file in self._files)


def _look(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError as error:
        return (-1, error.errno or 0)
    # The second time is that of owner and rights as well: what could not be read may be readable now.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST)
    except OSError as error:
        message = f"{file}: {error.strerror}"
        raise BadServerCertificate(message) from error
