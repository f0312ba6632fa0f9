"""TLS origination beside Envoy: which certificates pass, what name is sent, what a caller hears when none does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.certificates import Authority
from harness.outside import server_context, write_leaf, write_root
from harness.peers import peers
from harness.servers import ConsulServer, consul_server, eventually
from harness.wire import App, Message, Wire
from lictor.up.ports import free_ports

GATEWAYS = ("e-out", "l-out")
NAME, URI, MAIL = "a.example.com", "spiffe://outside/a", "ops@example.com"
DISCONNECTED = b"upstream connect error or disconnect/reset before headers. reset reason: "


@dataclass(frozen=True)
class Case:
    """A service outside: what its certificate says, how it is linked, and what becomes of a request.

    `sent` is the server name that it sees of ours, `theirs` that of Envoy. `reason` is what ours says of a failure;
    Envoy always says the first one, since it speaks TLS 1.2, in which a server refuses before it is connected to.
    """

    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    sni: str = ""
    address: str = "127.0.0.1"
    ca: str = "outside"
    shows_certificate: bool = False
    demands_certificate: bool = False
    status: int = 200
    sent: str | None = None
    theirs: str | None = None
    reason: bytes = b"remote connection failure"


CASES = {
    "ready": Case(),
    "the-name": Case(dns=("b.example.com", NAME), sni=NAME, sent=NAME, theirs=NAME),
    "any-case": Case(dns=(NAME,), sni="A.Example.com", sent="A.Example.com", theirs="A.Example.com"),
    "wildcard": Case(dns=("*.example.com",), sni=NAME, sent=NAME, theirs=NAME),
    "deep-wildcard": Case(dns=("*.com",), sni=NAME, sent=NAME, theirs=NAME, status=503),
    "other-name": Case(dns=("b.example.com",), sni=NAME, sent=NAME, theirs=NAME, status=503),
    "no-sni": Case(dns=("b.example.com",)),
    "no-sni-of-a-name": Case(dns=("b.example.com",), address="localhost", sent="localhost"),
    "an-ip": Case(ips=("127.0.0.1",), sni="127.0.0.1", theirs="127.0.0.1"),
    "a-uri": Case(uris=(URI,), sni=URI, sent=URI, theirs=URI),
    "other-ca": Case(dns=(NAME,), sni=NAME, ca="foreign", sent=NAME, theirs=NAME, status=503),
    "with-client": Case(dns=(NAME,), shows_certificate=True, demands_certificate=True),
    "without-client": Case(dns=(NAME,), demands_certificate=True, status=503, reason=b"connection termination"),
    "missing-ca": Case(dns=(NAME,), ca="missing", status=503),
}


def caller(server: ConsulServer, folder: Path) -> ssl.SSLContext:
    """Return the context of a mesh client, with the leaf that the agent gives to web."""
    leaf = server.api("agent/connect/ca/leaf/web")
    file = folder / "web.pem"
    file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(file)
    return context


def linked(case: Case, name: str, folder: Path) -> dict[str, Any]:
    row = {"Name": name, "CAFile": str(folder / f"{case.ca}.pem"), "SNI": case.sni}
    if case.shows_certificate:
        row |= {"CertFile": str(folder / "client.pem"), "KeyFile": str(folder / "client.key")}
    return row


async def test_envoy_and_our_gateway_trust_the_same_servers(tmp_path: Path) -> None:
    outside, clients = Authority("outside"), Authority("clients")
    write_root(tmp_path, outside, "outside")
    write_root(tmp_path, Authority("foreign"), "foreign")
    accepted = write_root(tmp_path, clients, "clients")
    write_leaf(tmp_path, clients, "client")
    seen = {}
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(consul_server())  # without ACLs everybody may call
        proxies = stack.enter_context(peers(server, tmp_path))
        for name, case in CASES.items():
            files = write_leaf(tmp_path, outside, name, dns=case.dns, ips=case.ips, uris=case.uris)
            context, seen[name] = server_context(files, clients=accepted if case.demands_certificate else "")
            app = await stack.enter_async_context(App().running(context=context))
            row = {"ID": name, "Service": name, "Port": app.port}
            server.api("catalog/register", "PUT", {"Node": f"{name}-node", "Address": case.address, "Service": row})
            server.write({"Kind": "service-defaults", "Name": name, "Protocol": "http"})
        links = [linked(case, name, tmp_path) for name, case in CASES.items()]
        ours_alone = [row for row in links if row["Name"] == "missing-ca"]  # Envoy takes none of the listener then
        ports = dict(zip(GATEWAYS, free_ports(2), strict=True))
        for gateway in GATEWAYS:
            rows = [row for row in links if gateway == "l-out" or row not in ours_alone]
            server.write({"Kind": "terminating-gateway", "Name": gateway, "Services": rows})
        await asyncio.gather(
            asyncio.to_thread(proxies.envoy_gateway, "e-out", ports["e-out"], "terminating"),
            asyncio.to_thread(proxies.lictor_gateway, "l-out", ports["l-out"], "terminating"),
        )
        web, domain = caller(server, tmp_path), server.api("connect/ca/roots")["TrustDomain"]

        async def ask(gateway: str, name: str) -> Message:
            sni = f"{name}.default.dc1.internal.{domain}"
            async with await Wire.open(ports[gateway], web, sni) as wire:
                return await wire.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        async def answers(gateway: str) -> bool:
            return (await ask(gateway, "ready")).status == 200

        found = []
        for gateway in GATEWAYS:
            await eventually(lambda gateway=gateway: answers(gateway), 20, every=0.1)
            for name, case in CASES.items():
                if name == "ready" or (gateway == "e-out" and name == "missing-ca"):
                    continue
                seen[name].names.clear()
                answer = await ask(gateway, name)
                reason = case.reason if gateway == "l-out" else b"remote connection failure"
                body = DISCONNECTED + reason if case.status == 503 else b"hello"
                sent = case.theirs if gateway == "e-out" else case.sent
                names = seen[name].names[:1] if name != "missing-ca" else [None]
                said = (answer.status, answer.body[: len(body)], names)
                if said != (case.status, body, [sent]):
                    found.append(f"{gateway} {name}: {said}, {answer.body!r}")
        assert not found, "\n".join(found)
