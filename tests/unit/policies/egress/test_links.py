"""The terminating-gateway entry: which services are linked, and how they are reached."""

from __future__ import annotations

from typing import Any

from policies.edge.ingress import parse_gateway_services
from policies.egress.links import LinkedService, Origination, complaints, linked, parse_terminating

ENTRY = {
    "Name": "egress",
    "Services": [
        {"Name": "*", "CAFile": "/wild.pem"},
        {
            "Name": "ext",
            "CAFile": "/ca.pem",
            "CertFile": "/c.pem",
            "KeyFile": "/k.pem",
            "SNI": "ext.example.com",
            "DisableAutoHostRewrite": True,
        },
    ],
}
EXT = LinkedService("ext", Origination("/ca.pem", "/c.pem", "/k.pem", "ext.example.com"), "ext.example.com", False)


def row(name: object, **more: object) -> dict[str, Any]:
    return {"Gateway": {"Name": "egress"}, "Service": {"Name": name}, "GatewayKind": "terminating-gateway", **more}


def names(*rows: Any, entry: Any = ENTRY) -> list[str]:
    return [one.name for one in linked(parse_terminating(entry), parse_gateway_services(rows))]


def test_a_row_of_the_wildcard_does_not_overwrite_what_the_entry_says_of_a_service() -> None:
    """Consul's catalog does after any registration of that service: TLS would silently become plaintext."""
    clobbered = row("ext", CAFile="/wild.pem", FromWildcard=True, AutoHostRewrite=True)
    found = linked(parse_terminating(ENTRY), parse_gateway_services([clobbered, row("other")]))
    assert found == (EXT, LinkedService("other", Origination("/wild.pem")))


def test_rows_count_only_for_a_wildcard() -> None:
    entry = {"Name": "egress", "Services": [{"Name": "ext"}]}
    assert names(row("other"), entry=entry) == ["ext"]
    assert names(row("other"), entry=None) == []


def test_names_are_equal_in_any_case() -> None:
    assert names(row("EXT")) == ["ext"]


def test_what_is_no_service_is_not_linked_and_told() -> None:
    rows = [row(""), row("*"), row("a/b"), row(None), {"Service": None}, {}, row("good")]
    assert names(*rows) == ["ext", "good"]
    told = complaints(parse_terminating(ENTRY), parse_gateway_services(rows))
    assert len(told) == 2
    assert all(problem.fix == "this service is not linked" for problem in told)


def test_an_sni_without_a_ca_is_plaintext_and_told() -> None:
    entry = parse_terminating({"Name": "egress", "Services": [{"Name": "ext", "SNI": "ext.example.com"}]})
    assert linked(entry, ()) == (LinkedService("ext", None, "ext.example.com"),)
    assert [str(problem) for problem in complaints(entry, ())] == [
        "terminating-gateway egress service ext: SNI without CAFile does not make TLS; it is reached in plaintext"
    ]
