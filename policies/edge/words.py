"""What the gateway's YAML adds to a listener: HSTS where it speaks TLS, a redirect where it does not.

A listener whose callers must show a certificate is closed where the entry gives it no TLS.
"""

from __future__ import annotations

from dataclasses import replace

from policies.chain import HTTP_PROTOCOLS
from policies.edge.tls import EdgeTls, Hsts, PortWords
from policies.errors import Problem
from policies.routes import HeaderModifiers
from policies.table import IngressListener, VirtualHost

_HSTS = "strict-transport-security"


def with_edge_words(
    listeners: tuple[IngressListener, ...], edge: EdgeTls
) -> tuple[tuple[IngressListener, ...], tuple[Problem, ...]]:
    """Return the listeners with what the YAML says of their ports, and where that leads nowhere."""
    with_tls = {listener.port for listener in listeners if listener.tls is not None}
    found, problems = [], []
    for listener in listeners:
        words = edge.words(listener.port)
        if _misses_certificates(listener, words):
            message = "its callers must show a certificate, but it does not speak TLS"
            fix = "it stays closed: give it TLS or a redirect, or say require_client_certificate: false of its port"
            problems.append(Problem(f"listener {listener.port}", message, fix))
        elif listener.protocol not in HTTP_PROTOCOLS:
            found.append(listener)
        elif listener.tls is not None:
            hosts = listener.virtual_hosts
            if words.hsts is not None:
                hosts = tuple(_promising(host, words.hsts) for host in hosts)
            found.append(replace(listener, virtual_hosts=hosts, hsts=words.hsts))
        else:
            found.append(replace(listener, redirect=words.redirect))
            if words.redirect is not None and words.redirect.port not in with_tls:
                where, port = f"listener {listener.port}", words.redirect.port
                problems.append(
                    Problem(where, f"redirects to {port}, where no listener speaks TLS", "callers fail there")
                )
    return tuple(found), tuple(problems)


def _misses_certificates(listener: IngressListener, words: PortWords) -> bool:
    """Return whether callers would be served who were to prove who they are."""
    redirects = words.redirect is not None and listener.protocol in HTTP_PROTOCOLS
    return listener.tls is None and words.require_client_certificate and not redirects


def _promising(host: VirtualHost, hsts: Hsts) -> VirtualHost:
    """Return the host with the field in its answers, unless its entry sets one itself."""
    change = host.response_headers or HeaderModifiers()
    if any(name == _HSTS for name, _ in (*change.set, *change.add)):
        return host
    return replace(host, response_headers=replace(change, set=(*change.set, (_HSTS, str(hsts)))))
