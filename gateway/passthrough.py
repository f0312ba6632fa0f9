"""The YAML's `passthrough`.

passthrough:
  - {port: 9443, sni: db.example.com, service: db}
  - {port: 9443, sni: "*.example.com", service: other}
  - {port: 9443, sni: "*", service: rest}             # any other name
  - {port: 9443, without_sni: true, service: legacy}  # callers that send no name
"""

from __future__ import annotations

import re

from policies.edge.passthrough import PassthroughRule
from policies.errors import IdentityError
from policies.identity import parse_service_name
from sidecar.yaml_reader import Section

_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\*")


def read_passthrough(document: Section) -> tuple[PassthroughRule, ...]:
    """Return the rules."""
    rules: dict[tuple[int, str], PassthroughRule] = {}
    for row in document.sections("passthrough"):
        rule = _rule(row)
        row.done()
        if (rule.port, rule.sni) in rules:
            row.note("sni", f"port {rule.port} has this one already", "keep one of them")
        rules[rule.port, rule.sni] = rule
    return tuple(rules.values())


def _rule(row: Section) -> PassthroughRule:
    sni, without = row.text("sni").lower(), row.flag("without_sni")
    if without == bool(sni):
        row.note("sni", "either a name or `without_sni: true` is needed", "write one line for each")
    elif sni and not _NAME.fullmatch(sni):
        row.note("sni", f"{sni!r} is no host name", "write db.example.com, *.example.com or *")
    service = row.text("service", required=True)
    try:
        parse_service_name(service or "unnamed")
    except IdentityError as error:
        row.note("service", str(error))
    return PassthroughRule(row.port("port", required=True), sni, service)
