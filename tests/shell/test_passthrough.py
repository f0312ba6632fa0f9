"""TLS that the gateway does not end: the caller's own handshake reaches the service that its SNI names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable

import pytest

from dataplane.tls import in_memory
from harness.certificates import Authority
from harness.halves import Half, half
from harness.hellos import OF_CURL, message, records
from harness.meshes import Json, chain, ingress, intention, sidecar, upstream
from harness.wire import Wire, echo_server
from lictor.up.ports import free_ports
from policies.compiler import compile_table
from policies.edge.passthrough import PassthroughRule
from policies.edge.proxy_protocol import ProxyProtocol
from policies.edge.settings import EdgeSettings


def shown(authority: Authority, name: str) -> ssl.SSLContext:
    certificate = authority.server(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with in_memory(certificate.chain_pem.encode() + b"\n" + certificate.key_pem) as path:
        context.load_cert_chain(path)
    return context


@contextlib.asynccontextmanager
async def edge(
    authority: Authority, rules: Iterable[tuple[str, str]], apps: dict[str, int], action: str = "allow"
) -> AsyncIterator[tuple[Half, int]]:
    """Run a gateway whose names lead to these services, each with its app's port. Yields its passthrough port too."""
    (port,) = free_ports(1)
    settings = EdgeSettings(passthrough=tuple(PassthroughRule(port, sni, service) for sni, service in rules))
    async with contextlib.AsyncExitStack() as stack:
        member = ingress("edge", authority, [], edge=settings)
        for service, app in apps.items():
            rows = [intention("edge", service, action)]
            side = await stack.enter_async_context(
                half(sidecar(service, authority, local_port=app, protocol="tcp", intentions=rows))
            )
            upstream(member, service, [side.port("inbound")], chain(service, "tcp"))
        yield await stack.enter_async_context(half(member)), port


async def speak(port: int, authority: Authority, name: str) -> str:
    """Return what comes back over TLS with the server of this name; `` when it does not come to that."""
    context = ssl.create_default_context(cadata=authority.pem)
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    except (OSError, ssl.SSLError):
        return ""
    writer.write(b"hello")
    answer = await reader.read(100)
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    return answer.decode()


async def test_the_name_chooses_whose_handshake_it_is(authority: Authority) -> None:
    rules = [("db.example.com", "db"), ("*.example.com", "wide")]
    async with (
        echo_server(shown(authority, "db.example.com")) as db,
        echo_server(shown(authority, "x.example.com")) as wide,
        edge(authority, rules, {"db": db, "wide": wide}) as (gateway, port),
    ):
        assert await speak(port, authority, "db.example.com") == "hello"
        assert await speak(port, authority, "DB.example.com") == "hello"
        assert await speak(port, authority, "x.example.com") == "hello"
        assert await speak(port, authority, "y.example.com") == ""  # the wide one's certificate is not for it
        assert gateway.refused() == {}
        assert await speak(port, authority, "elsewhere.test") == ""
        assert gateway.refused() == {"unknown_sni": 1}


async def test_a_hello_in_many_pieces_goes_on_whole(authority: Authority) -> None:
    async with (
        echo_server() as db,
        edge(authority, [("db.example.com", "db")], {"db": db}) as (_, port),
        await Wire.open(port) as wire,
    ):
        hello = records(OF_CURL[5:], 100)
        for at in range(0, len(hello), 50):
            await wire.send(hello[at : at + 50])
            await asyncio.sleep(0.001)
        assert await wire.reader.readexactly(len(hello)) == hello
        await wire.send(b"and more")
        assert await wire.read() == b"and more"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "plaintext"), (OF_CURL, "unknown_sni"), (b"\x16\x03\x01\x00\x00", "bad_client_hello")],
)
async def test_what_leads_nowhere_is_reset_and_counted(authority: Authority, sent: bytes, reason: str) -> None:
    async with echo_server() as db, edge(authority, [("other.test", "db")], {"db": db}) as (gateway, port):
        async with await Wire.open(port) as wire:
            await wire.send(sent)
            with pytest.raises(ConnectionResetError):
                await wire.reader.read(1)
        assert gateway.refused() == {reason: 1}


async def test_callers_without_a_name_need_a_line_of_their_own(authority: Authority) -> None:
    hello = records(message())
    async with echo_server() as db, edge(authority, [("", "db")], {"db": db}) as (_, port):
        async with await Wire.open(port) as wire:
            await wire.send(hello)
            assert await wire.read() == hello


async def test_intentions_of_the_service_hold_for_the_gateway(authority: Authority) -> None:
    async with (
        echo_server() as db,
        edge(authority, [("db.example.com", "db")], {"db": db}, "deny") as (_, port),
        await Wire.open(port) as wire,
    ):
        await wire.send(OF_CURL)
        assert await wire.read() == b""


async def test_a_service_that_speaks_http_is_a_problem_and_not_served(authority: Authority) -> None:
    (port,) = free_ports(1)
    member = ingress("edge", authority, [], edge=EdgeSettings(passthrough=(PassthroughRule(port, "*", "web"),)))
    upstream(member, "web", [1])
    (problem,) = compile_table(member.snapshot)[1]
    assert "web speaks http" in problem.message
    async with half(member) as gateway, await Wire.open(port) as wire:
        await wire.send(OF_CURL)
        assert await wire.read() == b""
        assert gateway.refused() == {"not_tcp": 1}


async def test_a_service_that_speaks_http_cannot_be_sent_proxy_headers(authority: Authority) -> None:
    settings = EdgeSettings(proxy_protocol=ProxyProtocol(send_to=("web", "db")))
    listeners: list[Json] = [{"Port": 9443, "Protocol": "http", "Services": [{"Name": "web"}]}]
    member = ingress("edge", authority, listeners, edge=settings)
    upstream(member, "web", [1])
    (problem,) = compile_table(member.snapshot)[1]
    assert "web speaks http" in problem.message


async def test_a_port_of_consuls_entry_stays_its_own(authority: Authority) -> None:
    listeners: list[Json] = [{"Port": 9443, "Protocol": "http", "Services": [{"Name": "web"}]}]
    member = ingress("edge", authority, listeners, edge=EdgeSettings(passthrough=(PassthroughRule(9443, "*", "db"),)))
    upstream(member, "web", [1])
    table, (problem,) = compile_table(member.snapshot)
    assert table.passthrough == ()
    assert "Consul's entry" in problem.message
