"""Certificates by ACME from a real CA, OpenBao's PKI, which comes to ports 80 and 443 to see who asks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from acme import client, messages
from aiohttp import web
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from controlplane.certificates import acme_client
from controlplane.certificates.acme import AcmeSource
from controlplane.certificates.acme_state import AcmeState
from harness.acme import AcmeServer, acme_server
from harness.servers import REPOSITORY, ConsulServer, Program, consul_server, eventually, http_json
from harness.wire import Wire
from lictor.up.ports import free_ports
from policies.edge.acme import AcmeCertificate, AcmeChallenge, HttpChallenge
from policies.edge.server_certificates import ServerCertificate
from policies.rotation import RenewalPolicy

GATEWAY, PROCESS = "127.0.0.9", "127.0.0.8"  # who listens on 80 and 443: a gateway, and this process
QUICK = RenewalPolicy(first_retry=0.2, longest_retry=0.2)
ENTRY = {
    "Kind": "ingress-gateway",
    "Name": "edge",
    "Listeners": [
        {"Port": 80, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["*"]}]},
        {"Port": 443, "Protocol": "http", "TLS": {"Enabled": True}, "Services": [{"Name": "web", "Hosts": ["*"]}]},
    ],
}


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeServer]:
    names = {"http_test": GATEWAY, "alpn_test": GATEWAY, "short_test": GATEWAY, "own_test": PROCESS}
    with acme_server(tmp_path_factory.mktemp("ca"), **names) as running:
        yield running


# --- a gateway ------------------------------------------------------------------------------------------------------


def settings(ca: AcmeServer, consul: ConsulServer, folder: Path, admin: int) -> dict[str, Any]:
    def ordered(name: str, ttl: str, challenge: str) -> dict[str, Any]:
        words = {"directory": ca.directory(ttl), "agree_terms_of_service": True, "email": "operator@example.com"}
        words |= {"names": [name], "challenge": challenge, "ca_file": ca.ca_file, "state_dir": str(folder / "acme")}
        return {"acme": words}

    return {
        "gateway": {"kind": "ingress", "service": "edge", "address": f"{GATEWAY}:443"},
        "consul": {"address": consul.http_addr},
        "tls": {
            "certificates": [
                ordered("http.test", "1h", "http-01"),
                ordered("alpn.test", "1h", "tls-alpn-01"),
                ordered("short.test", "8s", "tls-alpn-01"),
            ]
        },
        "admin": f"127.0.0.1:{admin}",
        "drain": "1s",
    }


async def shown(ca: AcmeServer, name: str) -> str:
    """Return the serial of the certificate that a caller is shown for a name, who trusts the CA alone."""
    context = ssl.create_default_context(cadata=ca.root)
    _, writer = await asyncio.open_connection(GATEWAY, 443, ssl=context, server_hostname=name)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return str(certificate["serialNumber"])


@contextlib.contextmanager
def gateway(folder: Path, admin: int) -> Iterator[Program]:
    words = [sys.executable, "-m", "lictor", "gateway", "--config", str(folder / "edge.yaml")]
    program = Program("edge", words, folder, {"PYTHONPATH": str(REPOSITORY)})
    program.start()
    try:
        program.wait_until(lambda: http_json(f"http://127.0.0.1:{admin}/ready", timeout=2)["pid"] == program.pid, 30)
        yield program
    finally:
        program.stop()


async def test_a_gateway_proves_its_names_renews_and_asks_for_nothing_after_a_restart(
    ca: AcmeServer, tmp_path: Path
) -> None:
    with consul_server() as consul:
        consul.write({"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}, ENTRY)
        (admin,) = free_ports(1)
        (tmp_path / "edge.yaml").write_text(yaml.safe_dump(settings(ca, consul, tmp_path, admin)))
        with gateway(tmp_path, admin) as first:
            serials = {}
            for name in ("http.test", "alpn.test", "short.test"):
                serials[name] = await eventually(lambda name=name: shown_if_any(ca, name))
            assert len(set(serials.values())) == 3
            serials["short.test"], signed = await eventually(lambda: between_two_orders(ca, "short.test"))
            await eventually(lambda: changed(ca, "short.test", serials["short.test"]))
            assert ca.signed() == signed + 1
            async with await Wire.open(80, host=GATEWAY) as wire:
                path = b"/.well-known/acme-challenge/nobody"
                answer = await wire.ask(b"GET %s HTTP/1.1\r\nHost: http.test\r\n\r\n" % path)
                assert answer.get("x-lictor-reason") != "acme_challenge"
            with gateway(tmp_path, admin) as second:
                first.stop()
                assert second.running()
                for name in ("http.test", "alpn.test"):
                    assert await shown(ca, name) == serials[name]
                assert '"event": "certificate_ordering"' in first.log  # both write to one file
                orders = [line for line in first.log.splitlines() if '"event": "certificate_ordering"' in line]
                assert sum("http.test" in line or "alpn.test" in line for line in orders) == 2


async def shown_if_any(ca: AcmeServer, name: str) -> str:
    try:
        return await shown(ca, name)
    except (OSError, ssl.SSLError):
        return ""


async def between_two_orders(ca: AcmeServer, name: str) -> tuple[str, int] | None:
    """Return the serial that is shown, and how many certificates the CA has signed by then; on a busy machine later."""
    signed = ca.signed()
    serial = await shown_if_any(ca, name)
    return (serial, signed) if serial and ca.signed() == signed else None


async def changed(ca: AcmeServer, name: str, before: str) -> bool:
    return await shown_if_any(ca, name) not in {"", before}  # on a busy machine the old one may end first


# --- the source -----------------------------------------------------------------------------------------------------


class Texts:
    """Answers challenges as they stand, or `wrong`."""

    def __init__(self) -> None:
        self.pending: dict[str, str] = {}
        self.wrong = ""

    def offer(self, challenge: AcmeChallenge) -> None:
        assert isinstance(challenge, HttpChallenge)
        self.pending[challenge.token] = challenge.key_authorization

    def withdraw(self, challenge: AcmeChallenge) -> None:
        assert isinstance(challenge, HttpChallenge)
        del self.pending[challenge.token]

    async def answer(self, request: web.Request) -> web.Response:
        # The CA may still look for one that it has not found before.
        return web.Response(text=self.wrong or self.pending.get(request.match_info["token"], ""))


@pytest.fixture
async def texts() -> AsyncIterator[Texts]:
    made, app = Texts(), web.Application()
    app.router.add_get("/.well-known/acme-challenge/{token}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, PROCESS, 80).start()
    yield made
    await runner.cleanup()


@contextlib.asynccontextmanager
async def ordering(source: AcmeSource) -> AsyncIterator[list[ServerCertificate]]:
    """Keep what the source gives, until the end of the block."""
    given: list[ServerCertificate] = []

    async def follow() -> None:
        async for certificate in source.certificates():
            given.append(certificate)  # noqa: PERF401 - it is looked at while it grows

    task = asyncio.create_task(follow())
    try:
        yield given
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def own(ca: AcmeServer, tmp_path: Path, directory: str = "", **more: str) -> AcmeCertificate:
    return AcmeCertificate(
        directory or ca.directory("1h"), ("own.test",), str(tmp_path / "state"), ca_file=ca.ca_file, **more
    )


async def test_a_ca_that_refuses_is_told_of_and_asked_again(
    ca: AcmeServer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme_client, "PROOF_SECONDS", 3.0)
    texts.wrong = "something else"
    source = AcmeSource(own(ca, tmp_path), texts, QUICK)
    async with ordering(source) as given:
        error = await eventually(lambda: source.status.error)
        assert "own.test" in error
        assert "http-01" in error
        assert given == []
        texts.wrong = ""
        await eventually(lambda: given)
        assert source.status.error == ""
    assert texts.pending == {}


async def test_a_name_that_the_ca_does_not_sign_is_refused_with_its_words(
    ca: AcmeServer, texts: Texts, tmp_path: Path
) -> None:
    ca.vault.api("pki/roles/narrow", "POST", {"allowed_domains": ["else.test"], "allow_bare_domains": True})
    source = AcmeSource(own(ca, tmp_path, ca.directory("1h").replace("for-1h", "narrow")), texts, QUICK)
    async with ordering(source) as given:
        error = await eventually(lambda: source.status.error)
        assert error.startswith("the CA refuses: ")
        assert "own.test" in error
        assert given == []


async def test_a_ca_that_is_away_leaves_the_last_certificate_and_is_asked_again(
    ca: AcmeServer, texts: Texts, tmp_path: Path
) -> None:
    source = AcmeSource(own(ca, tmp_path, ca.directory("6s")), texts, QUICK)
    async with ordering(source) as given:
        await eventually(lambda: given)
        ca.vault.seal()
        error = await eventually(lambda: source.status.error)
        assert error.startswith("the CA cannot be asked: ")
        assert len(given) == 1
        await asyncio.to_thread(ca.vault.unseal)
        await eventually(lambda: len(given) == 2)
        assert source.status.error == ""


async def test_an_account_is_bound_to_a_customer_of_the_ca(ca: AcmeServer, texts: Texts, tmp_path: Path) -> None:
    directory = ca.directory("1h")
    identity, key = ca.bind_accounts(directory)
    (tmp_path / "hmac").write_text(key + "\n")
    try:
        source = AcmeSource(own(ca, tmp_path, directory), texts, QUICK)
        async with ordering(source) as given:
            error = await eventually(lambda: source.status.error)
            assert "externalAccountRequired" in error
        bound = own(ca, tmp_path, directory, eab_key_id=identity, eab_hmac_file=str(tmp_path / "hmac"))
        source = AcmeSource(bound, texts, QUICK)
        async with ordering(source) as given:
            await eventually(lambda: given or source.status.error)
            assert source.status.error == ""
    finally:
        ca.bind_no_accounts()


async def test_an_account_that_was_closed_is_followed_by_another(ca: AcmeServer, texts: Texts, tmp_path: Path) -> None:
    settings = own(ca, tmp_path)
    async with ordering(AcmeSource(settings, texts, QUICK)) as given:
        await eventually(lambda: given)
    state = AcmeState(settings)
    account = state.account()
    assert account is not None
    network = client.ClientNetwork(JWKEC.from_json(account.key), alg=ES256, verify_ssl=ca.ca_file)  # type: ignore[arg-type]
    asked = client.ClientV2(client.ClientV2.get_directory(settings.directory, network), network)
    registration = messages.RegistrationResource(uri=account.uri, body=messages.Registration())
    asked.deactivate_registration(asked.query_registration(registration))
    next((tmp_path / "state").glob("own.test-*")).unlink()
    source = AcmeSource(settings, texts, QUICK)
    async with ordering(source) as given:
        await eventually(lambda: given or source.status.error)
        assert source.status.error == ""
    made = state.account()
    assert made is not None
    assert made.uri != account.uri
