from __future__ import annotations

from dataclasses import replace

from policies.edge.tls import EdgeTls, Hsts, ListenerTls, PortWords, RedirectToTls
from policies.edge.words import with_edge_words
from policies.routes import HeaderModifiers
from policies.table import IngressListener, VirtualHost

OWN = HeaderModifiers(set=(("strict-transport-security", "max-age=0"),))
OTHER = HeaderModifiers(remove=("server",))
HOSTS = (VirtualHost("a", ("a",)), VirtualHost("b", ("b",), None, OWN), VirtualHost("c", ("c",), None, OTHER))
WORDS = PortWords(redirect=RedirectToTls(8443), hsts=Hsts(300))
PLAIN = IngressListener("", 8080, "http", HOSTS)
SECURE = IngressListener("", 8443, "http", HOSTS, ListenerTls(()))
TCP = IngressListener("", 5432, "tcp", HOSTS[:1], ListenerTls(()))


def test_hsts_is_said_over_tls_alone_and_not_over_the_entrys_own_word() -> None:
    (plain, secure, tcp), problems = with_edge_words((PLAIN, SECURE, TCP), EdgeTls(everywhere=WORDS))
    assert (plain.virtual_hosts, plain.hsts, plain.redirect) == (HOSTS, None, RedirectToTls(8443))
    assert secure.redirect is None
    assert secure.hsts == Hsts(300)
    promise = ("strict-transport-security", "max-age=300")
    assert [host.response_headers for host in secure.virtual_hosts] == [
        HeaderModifiers(set=(promise,)),
        OWN,
        HeaderModifiers(set=(promise,), remove=("server",)),
    ]
    assert tcp is TCP
    assert problems == ()


def test_a_redirect_to_where_nobody_speaks_tls_is_told() -> None:
    _, (problem,) = with_edge_words((PLAIN,), EdgeTls(ports={8080: WORDS}))
    assert (problem.where, problem.message) == ("listener 8080", "redirects to 8443, where no listener speaks TLS")


def test_who_must_show_a_certificate_is_not_served_in_plaintext() -> None:
    """The entry is another's to write: without its TLS there is nobody to ask."""
    words = PortWords(client_ca_file="ca.pem", require_client_certificate=True)
    open_tcp = replace(TCP, tls=None)
    found, problems = with_edge_words((PLAIN, SECURE, TCP, open_tcp), EdgeTls(everywhere=words))
    assert found == (SECURE, TCP)
    assert [problem.where for problem in problems] == ["listener 8080", "listener 5432"]
    redirecting = EdgeTls(everywhere=replace(words, redirect=RedirectToTls(8443)))
    assert with_edge_words((PLAIN, SECURE), redirecting)[0][0].redirect == RedirectToTls(8443)
    relaxed = EdgeTls(everywhere=words, ports={8080: PortWords()})
    assert with_edge_words((PLAIN, SECURE), relaxed) == ((PLAIN, SECURE), ())


def test_without_a_word_listeners_are_as_they_were() -> None:
    assert with_edge_words((PLAIN, SECURE, TCP), EdgeTls()) == ((PLAIN, SECURE, TCP), ())
