"""What a certificate authority sees of a gateway while it proves a name."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from controlplane.certificates.acme_client import challenge_certificate
from harness.certificates import Authority
from harness.halves import edge
from harness.meshes import Json
from harness.servers import eventually
from harness.wire import App, Wire, say
from lictor.up.ports import free_ports
from policies.edge.acme import HTTP_01, TLS_ALPN_01, AcmeCertificate, HttpChallenge
from policies.edge.server_certificates import CertificateReference, CertificateUpdate, read_server_certificate
from policies.edge.settings import EdgeSettings
from policies.edge.tls import EdgeTls, PortWords, RedirectToTls

PATH = "/.well-known/acme-challenge/"
WEB = {"Name": "web", "Hosts": ["*"]}


def settings(challenge: str, words: PortWords = PortWords()) -> EdgeSettings:
    certificate = AcmeCertificate("https://ca/directory", ("web.com",), "/nowhere", challenge)
    return EdgeSettings(tls=EdgeTls({"web": certificate}, words))


def listener(port: int, *, tls: bool) -> Json:
    return {"Port": port, "Protocol": "http", "Services": [WEB], "TLS": {"Enabled": tls}}


def caller(*alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


async def call(port: int, context: ssl.SSLContext, name: str = "web.com") -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    return Wire(reader, writer)


async def test_a_pending_token_is_answered_in_plaintext_and_everything_else_is_routed(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        App(say(b"web")).running() as web,
        edge(authority, [listener(port, tls=False)], {"web": web.port}, settings=settings(HTTP_01)) as gateway,
        await Wire.open(port) as wire,
    ):
        asked = f"GET {PATH}token HTTP/1.1\r\nHost: web.com\r\n\r\n".encode()
        assert (await wire.ask(asked)).body == b"web"
        pending = HttpChallenge("token", "token.thumb")
        gateway.dataplane.edge.challenges.offer(pending)
        for _ in range(2):
            answer = await wire.ask(asked)
            assert (answer.status, answer.body) == (200, b"token.thumb")
        assert (await wire.ask(asked.replace(b"token", b"other"))).body == b"web"
        gateway.dataplane.edge.challenges.withdraw(pending)
        assert (await wire.ask(asked)).body == b"web"


async def test_a_pending_token_comes_before_the_redirect_to_tls(authority: Authority) -> None:
    (port, secure) = free_ports(2)
    words = PortWords(redirect=RedirectToTls(secure))
    listeners = [listener(port, tls=False), listener(secure, tls=True)]
    async with (
        edge(authority, listeners, {}, settings=settings(HTTP_01, words)) as gateway,
        await Wire.open(port) as wire,
    ):
        asked = f"GET {PATH}token HTTP/1.1\r\nHost: web.com\r\n\r\n".encode()
        gateway.dataplane.edge.challenges.offer(HttpChallenge("token", "token.thumb"))
        assert (await wire.ask(asked)).body == b"token.thumb"
        assert (await wire.ask(asked.replace(b"token", b"other"))).status == 308


async def test_until_there_is_a_certificate_only_the_ca_is_shown_one(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with (
        App(say(b"web")).running() as web,
        edge(authority, [listener(port, tls=True)], {"web": web.port}, settings=settings(TLS_ALPN_01)) as gateway,
    ):
        pending = challenge_certificate("web.com", "token.thumb")
        gateway.dataplane.edge.challenges.offer(pending)
        async with await call(port, caller("acme-tls/1")) as wire:
            told = wire.writer.get_extra_info("ssl_object")
            shown = read_server_certificate(ssl.DER_cert_to_PEM_cert(told.getpeercert(True)), b"", "the gateway")
            assert shown.serial == read_server_certificate(pending.chain_pem, b"", "").serial
            assert told.selected_alpn_protocol() == "acme-tls/1"
            await wire.send(b"GET / HTTP/1.1\r\nHost: web.com\r\n\r\n")
            assert await wire.rest() == b""
        for context, name in ((caller(), "web.com"), (caller("acme-tls/1"), "other.com")):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await call(port, context, name)
        await eventually(lambda: gateway.refused() == {"closed": 2})
        gateway.dataplane.edge.challenges.withdraw(pending)
        signed = Authority("the outside").server("web.com")
        gateway.member.take(CertificateUpdate(CertificateReference("own", "web"), signed))
        gateway.follow()
        async with await call(port, caller("http/1.1")) as wire:
            assert (await wire.ask(b"GET / HTTP/1.1\r\nHost: web.com\r\n\r\n")).body == b"web"
        assert web.requests


async def test_a_listener_whose_names_are_proved_in_plaintext_is_closed_until_then(authority: Authority) -> None:
    (port,) = free_ports(1)
    async with edge(authority, [listener(port, tls=True)], {}, settings=settings(HTTP_01)):
        with pytest.raises(ConnectionRefusedError):
            await Wire.open(port)
