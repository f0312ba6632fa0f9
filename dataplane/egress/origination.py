"""TLS origination: TLS towards services outside the mesh, with the files that a terminating gateway's link names.

A context is built from the files as they are, never changed, and built anew when a file has changed. What cannot be
read leaves the last good context in use; where there is none the service stays closed: never plaintext instead.
The name in the certificate is checked only if the link has an SNI, as Consul has it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog

from policies.egress.links import Origination
from policies.errors import ConnectFailed, IdentityError, Problem

log = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, ...], ...]  # of each file: device, inode, size, times of change in ns


@dataclass(slots=True)
class _Held:
    """What was made of files. `seen` is how they stood when they were read last, well or not."""

    context: ssl.SSLContext | None = None
    seen: _Signature = ()
    problem: str = ""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Originations:
    """The contexts of a process: one for each link's files and use."""

    def __init__(self) -> None:
        self._held: dict[Origination, _Held] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def context(self, origination: Origination) -> ssl.SSLContext:
        """Return a context by the files as they are now, or by the last good ones. Raise ConnectFailed without any."""
        held = self._held.setdefault(origination, _Held())
        await _ready(origination, held)
        if held.context is None:
            raise ConnectFailed(f"TLS origination: {held.problem}")
        return held.context

    def follow(self, wanted: AbstractSet[Origination]) -> None:
        """Read the files that a table names for the first time, and forget those that it names no more."""
        for gone in self._held.keys() - wanted:
            del self._held[gone]
        for new in wanted - self._held.keys():
            held = self._held[new] = _Held()
            task = asyncio.get_running_loop().create_task(_ready(new, held))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    @property
    def settled(self) -> bool:
        """Return whether all files have been read, well or not."""
        return not self._reading

    def close(self) -> None:
        """Read nothing any more."""
        for task in self._reading:
            task.cancel()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return which files cannot be used, each once."""
        found = {
            Problem(
                f"TLS origination with {origination.ca_file}",
                held.problem,
                "the last good files stay in use" if held.context is not None else "closed until it can be read",
            ): None
            for origination, held in self._held.copy().items()
            if held.problem
        }
        return tuple(found)


async def _ready(origination: Origination, held: _Held) -> None:
    """Read files that are not as they were. Who has nothing yet waits for who is reading."""
    if held.context is not None and _signature(origination) == held.seen:
        return
    async with held.reading:
        if (now := _signature(origination)) != held.seen:  # else somebody has read them meanwhile
            await _read(origination, held, now)


async def _read(origination: Origination, held: _Held, now: _Signature) -> None:
    held.seen = now  # of before reading: what changes meanwhile is read again
    try:
        context = await asyncio.to_thread(build_context, origination)
    except (OSError, ValueError) as error:
        held.problem = _told(error, origination)
        log.warning("origination_files_unusable", ca_file=origination.ca_file, error=held.problem)
    else:
        held.context, held.problem = context, ""


def build_context(origination: Origination) -> ssl.SSLContext:
    """Return the context of a client. Raise OSError (of which SSLError is one) or ValueError."""
    for path in _files(origination):
        with Path(path).open("rb"):  # for an error that names the file: OpenSSL's does not
            pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # `check_name` does, by Consul's rules
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be what is trusted
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=origination.ca_file)
    if origination.cert_file:
        context.load_cert_chain(origination.cert_file, origination.key_file, password=_no_password)
    if origination.alpn:
        context.set_alpn_protocols([origination.alpn])
    return context


def _no_password() -> str:
    """Nobody can be asked for one: OpenSSL would ask the terminal."""
    raise ValueError("the key is encrypted, expected a plain one")


def _told(error: Exception, origination: Origination) -> str:
    if isinstance(error, ssl.SSLError) and origination.cert_file:
        names = f"{origination.ca_file}, {origination.cert_file} or {origination.key_file}"
        return f"{names} is no PEM, or certificate and key do not belong together: {error.reason or error}"
    if isinstance(error, ssl.SSLError):
        return f"{origination.ca_file} holds no certificate in PEM: {error.reason or error}"
    name = getattr(error, "filename", None)
    return f"{name}: {getattr(error, 'strerror', None)}" if name else str(error)


def _signature(origination: Origination) -> _Signature:
    return tuple(map(_state, _files(origination)))


def _files(origination: Origination) -> tuple[str, ...]:
    return tuple(filter(None, (origination.ca_file, origination.cert_file, origination.key_file)))


def _state(path: str) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    # The second time is that of owner and rights as well: what could not be read may be readable now.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def check_name(certificate: Mapping[str, Any] | None, sni: str) -> None:
    """Let a certificate (`SSLSocket.getpeercert()`) pass that is for the name. Raise IdentityError (`wrong_name`) else.

    As Consul has Envoy do it: one alternative name of type DNS, IP, URI or e-mail must be the SNI; of type DNS a
    wildcard in the place of the first label counts.
    """
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        match kind:
            case "DNS" if _covers(value.lower(), sni.lower()):
                return
            case "IP Address" if _is_address(sni, value):
                return
            case "URI" | "email" if value == sni:
                return
    raise IdentityError("wrong_name", f"the certificate is not for {sni}")


def _covers(pattern: str, name: str) -> bool:
    if pattern == name:
        return True
    first, _, rest = name.partition(".")
    return bool(first) and bool(rest) and pattern == f"*.{rest}"


def _is_address(sni: str, address: str) -> bool:
    try:
        return ip_address(sni) == ip_address(address.strip())
    except ValueError:
        return False
