"""Python's clients as callers: BASE CA sequence|connections http.client|requests|aiohttp. See __init__.py."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import aiohttp
import requests

Answer = tuple[int, Mapping[str, str], bytes]
Ask = Callable[[str, str, bytes | None, str], Awaitable[Answer]]  # method, path, body, and how it is framed
LARGE = b"0123456789abcdef" * 65536
PARALLEL = 8


def parts(body: bytes) -> Iterator[bytes]:
    yield from (body[at : at + 100_000] for at in range(0, len(body), 100_000))


def with_http_client(base: str, ca: str) -> Ask:
    url = urlsplit(base)
    assert url.hostname is not None
    context = ssl.create_default_context(cafile=ca)
    connection = (
        http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=10)
        if url.scheme == "https"
        else http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    )

    async def ask(method: str, path: str, body: bytes | None, framing: str) -> Answer:
        chunked = framing == "chunked"
        sent = parts(body) if chunked and body is not None else body
        connection.request(method, path, sent, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers.items()), answer.read()

    return ask


def with_requests(base: str, ca: str) -> Ask:
    session = requests.Session()
    session.trust_env = False

    async def ask(method: str, path: str, body: bytes | None, framing: str) -> Answer:
        sent = parts(body) if framing == "chunked" and body is not None else body
        answer = session.request(method, base + path, data=sent, verify=ca, timeout=10)
        return answer.status_code, answer.headers, answer.content

    return ask


def with_aiohttp(base: str, ca: str, session: aiohttp.ClientSession) -> Ask:
    context = ssl.create_default_context(cafile=ca)

    async def stream(body: bytes) -> AsyncIterator[bytes]:
        for part in parts(body):
            yield part

    async def ask(method: str, path: str, body: bytes | None, framing: str) -> Answer:
        sent = stream(body) if framing == "chunked" and body is not None else body
        waits = framing == "expect"
        async with session.request(method, base + path, data=sent, ssl=context, expect100=waits) as answer:
            return answer.status, answer.headers, await answer.read()

    return ask


# name, method, path, body, framing; status, framing as the app saw it, body
CASES = (
    ("get", "GET", "/", None, "", 200, "none", b"hello"),
    ("head", "HEAD", "/", None, "", 200, "none", b""),
    ("204", "GET", "/empty", None, "", 204, "none", b""),
    ("chunked-answer", "GET", "/chunked", None, "", 200, "none", b"parts of it"),
    ("large", "GET", "/large", None, "", 200, "none", LARGE),
    ("post", "POST", "/echo", LARGE, "", 200, "length", LARGE),
    ("post-chunked", "POST", "/echo", LARGE, "chunked", 200, "chunked", LARGE),
    ("expect", "POST", "/echo", b"waits", "expect", 200, "length", b"waits"),
)


async def sequence(client: str, ask: Ask) -> None:
    for name, method, path, body, framing, status, seen, text in CASES:
        if name == "expect" and client != "aiohttp":
            continue  # the other two do not know it
        try:
            found, fields, told = await ask(method, path, body, framing)
        except (OSError, http.client.HTTPException, aiohttp.ClientError) as error:
            print(name, "failed", repr(error))
            continue
        length = {key.lower(): value for key, value in fields.items()}.get("content-length")
        right = found == status and told == text and {**fields}.get("x-framing") == seen
        right = right and (method != "HEAD" or length == "5")
        print(name, "ok" if right else f"failed {found} {len(told)} {dict(fields)}")


async def connections(asks: list[Ask], *, threads: bool) -> None:
    async def one(ask: Ask) -> bool:
        status, _, body = await ask("GET", "/slow", None, "")
        return (status, body) == (200, b"hello")

    if threads:
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = list(pool.map(lambda ask: asyncio.run(one(ask)), asks))
    else:
        found = await asyncio.gather(*(one(ask) for ask in asks))
    print("connections", "ok" if all(found) else "failed")


async def main(base: str, ca: str, what: str, client: str) -> None:
    async with aiohttp.ClientSession() as session:
        makers: dict[str, Callable[[], Ask]] = {
            "http.client": lambda: with_http_client(base, ca),
            "requests": lambda: with_requests(base, ca),
            "aiohttp": lambda: with_aiohttp(base, ca, session),
        }
        make = makers[client]
        if what == "sequence":
            await sequence(client, make())
        else:
            await connections([make() for _ in range(PARALLEL)], threads=client != "aiohttp")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
