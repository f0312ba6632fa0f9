from __future__ import annotations

import pytest

from policies.edge.passthrough import PassthroughRule, passthrough_listeners

RULES = [
    PassthroughRule(9443, "db.example.com", "db"),
    PassthroughRule(9443, "*.example.com", "wide"),
    PassthroughRule(9443, "*.deep.example.com", "deep"),
    PassthroughRule(9443, "", "legacy"),
    PassthroughRule(9444, "*", "rest"),
]


@pytest.mark.parametrize(
    ("port", "sni", "service"),
    [
        (9443, "db.example.com", "db"),
        (9443, "other.example.com", "wide"),
        (9443, "a.b.example.com", "wide"),
        (9443, "a.deep.example.com", "deep"),
        (9443, "deep.example.com", "wide"),
        (9443, "example.com", None),
        (9443, "", "legacy"),
        (9443, "elsewhere", None),
        (9443, "*.example.com", "wide"),
        (9443, ".example.com", "wide"),
        (9444, "anything", "rest"),
        (9444, "", None),
    ],
)
def test_a_name_finds_its_service(port: int, sni: str, service: str | None) -> None:
    listeners = {listener.port: listener for listener in passthrough_listeners(RULES, "127.0.0.1")}
    assert listeners[port].service_for(sni) == service
