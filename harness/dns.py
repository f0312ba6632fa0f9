"""A name server for tests: answers A and AAAA by a table that a test may change, over UDP."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from dataplane.egress.names import Resolved
from policies.errors import NameNotResolved

_A, _AAAA = 1, 28
_NO_SUCH_NAME, _BROKEN = 3, 2


@dataclass(slots=True)
class NameServer(asyncio.DatagramProtocol):
    """`names` maps a name to its addresses; `broken` answers SERVFAIL to everything."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ttl: int = 60
    broken: bool = False
    asked: int = 0
    port: int = 0
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport) or hasattr(transport, "sendto")
        self.transport = transport  # type: ignore[assignment] # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        assert self.transport is not None
        self.transport.sendto(self._answer(data), addr)

    def _answer(self, query: bytes) -> bytes:
        labels, position = [], 12
        while size := query[position]:
            labels.append(query[position + 1 : position + 1 + size].decode().lower())
            position += 1 + size
        question = query[12 : position + 5]
        kind = struct.unpack(">H", query[position + 1 : position + 3])[0]
        known = self.names.get(".".join(labels))
        code = _BROKEN if self.broken else _NO_SUCH_NAME if known is None else 0
        version = {_A: 4, _AAAA: 6}.get(kind)
        records = [ip_address(one).packed for one in known or () if ip_address(one).version == version]
        if code:
            records = []
        rows = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, self.ttl, len(record)) + record for record in records
        )
        return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + rows

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[NameServer]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = transport.get_extra_info("sockname")[1]
        try:
            yield self
        finally:
            transport.close()


@dataclass(slots=True)
class Names:
    """A look-up that answers by a table and needs no network; an answer holds for as short as one may."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    async def __call__(self, name: str) -> Resolved:
        if name not in self.names:
            raise NameNotResolved(name, "Domain name not found")
        return Resolved(self.names[name], 0.001)
