"""The `terminating-gateway` config entry: which services outside the mesh are linked, and how they are reached.

The entry alone says how: of `GET /v1/catalog/gateway-services/:name` no more than names are taken, those that its
wildcard stands for. The catalog is known to replace the row of a service that the entry names by the wildcard's, and
to list what has no name at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from policies.edge.ingress import GatewayService
from policies.errors import IdentityError, Problem
from policies.identity import parse_service_name
from policies.weak import items, mapping

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Origination:
    """TLS towards the outside, by files read here. `sni` "" checks no name, as in Consul; `alpn` "" offers none."""

    ca_file: str
    cert_file: str = ""
    key_file: str = ""
    sni: str = ""
    alpn: str = ""


@dataclass(frozen=True, slots=True)
class LinkedService:
    """A service outside. `origination` None is plaintext; `sni` is what the entry says, with or without a CA."""

    name: str
    origination: Origination | None = None
    sni: str = ""
    auto_host_rewrite: bool = True


@dataclass(frozen=True, slots=True)
class TerminatingEntry:
    """The entry."""

    name: str
    services: tuple[LinkedService, ...] = ()


def parse_terminating(entry: Mapping[str, Any] | None) -> TerminatingEntry:
    """Return the entry; None (404) links nothing."""
    body = mapping(entry)
    return TerminatingEntry(
        str(body.get("Name") or ""), tuple(_service(mapping(row)) for row in items(body.get("Services")))
    )


def _service(row: Mapping[str, Any]) -> LinkedService:
    ca_file, sni = str(row.get("CAFile") or ""), str(row.get("SNI") or "")
    cert_file, key_file = str(row.get("CertFile") or ""), str(row.get("KeyFile") or "")
    return LinkedService(
        name=str(row.get("Name") or ""),
        origination=Origination(ca_file, cert_file, key_file, sni) if ca_file else None,
        sni=sni,
        auto_host_rewrite=not row.get("DisableAutoHostRewrite"),
    )


def linked(entry: TerminatingEntry, rows: Iterable[GatewayService]) -> tuple[LinkedService, ...]:
    """Return the services of a gateway, each once, in the order of their names; what cannot be one is left out.

    Consul's names are equal in any case: what the entry names is not named by a wildcard too.
    """
    found: dict[str, LinkedService] = {}
    wildcard = next((one for one in entry.services if one.name == WILDCARD), None)
    expanded = (replace(wildcard, name=row.service) for row in rows) if wildcard is not None else ()
    for service in (*entry.services, *expanded):
        if service.name != WILDCARD and not misnamed(service.name):
            found.setdefault(service.name.lower(), service)
    return tuple(found[name] for name in sorted(found))


def misnamed(name: str) -> str:
    """Return what is wrong with the name of a service, or ""."""
    try:
        parse_service_name(name)
    except IdentityError as error:
        return str(error)
    return ""


def complaints(entry: TerminatingEntry, rows: Iterable[GatewayService]) -> tuple[Problem, ...]:
    """Return what is probably not meant so."""
    where = f"terminating-gateway {entry.name}"
    names = dict.fromkeys([one.name for one in entry.services if one.name != WILDCARD] + [row.service for row in rows])
    nameless = tuple(
        Problem(where, trouble, "this service is not linked") for trouble in map(misnamed, names) if trouble
    )
    plaintext = tuple(
        Problem(f"{where} service {one.name}", "SNI without CAFile does not make TLS", "it is reached in plaintext")
        for one in entry.services
        if one.sni and one.origination is None
    )
    return nameless + plaintext
