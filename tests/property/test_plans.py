"""Whatever is sent: what goes out for a request that is remembered is what goes out for one that never was."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.clock import Clock
from dataplane.downstream import Downstream
from dataplane.inbound import inbound_decider, to_app
from dataplane.live import Live
from dataplane.metrics import Metrics
from dataplane.plans import Plans
from dataplane.pools import Pools
from dataplane.upstream import Upstream
from harness.certificates import Authority
from harness.halves import swap
from harness.meshes import intention, sidecar
from policies.identity import verify_peer
from policies.mesh import Mesh
from policies.protection import INSIDE

RULES = [
    {"Action": "deny", "HTTP": {"PathPrefix": "/admin"}},
    {"Action": "deny", "HTTP": {"Header": [{"Name": "x-role", "Exact": "guest"}]}},
    {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET", "POST", "HEAD"]}},
]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

firsts = st.tuples(
    st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    st.sampled_from(["/", "/a?b=1", "/x/../admin", "/%61dmin", "/a%2Fb", "http://other/x", "/a b", "*"]),
).map(lambda pair: f"{pair[0]} {pair[1]} HTTP/1.1\r\nHost: api\r\n")
fields = st.lists(
    st.sampled_from(
        [
            "X-Role: guest",
            "x-role: admin",
            "Connection: x-role",
            "Connection: close",
            "TE: trailers",
            "X-A: 1",
            "x_b: 2",
            "X-Forwarded-Client-Cert: By=me",
            "X-Forwarded-Proto: https",
            "Expect: 100-continue",
            "Upgrade: h2c",
        ]
    ),
    max_size=4,
).map(lambda lines: "".join(f"{line}\r\n" for line in lines))
bodies = st.sampled_from(
    ["\r\n", "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"]
)


class Wire:
    """A transport that keeps what is written; also who keeps the connection."""

    client, each, protection, retiring = None, None, INSIDE, False

    def __init__(self, **told: object) -> None:
        self.told = told
        self.written: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        return self.told.get(name)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def joined(self, connection: object) -> None:
        """Keep nothing."""

    left = joined

    def write_eof(self) -> None:
        """Nobody looks."""

    pause_reading = resume_reading = write_eof


@pytest.fixture(scope="module")
def live(authority: Authority) -> Live:
    made, member = Live(), sidecar("api", authority, intentions=[intention("web", "api", permissions=RULES)])
    swap(made, member.table(), authority.leaf("api"), authority.roots(), Mesh())
    return made


def ask(live: Live, authority: Authority, request: bytes, times: int) -> tuple[list[object], Plans]:
    """Return what went to the app and to the caller each time, on a connection of its own, and the plans."""
    end = "-----END CERTIFICATE-----\n"
    certificate = ssl.PEM_cert_to_DER_cert(authority.leaf("web").chain_pem.partition(end)[0] + end)
    peer = verify_peer(certificate, authority.roots().trust_domain, datetime.now(UTC))

    async def run() -> tuple[list[object], Plans]:
        clock, metrics, plans = Clock(asyncio.get_running_loop()), Metrics(), Plans()
        pools = Pools(live, clock, metrics)
        decide, pool = inbound_decider(live, to_app(pools)), pools.of_app("127.0.0.1", 1)
        counts = metrics.for_http("inbound"), metrics.for_listener("inbound")
        seen: list[object] = []
        for _ in range(times):
            caller, app = Wire(peername=("10.0.0.1", 1), peer=peer, tls=True, certificate=certificate), Wire()
            upstream = Upstream(pool)
            upstream.connection_made(cast("Any", app))
            pool.put_back(upstream)
            downstream = Downstream(cast("Any", caller), decide, clock, counts, plans=plans)
            downstream.connection_made(cast("Any", caller))
            downstream.data_received(request)
            if app.written:
                upstream.data_received(ANSWER)
            pool.idle.clear()
            seen.append((app.written, caller.written, caller.closed))
        return seen, plans

    return asyncio.run(run())


@settings(max_examples=100)
@given(st.tuples(firsts, fields, bodies).map("".join))
def test_what_is_remembered_is_what_would_be_decided(live: Live, authority: Authority, request_text: str) -> None:
    request = request_text.encode()
    seen, plans = ask(live, authority, request, 4)
    assert all(one == seen[0] for one in seen)
    went_on = bool(cast("tuple[list[bytes], ...]", seen[0])[0])
    assert bool(plans.known) is went_on
