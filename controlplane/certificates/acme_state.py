"""What is kept of ACME over a restart: the account and its key, the last certificate and its key.

A restart must not ask anew, as CAs count what they sign. Files are readable by their owner alone and appear whole;
where others may do anything with them or their folder, nothing is read or ordered.
Several processes may share a folder: who orders holds its lock, the others find what was ordered.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controlplane.certificates import checked_pair
from policies.edge.acme import AcmeCertificate
from policies.edge.server_certificates import ServerCertificate
from policies.errors import BadServerCertificate, IssuerUnreachable

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Account:
    """An account at a CA: its URL, and its private key as a JWK."""

    uri: str
    key: dict[str, Any] = field(repr=False)


class AcmeState:
    """The files of one certificate, and of the account at its CA.

    Everything raises IssuerUnreachable, which names the file: one that cannot be read or written, or is open to others.
    """

    def __init__(self, settings: AcmeCertificate) -> None:
        self._settings = settings
        self._folder = Path(settings.state_dir)
        self._account = self._folder / f"account-{_digest(settings.directory, settings.eab_key_id)}.json"
        names = sorted(settings.names)
        self._certificate = self._folder / f"{names[0]}-{_digest(settings.directory, *names)}.json"

    def account(self) -> Account | None:
        """Return the account that was made before."""
        kept = _read(self._account)
        if kept is None:
            return None
        try:
            return Account(str(kept["uri"]), dict(kept["key"]))
        except (KeyError, TypeError) as error:
            message = f"{self._account} holds no account, move it away"
            raise IssuerUnreachable(message) from error

    def keep_account(self, account: Account) -> None:
        """Keep an account."""
        self._write(self._account, {"uri": account.uri, "key": account.key})

    def certificate(self) -> ServerCertificate | None:
        """Return the last certificate, whether it has ended or not."""
        kept = _read(self._certificate)
        if kept is None:
            return None
        try:
            return self._checked(str(kept["chain"]), str(kept["key"]).encode())
        except (BadServerCertificate, KeyError) as error:
            message = f"{self._certificate} cannot be used, move it away: {error}"
            raise IssuerUnreachable(message) from error

    def keep_certificate(self, chain_pem: str, key_pem: bytes) -> ServerCertificate:
        """Keep a new certificate; return it. Raise BadServerCertificate when it is not what was ordered."""
        certificate = self._checked(chain_pem, key_pem)
        if not set(self._settings.names).issubset(certificate.names) or certificate.not_after <= datetime.now(UTC):
            names = ", ".join(certificate.names)
            message = f"{certificate.source}: signed a certificate for {names} until {certificate.not_after}"
            raise BadServerCertificate(message)
        self._write(self._certificate, {"chain": chain_pem, "key": key_pem.decode()})
        return certificate

    def _checked(self, chain_pem: str, key_pem: bytes) -> ServerCertificate:
        return checked_pair(chain_pem, key_pem, f"ACME {self._settings.directory}")

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the lock for a while; say whether it was free."""
        with _said(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self._folder)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        new = file.with_suffix(".new")
        with _said(file):
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                os.fchmod(descriptor, 0o600)  # it may be left from a write that was cut
                json.dump(content, opened)
                opened.flush()
                os.fsync(descriptor)
            new.replace(file)


def _read(file: Path) -> dict[str, Any] | None:
    with _said(file):
        try:
            _check_private(file.parent)
            _check_private(file)
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def _check_private(place: Path) -> None:
    """Raise IssuerUnreachable where others than the owner may read or write, and OSError."""
    found = place.stat().st_mode
    if not found & _OTHERS:
        return
    if stat.S_ISDIR(found):
        fix = f"chmod 700 {place}, or name a folder in it as state_dir, which is made then"
    else:
        fix = f"chmod 600 {place}, and think of its key as known to others"
    message = f"{place}: others than its owner may read or write it (mode {stat.S_IMODE(found):04o}): {fix}"
    raise IssuerUnreachable(message)


@contextlib.contextmanager
def _said(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        message = f"{place}: {getattr(error, 'strerror', None) or 'is not what was written there'}"
        raise IssuerUnreachable(message) from error


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
