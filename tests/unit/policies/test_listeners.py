from __future__ import annotations

from harness.certificates import Authority
from harness.meshes import sidecar, upstream
from policies.listeners import Changes, ListenerKey, Purpose, changes, wanted_listeners


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
