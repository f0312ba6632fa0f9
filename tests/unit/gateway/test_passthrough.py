from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import read_gateway
from policies.edge.passthrough import PassthroughRule
from policies.errors import ConfigError

GATEWAY = "gateway: {service: edge, address: '192.0.2.10:8443'}\nissuer: consul\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "edge.yaml"
    file.write_text(GATEWAY + text)
    return file


def test_the_rules_are_read(tmp_path: Path) -> None:
    text = """
passthrough:
  - {port: 9443, sni: DB.example.com, service: db}
  - {port: 9443, sni: "*.example.com", service: wide}
  - {port: 9443, without_sni: true, service: legacy}
"""
    edge = read_gateway(written(tmp_path, text), {}).edge
    assert edge is not None
    assert edge.passthrough == (
        PassthroughRule(9443, "db.example.com", "db"),
        PassthroughRule(9443, "*.example.com", "wide"),
        PassthroughRule(9443, "", "legacy"),
    )


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{port: 9443, service: db}", "either a name or `without_sni: true`"),
        ("{port: 9443, sni: a, without_sni: true, service: db}", "either a name or `without_sni: true`"),
        ("{port: 9443, sni: 'a*.example.com', service: db}", "no host name"),
        ("{port: 9443, sni: 'a..b', service: db}", "no host name"),
        ("{sni: a, service: db}", "port: is missing"),
        ("{port: 9443, sni: a}", "service: is missing"),
        ("{port: 9443, sni: a, service: a/b}", "a/b"),
        ("{port: 9443, sni: a, service: db, name: x}", "is not a known field"),
        ("{port: 9443, sni: a, service: db}, {port: 9443, sni: A, service: b}", "has this one already"),
    ],
)
def test_a_rule_that_is_none_is_told(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_gateway(written(tmp_path, f"passthrough: [{row}]\n"), {})
