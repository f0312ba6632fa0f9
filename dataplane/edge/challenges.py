"""What a certificate authority comes and asks for to prove a name, while it is pending and at no other time.

http-01: a text under `/.well-known/acme-challenge/`, before any routing and any redirect. tls-alpn-01: a handshake that
offers `acme-tls/1` and nothing else is shown a certificate of its own, and no byte follows.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataplane.exchange import Decide, Forward, Reply
from dataplane.tls import in_memory
from policies.edge.acme import ALPN, WELL_KNOWN, AcmeChallenge, HttpChallenge, TlsChallenge
from policies.edge.client_hello import ClientHello

if TYPE_CHECKING:
    from dataplane.downstream import Downstream
    from dataplane.heads import RequestHead

_WELL_KNOWN = WELL_KNOWN.encode()


class Challenges:
    """The pending ones, offered from the control loop. `forget` is called for what was decided about a token before."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self._forget = forget
        self._texts: dict[bytes, bytes] = {}  # by target
        self._contexts: dict[str, ssl.SSLContext] = {}  # by name

    def offer(self, challenge: AcmeChallenge) -> None:
        """Answer it from now on."""
        match challenge:
            case HttpChallenge(token, key_authorization):
                self._texts[_WELL_KNOWN + token.encode()] = key_authorization.encode()
                self._forget()
            case TlsChallenge(name):
                self._contexts[name.lower()] = _context(challenge)

    def withdraw(self, challenge: AcmeChallenge) -> None:
        """Know nothing of it any more."""
        match challenge:
            case HttpChallenge(token):
                self._texts.pop(_WELL_KNOWN + token.encode(), None)
            case TlsChallenge(name):
                self._contexts.pop(name.lower(), None)

    def before(self, decide: Decide) -> Decide:
        """Return a decider that answers pending texts itself and leaves everything else to this one."""

        def answered(downstream: Downstream, head: RequestHead) -> Forward | Reply:
            text = self._texts.get(head.target) if self._texts and head.method == "GET" else None
            return decide(downstream, head) if text is None else Reply(200, "acme_challenge", text)

        return answered

    def context(self, hello: ClientHello) -> ssl.SSLContext | None:
        """Return what to shake hands with when a CA looks at a name; None for everybody else."""
        return self._contexts.get(hello.sni) if hello.alpn == (ALPN,) else None


class Looked(asyncio.Protocol):
    """A CA that has seen a certificate: there is nothing to be said."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close."""
        transport.close()


def _context(challenge: TlsChallenge) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    with in_memory(challenge.chain_pem.encode() + challenge.key_pem) as path:
        context.load_cert_chain(path)
    return context
