"""TLS contexts of a listener at the edge: one for each certificate, chosen by the name that a caller asks for.

As in the mesh, a context in use is never changed: what is new is built, tried against itself, and swapped in with the
generation; connections go on with the one that they began with. Built again is only what differs.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dataplane.tls import in_memory, openssl_name, set_versions, try_handshake
from policies.edge.server_certificates import (
    CertificateReference,
    EdgeMaterial,
    ServerCertificate,
    by_name,
    canonical_name,
    find,
)
from policies.edge.tls import ListenerTls
from policies.edge.wildcards import longest_suffix
from policies.errors import BadServerCertificate, IdentityError, Problem
from policies.mesh import TlsLimits
from policies.table import IngressListener

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; TLS 1.3 has good ones only
_OLD = frozenset({"TLSv1_0", "TLSv1_1"})  # the operator's own word; they know neither AEAD nor SHA-256
_OLD_CIPHERS = f"{CIPHERS}:ECDHE+AES:@SECLEVEL=0"


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The certificates that answer a name, at most one for each kind of key, and their context."""

    certificates: tuple[ServerCertificate, ...]
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True, eq=False)
class ServerContexts:
    """The contexts of one listener, by name of certificate and by host of a service.

    `default` answers other names; it is None where only hosts of services speak TLS. `by_host` are those of hosts with
    versions or ciphers of their own. `made_from` are settings, certificates and the text of the client CA: what is made
    of the same need not be made again.
    """

    made_from: tuple[ListenerTls, Mapping[CertificateReference, ServerCertificate], str]
    named: Mapping[str, Shown]
    pinned: Mapping[str, Shown]
    default: Shown | None
    by_host: Mapping[str, ServerContexts]

    def choose(self, name: str, now: float) -> ssl.SSLContext:
        """Return the context for an SNI ("" is none). `now` in seconds since the epoch.

        Raise IdentityError: `unknown_name` where the listener is strict, `certificate_ended` when all that would be
        shown is past its end.
        """
        name = canonical_name(name)
        if self.by_host and (of_host := _of_host(name, self.by_host)) is not None:
            return of_host.choose(name, now)
        shown = find(name, self.named, self.pinned) if name else None
        if shown is None:
            if self.default is None or self.made_from[0].strict_sni:
                raise IdentityError("unknown_name", "the caller asks for a name that no certificate here is for")
            shown = self.default
        if all(one.not_after.timestamp() <= now for one in shown.certificates):
            raise IdentityError("certificate_ended", f"the certificate from {shown.certificates[0].source} has ended")
        return shown.context

    def all(self) -> tuple[Shown, ...]:
        """Return everything that may be shown, each once."""
        every = (self.default, *self.named.values(), *self.pinned.values())
        return tuple({id(shown): shown for shown in every if shown is not None}.values())


def build_server_contexts(
    tls: ListenerTls,
    known: Mapping[CertificateReference, ServerCertificate],
    client_ca: str = "",
    before: ServerContexts | None = None,
) -> ServerContexts | None:
    """Return the contexts of a listener; None while none of its certificates is known.

    `client_ca` is the PEM text in the file of those who may sign callers' certificates, if there is one. What `before`
    has of the same is taken over. Raise BadServerCertificate when certificates, versions and ciphers do not fit.
    """
    have = {reference: known[reference] for reference in tls.references() if reference in known}
    in_order = [have[reference] for reference in tls.certificates if reference in have]
    if not have or (tls.certificates and not in_order):
        return None
    if before is not None and before.made_from == (tls, have, client_ca):
        return before
    made = _taken_over(before, tls, client_ca)

    def shown(certificates: tuple[ServerCertificate, ...]) -> Shown:
        if certificates not in made:
            made[certificates] = Shown(certificates, _context(certificates, tls, client_ca))
        return made[certificates]

    groups = by_name(in_order)
    default = groups.get(in_order[0].names[0] if in_order[0].names else "", in_order[:1]) if in_order else ()
    return ServerContexts(
        made_from=(tls, have, client_ca),
        named={name: shown(group) for name, group in groups.items()},
        pinned={host: shown((have[reference],)) for host, reference in tls.pinned.items() if reference in have},
        default=shown(tuple(default)) if default else None,
        by_host=_by_host(tls, known, client_ca, before),
    )


def _by_host(
    tls: ListenerTls,
    known: Mapping[CertificateReference, ServerCertificate],
    client_ca: str,
    before: ServerContexts | None,
) -> dict[str, ServerContexts]:
    old = {one.made_from[0].limits: one for one in before.by_host.values()} if before is not None else {}
    made = {
        limits: build_server_contexts(
            replace(tls, limits=limits, limits_by_host={}), known, client_ca, old.get(limits, before)
        )
        for limits in set(tls.limits_by_host.values())
    }
    return {host: one for host, limits in tls.limits_by_host.items() if (one := made[limits]) is not None}


def _of_host(name: str, by_host: Mapping[str, ServerContexts]) -> ServerContexts | None:
    """Return what is for a name ("" is none), the longest suffix of several."""
    found = by_host.get(name) or by_host.get(f"*.{name}") or longest_suffix(name, by_host)
    return found or by_host.get("*")


def _taken_over(
    before: ServerContexts | None, tls: ListenerTls, client_ca: str
) -> dict[tuple[ServerCertificate, ...], Shown]:
    """Return what was made with the same versions, ciphers and demands on callers."""
    if before is None:
        return {}
    old, _, old_ca = before.made_from
    if (old.limits, old.require_client_certificate, old_ca) != (tls.limits, tls.require_client_certificate, client_ca):
        return {}
    return {shown.certificates: shown for shown in before.all()}


def _context(certificates: tuple[ServerCertificate, ...], tls: ListenerTls, client_ca: str) -> ssl.SSLContext:
    """Return a context that has spoken to a client of today."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        set_versions(context, tls.limits)
        context.set_ciphers(_ciphers(tls.limits))
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_SINGLE_ECDH_USE
        context.set_alpn_protocols(["http/1.1"])
        for one in reversed(certificates):  # of one kind of key the last that is loaded holds: let that be the first
            with in_memory(one.chain_pem.encode() + b"\n" + one.key_pem) as path:
                context.load_cert_chain(path, password="")
        try_handshake(context, _client(tls.limits))
    except (ssl.SSLError, ValueError) as error:
        message = f"the certificate from {certificates[0].source} cannot be shown: {error}"
        raise BadServerCertificate(message) from error
    if tls.client_ca_file:
        _ask_callers(context, tls, client_ca)
    return context


def _ask_callers(context: ssl.SSLContext, tls: ListenerTls, client_ca: str) -> None:
    try:
        context.load_verify_locations(cadata=client_ca)
    except (ssl.SSLError, ValueError) as error:
        message = f"{tls.client_ca_file} names nobody who could sign the certificates of callers: {error}"
        raise BadServerCertificate(message) from error
    context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL


def _client(limits: TlsLimits) -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # whether a caller trusts it is for the caller to say
    client.set_ciphers("ALL:@SECLEVEL=0")
    set_versions(client, limits)
    return client


def _ciphers(limits: TlsLimits) -> str:
    if limits.cipher_suites:
        return ":".join(openssl_name(suite) for suite in limits.cipher_suites)
    return _OLD_CIPHERS if limits.minimum in _OLD else CIPHERS


def contexts_of_listeners(
    listeners: Iterable[IngressListener], material: EdgeMaterial, before: Mapping[int, ServerContexts]
) -> tuple[dict[int, ServerContexts], tuple[Problem, ...]]:
    """Return the contexts of TLS listeners by port, and what is wrong.

    A listener whose certificates are not known yet, or who signs its callers', has none and stays closed. One that
    cannot be built any more keeps those of before, as long as these ask no less of callers.
    """
    found: dict[int, ServerContexts] = {}
    problems = []
    for listener in listeners:
        tls, old = listener.tls, before.get(listener.port)
        if tls is None or listener.port in found:  # of several addresses
            continue
        made, error = None, ""
        if not tls.client_ca_file or tls.client_ca_file in material.client_cas:
            try:
                client_ca = material.client_cas.get(tls.client_ca_file, "")
                made = build_server_contexts(tls, material.certificates, client_ca, old)
            except BadServerCertificate as failure:
                error = str(failure)
        if made is None and old is not None and _asks_the_same(old.made_from[0], tls):
            made = old
        if made is not None:
            found[listener.port] = made
        if error:
            effect = "what was shown before stays" if made is not None else "it stays closed"
            problems.append(Problem(f"listener {listener.port}", error, effect))
    return found, tuple(problems)


def _asks_the_same(one: ListenerTls, other: ListenerTls) -> bool:
    return (one.client_ca_file, one.require_client_certificate) == (
        other.client_ca_file,
        other.require_client_certificate,
    )
