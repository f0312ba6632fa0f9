"""Vault's own method LIST, which no HTTP parser knows: rewritten to `GET ...?list=true` before aiohttp sees it."""

from __future__ import annotations

import asyncio

_METHOD = b"LIST "


def as_get(data: bytes) -> bytes:
    """Return bytes that begin with a LIST request as a GET of the same path; any other bytes as they are."""
    if not data.startswith(_METHOD):
        return data
    line, end, rest = data.partition(b"\r\n")
    target, space, version = line[len(_METHOD) :].partition(b" ")
    mark = b"&" if b"?" in target else b"?"
    return b"GET " + target + mark + b"list=true" + space + version + end + rest


class Listing(asyncio.Protocol):
    """Stands before an HTTP protocol. A request begins a packet: clients of a dev server do not pipeline."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on."""
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on, a LIST as a GET."""
        self._inner.data_received(as_get(data))

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on."""
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()
