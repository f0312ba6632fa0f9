"""The backend never sees a request that the policy did not judge, whatever is sent at any listener.

Every row goes in at four places: through the caller's sidecar, straight at the called one's mTLS listener, and through
the ingress gateway, in plaintext and over TLS. Behind them stands a recorder that reads by the letter. What it saw is
held against what the intentions were asked and allowed, and against the row.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from dataplane.plans import Key, Plan
from harness.certificates import Authority, client_context
from harness.halves import half
from harness.meshes import ingress, intention, sidecar, upstream
from harness.recorder import Recorder
from harness.smuggling import ADMIN, Answer, Row, answers, rows
from lictor.up.ports import free_ports
from policies.edge.server_certificates import CertificateReference, CertificateUpdate
from policies.edge.settings import EdgeSettings
from policies.edge.tls import OWN, EdgeTls, FileCertificate
from policies.intentions import Decision, SourcePolicy
from policies.matching import Headers

PATIENCE = 10.0
FENCE = b"GET /fence HTTP/1.1\r\nHost: api\r\n\r\n"
RULES = [{"Action": "deny", "HTTP": {"PathPrefix": "/admin"}}, {"Action": "allow", "HTTP": {"PathPrefix": "/"}}]
ROWS, ANSWERS = tuple(rows()), tuple(answers())


@dataclass(slots=True)
class World:
    """The running mesh: `doors` are its listeners, each with how to speak to it."""

    recorder: Recorder
    judged: list[tuple[str, str, bool]]
    doors: dict[str, Callable[[], socket.socket]]
    read: int = 0  # how many of the recorder's requests were looked at

    def seen(self, count: int) -> list[str]:
        """Return what the recorder has seen since the last call, when that is `count` requests or time is up."""
        ends = time.monotonic() + PATIENCE
        while len(self.recorder.requests) - self.read < count and time.monotonic() < ends:
            time.sleep(0.001)
        found = [str(request) for request in self.recorder.requests[self.read :]]
        self.read += len(found)
        return found


@pytest.fixture(autouse=True)
def _nothing_left() -> None:
    """Take the place of the folder's: here connections stay open from row to row."""


class Known(dict[Key, Plan]):
    """The plans of the called side: a request for which one is found has been judged and allowed."""

    def __init__(self, judged: list[tuple[str, str, bool]]) -> None:
        super().__init__()
        self._judged = judged

    def get(self, key: Key, default: object = None) -> Any:
        plan = super().get(key)
        if plan is not None:
            self._judged.append((plan.head.method, plan.head.path, True))
        return plan


@pytest.fixture(scope="module")
def world(authority: Authority) -> Iterator[World]:
    judged: list[tuple[str, str, bool]] = []
    ask = SourcePolicy.request

    def request(self: SourcePolicy, method: str, path: str, headers: Headers) -> Decision:
        decision = ask(self, method, path, headers)
        judged.append((method, path, decision.allowed))
        return decision

    recorder = Recorder({f"/answer/{row.id}": (row.raw, row.hang_up) for row in ANSWERS})
    made = World(recorder, judged, {})
    started, stop = threading.Event(), asyncio.Event()
    loop = uvloop.new_event_loop()

    async def run() -> None:
        edge_port, tls_port, port = free_ports(3)
        listener = {"Protocol": "http", "Services": [{"Name": "api", "Hosts": ["*"]}]}
        listeners = [{**listener, "Port": edge_port}, {**listener, "Port": tls_port, "TLS": {"Enabled": True}}]
        certificates = EdgeTls({"api": FileCertificate("api.pem", "api.key")})
        rules = [intention("*", "api", permissions=RULES)]
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(recorder.running())
            called = sidecar("api", authority, local_port=recorder.port, intentions=rules)
            api = await stack.enter_async_context(half(called))
            api.live.plans.known = Known(judged)
            web = upstream(sidecar("web", authority, upstreams={"api": port}), "api", [api.port("inbound")])
            await stack.enter_async_context(half(web))
            edge = ingress("edge", authority, listeners, edge=EdgeSettings(tls=certificates))
            edge.take(CertificateUpdate(CertificateReference(OWN, "api"), authority.server("api")))
            upstream(edge, "api", [api.port("inbound")])
            await stack.enter_async_context(half(edge))
            context, inbound = client_context(authority, "web"), api.port("inbound")
            outside = ssl.create_default_context(cadata=authority.pem)
            made.doors = {
                "pair": lambda: dial(port),
                "inbound": lambda: context.wrap_socket(dial(inbound)),
                "ingress": lambda: dial(edge_port),
                "ingress with TLS": lambda: outside.wrap_socket(dial(tls_port), server_hostname="api"),
            }
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourcePolicy, "request", request)
        thread.start()
        try:
            assert started.wait(PATIENCE)
            yield made
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


def dial(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@dataclass(slots=True)
class Caller:
    """One connection, read answer by answer."""

    sock: socket.socket
    _held: bytes = field(default=b"")

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # refused before the last byte was sent
            self.sock.sendall(data)

    def answer(self) -> tuple[int, bytes] | None:
        """Return the next answer's status and body, or None at the end."""
        head = self._until(b"\r\n\r\n")
        if not head:
            return None
        status = int(head.split(b" ", 2)[1])
        if status < 200 or status in {204, 304}:
            return status, b""
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", head):
            return status, self._chunks()
        length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)\r\n", head)
        assert length is not None, head
        return status, self._exactly(int(length[1]))

    def rest(self) -> bytes:
        while self._more():
            pass
        return self._held

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n"), 16):
            body += self._exactly(size + 2)[:-2]
        self._until(b"\r\n")
        return body

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            if not self._more():
                assert not self._held, self._held
                return b""
        found, _, self._held = self._held.partition(end)
        return found + end

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            if not self._more():
                raise EOFError(self._held)
        found, self._held = self._held[:size], self._held[size:]
        return found

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return False
        self._held += data
        return bool(data)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_backend_sees_only_what_was_judged(world: World, row: Row) -> None:
    for door, open_door in world.doors.items():
        with open_door() as sock:
            caller = Caller(sock)
            caller.send(row.raw)
            if row.hang_up:
                socket.socket.shutdown(sock, socket.SHUT_WR)
            got = [answer[0] if (answer := caller.answer()) else None for _ in row.statuses]
            assert (door, got) == (door, list(row.statuses))
            expected = list(row.seen)
            if row.closes or row.hang_up:
                assert (door, caller.rest()) == (door, b"")
            else:
                caller.send(FENCE)
                assert (door, caller.answer()) == (door, (200, b"ok"))
                expected.append("GET /fence")
        assert (door, world.seen(len(expected))) == (door, expected)
    check(world)


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row.id)
def test_an_answer_is_its_own_requests_and_no_more(world: World, row: Answer) -> None:
    target = f"/answer/{row.id}"
    request = f"GET {target} HTTP/1.1\r\nHost: api\r\n\r\n".encode()
    for door, open_door in world.doors.items():
        with open_door() as sock:
            caller = Caller(sock)
            caller.send(request)
            if row.status == 0:
                with pytest.raises((EOFError, AssertionError, ValueError)):
                    caller.answer()
                assert world.seen(1) == [f"GET {target}"]
                continue
            answer = caller.answer()
            while answer is not None and answer[0] == 103:
                answer = caller.answer()
            assert answer is not None, door
            assert (door, answer[0]) == (door, row.status)
            if row.body:
                assert answer[1] == row.body
            caller.send(FENCE)
            assert (door, caller.answer()) == (door, (200, b"ok"))
        # A connection that ended before its answer may have been an old one that was just closing: once more.
        assert dict.fromkeys(world.seen(2)) == dict.fromkeys([f"GET {target}", "GET /fence"])
    check(world)


def check(world: World) -> None:
    """Hold what the recorder saw against what was judged and allowed."""
    strange, world.recorder.strange = world.recorder.strange, []
    assert strange == []
    hung_up = {target for target, (_, hangs_up) in world.recorder.answers.items() if hangs_up}  # may be asked once more
    asked = [one for one in world.recorder.requests if one.target not in hung_up]
    seen = Counter((one.method, one.target.partition("?")[0]) for one in asked)
    allowed = Counter((method, path) for method, path, allowed in world.judged if allowed)
    assert not seen - allowed
    assert not [path for _, path in seen if path.startswith("/admin")]


def test_the_table_is_as_long_as_was_promised() -> None:
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids))
    assert len(ids) + len(ANSWERS) >= 200
    assert sum(ADMIN in row.raw or b"admin" in row.raw for row in ROWS) > 150
