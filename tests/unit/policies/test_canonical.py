from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from harness.certificates import TRUST_DOMAIN, Authority
from harness.meshes import instance, intention, sidecar, split_chain, upstream
from policies.canonical import plain, table_text
from policies.intentions import Action
from policies.watches import ChainWatch, EndpointsWatch


def web(authority: Authority, *, reverse: bool = False) -> str:
    rows = [
        intention("edge", "web", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}}]),
        intention("*", "web", "deny"),
    ]
    member = sidecar(
        "web", authority, port=21000, local_port=8080, upstreams={"api": 9191, "db": 9192}, intentions=rows
    )
    member.hear(ChainWatch("api", "api"), split_chain("api", {"v1": 80, "v2": 20}))
    found = [
        instance("api", 22000, 1, Meta={"version": "v1"}),
        instance("api", 22001, 2, Meta={"version": "v2"}),
        instance("api", 22002, 3, "critical", Meta={"version": "v2"}),
    ]
    member.hear(EndpointsWatch("api"), found[::-1] if reverse else found)
    upstream(member, "db", [])
    return table_text(member.table()) + "\n"


def test_the_table_of_a_sidecar_reads_as_it_should(authority: Authority, golden: Callable[[str, str], None]) -> None:
    golden("web-sidecar.json", web(authority))


def test_equal_tables_have_equal_texts(authority: Authority) -> None:
    assert web(authority) == web(authority, reverse=True)


def test_plain_data_is_json_and_shows_no_private_field(authority: Authority) -> None:
    leaf = authority.leaf("web")
    shown: Any = plain({"b": Action.ALLOW, "a": frozenset({"y", "x"}), "leaf": leaf.spiffe_id})
    assert list(shown) == ["a", "b", "leaf"]
    assert shown == {
        "a": ["x", "y"],
        "b": "allow",
        "leaf": f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web",
    }
    assert "key_pem" not in plain(leaf)
    json.dumps(shown)
