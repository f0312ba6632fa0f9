"""Who may speak at all: the mTLS port, from both ends, and what becomes of it when leaves change or end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
import warnings
from dataclasses import replace
from datetime import timedelta

import pytest

from dataplane.tls import build_contexts
from harness.certificates import TRUST_DOMAIN, Authority, Mistakes, bad_client_context, client_context, spiffe
from harness.halves import half, pair, swap
from harness.meshes import sidecar, upstream
from harness.servers import eventually
from harness.wire import App, Wire
from lictor.up.ports import free_ports
from policies.errors import BadLeaf
from policies.mesh import TlsLimits
from policies.watches import MeshWatch, RootsWatch

GET = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"

BAD_LEAVES = {
    "no_san": Mistakes(uris=()),
    "two_uris": Mistakes(uris=(str(spiffe("web")), str(spiffe("api")))),
    "not_spiffe": Mistakes(uris=("https://web.example",)),
    "not_a_service": Mistakes(uris=(f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/n1",)),
    "wrong_trust_domain": Mistakes(uris=("spiffe://other.consul/ns/default/dc/dc1/svc/web",)),
    "expired": Mistakes(starts=-timedelta(hours=2), ends=-timedelta(hours=1)),
    "not_yet_valid": Mistakes(starts=timedelta(hours=1), ends=timedelta(hours=2)),
    "ca_certificate": Mistakes(ca=True),
    "wrong_usage": Mistakes(server_only=True),
}


async def speak(port: int, context: ssl.SSLContext | None) -> bytes:
    """Send a request that asks for no further one, and return everything that comes back."""
    try:
        wire = await Wire.open(port, context)
    except (ssl.SSLError, ConnectionError):
        return b""
    async with wire:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await wire.send(b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n")
        return await wire.rest()


@pytest.mark.parametrize("reason", BAD_LEAVES)
async def test_a_caller_with_a_bad_leaf_is_refused_before_a_byte(authority: Authority, reason: str) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        assert await speak(p.api.port("inbound"), bad_client_context(authority, "web", BAD_LEAVES[reason])) == b""
        assert p.api.refused() == {reason: 1}
    assert app.connections == 0


async def test_a_caller_of_another_ca_is_refused(authority: Authority, stranger: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        assert await speak(p.api.port("inbound"), bad_client_context(stranger, "web", Mistakes())) == b""
        assert p.api.refused() == {"foreign_ca": 1}
    assert app.connections == 0


async def test_a_caller_without_a_certificate_is_refused(authority: Authority) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with App().running() as app, pair(authority, app.port) as p:
        assert await speak(p.api.port("inbound"), context) == b""
        assert p.api.refused() == {"no_certificate": 1}


async def test_plain_http_on_the_mtls_port_is_refused(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        assert await speak(p.api.port("inbound"), None) == b""
        assert p.api.refused() == {"plaintext": 1}
    assert app.connections == 0


async def test_tls_1_1_is_refused(authority: Authority) -> None:
    context = client_context(authority, "web")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with App().running() as app, pair(authority, app.port) as p:
        assert await speak(p.api.port("inbound"), context) == b""
        assert p.api.refused() == {"protocol_version": 1}


async def test_the_mesh_entry_sets_the_lowest_version(authority: Authority) -> None:
    context = client_context(authority, "web")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with App().running() as app, pair(authority, app.port) as p:
        assert (await speak(p.api.port("inbound"), context)).startswith(b"HTTP/1.1 200")
        p.api.member.hear(MeshWatch(), {"TLS": {"Incoming": {"TLSMinVersion": "TLSv1_3"}}})
        p.api.follow()
        assert await speak(p.api.port("inbound"), context) == b""
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_a_peer_that_leaves_at_once_is_counted(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        with socket.create_connection(("127.0.0.1", p.api.port("inbound"))):
            pass
        await eventually(lambda: p.api.refused() == {"closed": 1})


async def test_any_service_of_the_mesh_may_knock_and_an_alpn_without_overlap_is_ignored(authority: Authority) -> None:
    context = client_context(authority, "not-registered")
    context.set_alpn_protocols(["h2"])
    async with App().running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.api.port("inbound"), context) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_no_session_is_ever_resumed(authority: Authority) -> None:
    context = client_context(authority, "web")
    async with App().running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.api.port("inbound"), context) as wire:
            await wire.ask(GET)
            first = wire.writer.get_extra_info("ssl_object")
            assert first.session is None or not first.session.has_ticket


# --- the caller's side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistakes",
    [
        Mistakes(uris=(str(spiffe("db")),)),
        Mistakes(uris=()),
        Mistakes(uris=(str(spiffe("api")), str(spiffe("db")))),
        Mistakes(starts=-timedelta(hours=2), ends=-timedelta(hours=1)),
        Mistakes(ca=True),
        Mistakes(client_only=True),
    ],
)
async def test_a_called_end_that_is_not_who_it_should_be_gets_no_byte(authority: Authority, mistakes: Mistakes) -> None:
    """A real TLS server with a bad leaf stands where api should be."""
    heard = bytearray()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = authority.leaf("api", mistakes)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(leaf.chain_pem + leaf.key_pem.decode())
        file.flush()
        server_context.load_cert_chain(file.name)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            heard.extend(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=server_context)
    (port,) = free_ports(1)
    web = upstream(sidecar("web", authority, upstreams={"api": port}), "api", [server.sockets[0].getsockname()[1]])
    async with half(web) as caller, await Wire.open(caller.port("upstream")) as wire:
        assert (await wire.ask(GET)).status == 503
    server.close()
    assert not heard


# --- rotation -------------------------------------------------------------------------------------------------------


def serial_of(wire: Wire) -> str:
    return str(wire.writer.get_extra_info("peercert")["serialNumber"]).lower().lstrip("0")


async def test_new_handshakes_use_the_new_leaf_and_old_connections_live_on(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        context = client_context(authority, "web")
        first = await Wire.open(p.api.port("inbound"), context)
        old = p.api.member.snapshot.leaf
        p.api.member.renew()
        p.api.follow()
        new = p.api.member.snapshot.leaf
        second = await Wire.open(p.api.port("inbound"), context)
        assert old is not None
        assert new is not None
        assert serial_of(first) == old.serial.lstrip("0")
        assert serial_of(second) == new.serial.lstrip("0")
        assert (await first.ask(GET)).status == (await second.ask(GET)).status == 200
        await first.close()
        await second.close()


async def test_a_leaf_that_does_not_fit_the_roots_is_refused_and_the_old_one_stays(
    authority: Authority, stranger: Authority
) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        before = p.api.live.current
        assert before is not None
        with pytest.raises(BadLeaf):
            swap(p.api.live, before.table, stranger.leaf("api"), before.roots, before.mesh)
        assert p.api.live.current is before
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_a_key_of_another_leaf_is_refused(authority: Authority) -> None:
    one, other = authority.leaf("api"), authority.leaf("api")
    with pytest.raises(BadLeaf):
        build_contexts(replace(one, key_pem=other.key_pem), authority.roots(), TlsLimits(), TlsLimits())


async def test_both_roots_are_trusted_while_the_ca_rotates(authority: Authority, stranger: Authority) -> None:
    roots = {
        "ActiveRootID": "r2",
        "TrustDomain": TRUST_DOMAIN,
        "Roots": [{"ID": "r1", "RootCert": authority.pem}, {"ID": "r2", "RootCert": stranger.pem, "Active": True}],
    }
    async with App().running() as app, pair(authority, app.port) as p:
        for one in (p.web, p.api):
            one.member.hear(RootsWatch(), roots)
        p.api.member.authority = stranger
        p.api.member.renew()
        p.web.follow()
        p.api.follow()
        async with await Wire.open(p.port) as wire:
            assert (await wire.ask(GET)).status == 200


async def test_an_expired_leaf_of_our_own_closes_the_door(authority: Authority) -> None:
    async with App().running() as app, pair(authority, app.port) as p:
        p.api.member.renew(Mistakes(ends=timedelta(minutes=1)))
        p.api.follow()
        context = client_context(authority, "web")
        wire = await Wire.open(p.api.port("inbound"), context)
        p.api.later(50)
        assert (await wire.ask(GET)).status == 200
        p.api.later(11)
        assert await wire.rest() == b""  # closed when its certificate ended, not later
        await wire.close()
        assert await speak(p.api.port("inbound"), context) == b""
        assert p.api.refused() == {"own_leaf_expired": 1}
        p.api.member.renew()
        p.api.follow()
        async with await Wire.open(p.api.port("inbound"), context) as again:
            assert (await again.ask(GET)).status == 200


async def test_a_connection_ends_with_the_callers_certificate(authority: Authority) -> None:
    context = bad_client_context(authority, "web", Mistakes(ends=timedelta(minutes=1)))
    async with App().running() as app, pair(authority, app.port) as p:
        async with await Wire.open(p.api.port("inbound"), context) as wire:
            p.api.later(50)
            assert (await wire.ask(GET)).status == 200
            p.api.later(11)
            assert await wire.rest() == b""
