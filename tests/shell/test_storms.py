"""Failures of every kind at once: each request has its end and its own answer, and nothing is left of any."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import h11
import pytest

from dataplane import upstream
from harness.certificates import Authority
from harness.halves import Half, half
from harness.meshes import Json, chain, instance, sidecar
from harness.servers import eventually
from harness.wire import App, Message, Side, Wire
from lictor.up.ports import free_ports
from policies.watches import ChainWatch, EndpointsWatch, RegistrationWatch

TARGET = "api.default.default.dc1"
REQUESTS = 120
CALLERS = 10
LIMITS = {"max_connections": 6, "max_pending_requests": 8, "max_concurrent_requests": 8}
RETRIED = {"NumRetries": 2, "RetryOn": ["5xx", "reset", "connect-failure"], "RequestTimeout": "1s"}

BUSY = b"HTTP/1.1 503 Busy\r\n"
FAILURES = (
    BUSY + b"content-length: 4\r\n\r\nbusy",
    BUSY + b"transfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
    BUSY + b"content-length: 60000\r\n\r\n" + b"x" * 60000,
    BUSY + b"content-length: 4\r\n\r\nbu",  # and no more
    BUSY + b"content-length: 4\r\n\r\nbusy" + BUSY + b"content-length: 4\r\n\r\nmore",
    b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nbu",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"nonsense\r\n\r\n",
    b"",  # nothing at all
    None,  # the end of the connection
)


@dataclass(slots=True)
class Storm:
    """What is asked, and what comes of it. `tried` counts what reaches the apps of requests without retries."""

    draw: random.Random
    asked: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    # --- the apps ---

    async def answer(self, side: Side, message: Message) -> bytes | None:
        number = message.get("x-number") or ""
        if message.body != body_of(number) * (len(message.body) // (len(number) + 1)) or (
            str(len(message.body)) != message.get("x-length")
        ):
            self.wrong.append(f"{number}: its body came as {message.body[:40]!r} of {len(message.body)}")
        if message.get("x-once") and message.first[0] == "POST":
            self.tried[number] += 1
        if message.get("upgrade"):
            await side.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            await asyncio.sleep(self.draw.random() * 0.1)
            return None
        await asyncio.sleep(self.draw.choice((0.0, 0.0, 0.01, 0.2)))
        if self.draw.random() < 0.4:
            head = message.first[0] == "HEAD"
            failure = self.draw.choice(FAILURES)
            return failure[: failure.find(b"\r\n\r\n") + 4] if failure and head else failure
        extra = self.draw.choice((b"", b"", b"connection: close\r\n"))
        hints = self.draw.choice((b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"))
        if self.draw.random() < 0.2:
            return hints + b"HTTP/1.1 204 No Content\r\nx-number: %b\r\n%b\r\n" % (number.encode(), extra)
        text = body_of(number) * 3
        answer = b"%bHTTP/1.1 200 OK\r\nx-number: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            hints,
            number.encode(),
            len(text),
            extra,
        )
        return answer if message.first[0] == "HEAD" else answer + text

    # --- the callers ---

    def request(self) -> tuple[str, str, bytes, bytes]:
        """Return its number, its method, what is sent of it, and what is sent later."""
        self.asked += 1
        number = str(self.asked)
        once = b"X-Once: 1\r\n" if self.draw.random() < 0.3 else b""
        size = self.draw.choice((0, 3, 3, 3000, 20000))
        body = body_of(number) * size
        fields = b" / HTTP/1.1\r\nHost: api\r\nX-Number: %b\r\n%b" % (number.encode(), once)
        method = self.draw.choice(("GET", "GET", "HEAD", "POST", "POST", "PUT"))
        if method in {"GET", "HEAD"}:
            fields += b"X-Length: 0\r\n"
            if method == "GET" and self.draw.random() < 0.15:
                fields += b"Connection: upgrade\r\nUpgrade: websocket\r\n"
            return number, method, method.encode() + fields + b"\r\n", b""
        fields += b"X-Length: %d\r\n" % len(body)
        if self.draw.random() < 0.2:
            fields += b"Expect: 100-continue\r\n"
        middle = len(body) // 2
        if self.draw.random() < 0.5:
            head = method.encode() + fields + b"Content-Length: %d\r\n\r\n" % len(body)
            return number, method, head + body[:middle], body[middle:]
        head = method.encode() + fields + b"Transfer-Encoding: chunked\r\n\r\n"
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:middle], body[middle:]) if part]
        return number, method, head + b"".join(chunks[:1]), b"".join(chunks[1:]) + b"0\r\n\r\n"

    async def call(self, port: int) -> None:
        while self.asked < REQUESTS:
            async with await Wire.open(port) as wire:
                with contextlib.suppress(h11.RemoteProtocolError, ConnectionError):
                    while await self.ask(wire):
                        pass

    async def ask(self, wire: Wire) -> bool:
        """Ask once; return whether the connection may be used again."""
        number, method, now, later = self.request()
        await wire.send(now)
        if self.draw.random() < 0.1:
            wire.writer.transport.abort()
            return False
        if later:
            await asyncio.sleep(self.draw.choice((0.0, 0.02)))
            await wire.send(later)
        if "upgrade" in now.decode("latin-1").lower():
            await wire.until(b"\r\n\r\n")
            return False
        try:
            answer = await wire.answer(method)
        except TimeoutError:
            self.wrong.append(f"{number}: no answer")
            raise
        self.ended[str(answer.status)] += 1
        if answer.status < 300 and answer.get("x-number") is not None:
            text = b"" if method == "HEAD" or answer.status == 204 else body_of(number) * 3
            if (answer.get("x-number"), answer.body) != (number, text):
                self.wrong.append(f"{number}: answered with {answer}")
        return answer.get("connection") != "close" and self.draw.random() < 0.8


def body_of(number: str) -> bytes:
    return f"{number};".encode()


def left(one: Half) -> list[str]:
    """Return what is counted and is not there, or known of whom is gone."""
    found = []
    pools = one.dataplane.pools
    for name, target in pools._targets.items():
        mine = [pool for (of, _), pool in pools._pools.items() if of == name]
        idle, circuit = sum(len(pool.idle) for pool in mine), target.circuit
        counts = (circuit.pending, circuit.active, sum(pool.active for pool in mine), circuit.connections - idle)
        waiting = sum(len(pool._waiting) for pool in mine) + len(circuit.starving)
        ghosts = len((target.outliers.out | target.outliers._known.keys()) - set(mine))
        if any(counts) or waiting or ghosts:
            found.append(f"{name}: {counts=} {idle=} {waiting=} {ghosts=}")
    return found


@contextlib.asynccontextmanager
async def caller(authority: Authority, rows: list[Json]) -> AsyncIterator[tuple[Half, int]]:
    """Run a caller with limits and retries, except of requests that say `X-Once`."""
    answer = chain("api")
    answer["StartNode"] = "router:api.default.default"
    once = {
        "Match": {"HTTP": {"Header": [{"Name": "x-once", "Present": True}]}},
        "Destination": {"RequestTimeout": "1s"},
    }
    answer["Nodes"]["router:api.default.default"] = {
        "Type": "router",
        "Name": "api.default.default",
        "Routes": [
            {"Definition": definition, "NextNode": f"resolver:{TARGET}"}
            for definition in (once, {"Destination": RETRIED})
        ],
    }
    (port,) = free_ports(1)
    web = sidecar("web", authority, upstreams={"api": port}, config={"per_try_timeout_ms": 150})
    registration = web.answers[RegistrationWatch(web.proxy_id)]
    health = {"base_ejection_time": 200_000_000, "max_ejection_percent": 60}  # 0.2 s
    registration["Proxy"]["Upstreams"][0]["Config"] = {"limits": LIMITS, "passive_health_check": health}
    web.hear(RegistrationWatch(web.proxy_id), registration)
    web.hear(ChainWatch("api", "api"), answer).hear(EndpointsWatch("api"), rows)
    async with half(web) as running:
        yield running, port


async def test_each_request_has_its_end_and_its_own_answer_and_nothing_is_left(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "UNWANTED_SECONDS", 0.5)
    storm = Storm(random.Random(0))
    async with contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(App(storm.answer).running()) for _ in range(3)]
        allow = {"SourceName": "*", "DestinationName": "api", "Action": "allow"}
        apis = [
            await stack.enter_async_context(half(sidecar("api", authority, local_port=app.port, intentions=[allow])))
            for app in apps
        ]
        ports = [*(api.port("inbound") for api in apis), *free_ports(1)]  # nobody is at the last one
        rows = [instance("api", port, number) for number, port in enumerate(ports, 1)]
        web, port = await stack.enter_async_context(caller(authority, rows))
        calls = asyncio.gather(*(storm.call(port) for _ in range(CALLERS)))
        while not calls.done():
            await asyncio.wait([calls], timeout=0.1)
            web.member.hear(EndpointsWatch("api"), storm.draw.sample(rows, storm.draw.randrange(1, 5)))
            web.follow()
            if storm.draw.random() < 0.3:
                for listener in storm.draw.choice(apis).dataplane.listeners.values():
                    for connection in tuple(listener.connections):
                        connection.abort()
        await calls
        assert {"200", "503"} <= storm.ended.keys()
        assert web.metrics.for_upstream(TARGET).retries > 0
        assert storm.wrong == []
        assert [number for number, times in storm.tried.items() if times > 1] == [], "a POST without a policy"
        assert storm.tried, "some of them came"
        await eventually(lambda: not [found for one in (web, *apis) for found in left(one)])
