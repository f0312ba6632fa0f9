from __future__ import annotations

from dataplane.serve import ListenerKey, Plan, plan, wanted_listeners
from harness.certificates import Authority
from harness.meshes import sidecar, upstream


def test_a_sidecar_wants_its_inbound_and_a_listener_for_each_upstream(authority: Authority) -> None:
    table = upstream(sidecar("web", authority, port=21000, upstreams={"api": 9191}), "api", []).table()
    assert wanted_listeners(table) == (
        ListenerKey("inbound", "", "127.0.0.1", 21000),
        ListenerKey("upstream", "api", "127.0.0.1", 9191),
    )


def test_only_what_differs_is_opened_or_closed(authority: Authority) -> None:
    table = upstream(sidecar("web", authority, port=21000, upstreams={"api": 9191}), "api", []).table()
    same, gone = ListenerKey("inbound", "", "127.0.0.1", 21000), ListenerKey("upstream", "old", "127.0.0.1", 9000)
    assert plan(frozenset({same, gone}), table) == Plan((ListenerKey("upstream", "api", "127.0.0.1", 9191),), (gone,))
    assert plan(frozenset(wanted_listeners(table)), table) == Plan((), ())


def test_a_listener_is_named_by_purpose_and_upstream() -> None:
    assert str(ListenerKey("inbound", "", "127.0.0.1", 1)) == "inbound"
    assert str(ListenerKey("upstream", "api", "127.0.0.1", 1)) == "upstream:api"
