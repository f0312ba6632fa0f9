from __future__ import annotations

import hashlib
import ssl

import pytest
from cryptography import x509

from controlplane.certificates.acme_client import challenge_certificate
from dataplane.edge.challenges import Challenges
from dataplane.exchange import Reply
from dataplane.heads import parse_request
from dataplane.plans import Plans
from policies.edge.acme import HttpChallenge
from policies.edge.client_hello import ClientHello

ROUTED = Reply(404, "route_not_found")
PATH = "/.well-known/acme-challenge/"


def asked(challenges: Challenges, target: str, method: str = "GET") -> Reply:
    decide = challenges.before(lambda *_: ROUTED)
    reply = decide(None, parse_request(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()))  # type: ignore[arg-type]
    assert isinstance(reply, Reply)
    return reply


def test_a_pending_text_is_answered_before_any_route_and_nothing_else_is() -> None:
    challenges, pending = Challenges(Plans().forget), HttpChallenge("tok_en-1", "tok_en-1.thumb")
    assert asked(challenges, f"{PATH}tok_en-1") is ROUTED
    challenges.offer(pending)
    answer = asked(challenges, f"{PATH}tok_en-1")
    assert (answer.status, answer.body) == (200, b"tok_en-1.thumb")
    for target in (PATH, f"{PATH}tok_en-2", f"{PATH}../tok_en-1", f"{PATH}tok_en-1/", f"/x{PATH}tok_en-1"):
        assert asked(challenges, target) is ROUTED
    assert asked(challenges, f"{PATH}tok_en-1", "POST") is ROUTED
    challenges.withdraw(pending)
    assert asked(challenges, f"{PATH}tok_en-1") is ROUTED


def shaken(context: ssl.SSLContext, name: str, alpn: str) -> tuple[x509.Certificate, str | None]:
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.set_alpn_protocols([alpn])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return x509.load_der_x509_certificate(client.getpeercert(True) or b""), client.selected_alpn_protocol()


def test_a_pending_name_is_shown_to_who_asks_for_acme_alone() -> None:
    challenges, pending = Challenges(Plans().forget), challenge_certificate("Web.com", "tok.thumb")
    hello = ClientHello("web.com", ("acme-tls/1",))
    assert challenges.context(hello) is None
    challenges.offer(pending)
    for other in (
        ClientHello("web.com", ()),
        ClientHello("web.com", ("http/1.1",)),
        ClientHello("web.com", ("acme-tls/1", "h2")),
        ClientHello("other.com", ("acme-tls/1",)),
        ClientHello("", ("acme-tls/1",)),
    ):
        assert challenges.context(other) is None
    context = challenges.context(hello)
    assert context is not None
    certificate, alpn = shaken(context, "web.com", "acme-tls/1")
    assert alpn == "acme-tls/1"
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x04\x20" + hashlib.sha256(b"tok.thumb").digest()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["Web.com"]
    challenges.withdraw(pending)
    assert challenges.context(hello) is None


@pytest.mark.parametrize("name", ["a.com"])
def test_withdrawing_what_is_not_there_is_nothing(name: str) -> None:
    Challenges(Plans().forget).withdraw(challenge_certificate(name, "x.y"))
    Challenges(Plans().forget).withdraw(HttpChallenge(name, "x.y"))
