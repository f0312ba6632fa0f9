from __future__ import annotations

from harness.certificates import Authority
from harness.meshes import sidecar, upstream
from policies.edge.passthrough import PassthroughListener
from policies.edge.tls import ListenerTls
from policies.identity import SpiffeId
from policies.listeners import Changes, ListenerKey, Purpose, behind, changes, wanted_listeners
from policies.table import Egress, IngressListener, Table, UpstreamListener, VirtualHost


def test_a_sidecar_wants_its_inbound_and_a_listener_for_each_upstream(authority: Authority) -> None:
    table = upstream(sidecar("web", authority, port=21000, upstreams={"api": 9191}), "api", []).table()
    assert wanted_listeners(table) == (
        ListenerKey(Purpose.INBOUND, "", "127.0.0.1", 21000),
        ListenerKey(Purpose.UPSTREAM, "api", "127.0.0.1", 9191),
    )


def test_only_what_differs_is_opened_or_closed(authority: Authority) -> None:
    table = upstream(sidecar("web", authority, port=21000, upstreams={"api": 9191}), "api", []).table()
    same = ListenerKey(Purpose.INBOUND, "", "127.0.0.1", 21000)
    new, gone = (
        ListenerKey(Purpose.UPSTREAM, name, "127.0.0.1", port) for name, port in (("api", 9191), ("old", 9000))
    )
    assert changes(frozenset({same, gone}), table) == Changes((new,), (gone,))
    assert changes(frozenset(wanted_listeners(table)), table) == Changes((), ())


def test_a_listener_is_named_by_purpose_and_upstream() -> None:
    assert str(ListenerKey(Purpose.INBOUND, "", "127.0.0.1", 1)) == "inbound"
    assert str(ListenerKey(Purpose.UPSTREAM, "api", "127.0.0.1", 1)) == "upstream:api"


GATEWAY = Table(
    SpiffeId("t", "dc1", "edge"),
    listeners=(UpstreamListener("out", "127.0.0.1", 3128, forward_proxy=True),),
    ingress=(
        IngressListener("::", 8080, "http", (VirtualHost("web", ("*",)), VirtualHost("api", ("api.*",)))),
        IngressListener("::", 8443, "tcp", (), ListenerTls(())),
    ),
    egress=Egress("127.0.0.1", 9443),
    passthrough=(PassthroughListener("::", 7443, ()),),
)
OUTSIDE, TLS = ListenerKey(Purpose.INGRESS, "8080", "::", 8080), ListenerKey(Purpose.INGRESS, "8443", "::", 8443)
PROXY = ListenerKey(Purpose.PROXY, "out", "127.0.0.1", 3128)


def test_a_gateway_wants_its_own_listeners_and_those_with_tls_once_their_certificates_are_there() -> None:
    egress = ListenerKey(Purpose.EGRESS, "", "127.0.0.1", 9443)
    passthrough = ListenerKey(Purpose.PASSTHROUGH, "7443", "::", 7443)
    assert wanted_listeners(GATEWAY) == (egress, PROXY, OUTSIDE, passthrough)
    assert wanted_listeners(GATEWAY, {8443}) == (egress, PROXY, OUTSIDE, TLS, passthrough)


def test_what_stands_behind_a_listener_is_an_upstream_and_what_it_speaks(authority: Authority) -> None:
    table = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", []).table()
    assert behind(table, ListenerKey(Purpose.UPSTREAM, "api", "127.0.0.1", 9191)) == ("api", "http")
    assert behind(table, PROXY) == ("out", "")
    assert [behind(GATEWAY, key) for key in (OUTSIDE, TLS)] == [("web", "http"), ("", "tcp")]
    assert behind(table, OUTSIDE) == ("", "")
