"""What an answer must look like before anybody reads it.

`null` where a list belongs is no empty list: an agent that is broken, or something else on its port, must never be
heard as "no intentions" or "no instances". Whatever does not fit is a CatalogBadAnswer, and the last good answer stays
in force. Fields inside a row are for the reducer, which refuses what it cannot understand.
Source: the shapes of https://developer.hashicorp.com/consul/api-docs, as Consul 1.21 sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.errors import CatalogBadAnswer


def checked_object(where: str, data: object, *names: str) -> Mapping[str, Any]:
    """Return the object. Raise CatalogBadAnswer for anything else, or when it lacks one of these names."""
    if not isinstance(data, Mapping):
        raise CatalogBadAnswer(where, f"expected an object, got {_said(data)}")
    for name in names:
        if name not in data:
            raise CatalogBadAnswer(where, f"expected an object with {name}, got one without")
    return data


def checked_rows(where: str, data: object, name: str, kind: type = object) -> list[Any]:
    """Return the list of objects that each hold `name`, of this type. Raise CatalogBadAnswer for anything else."""
    if not isinstance(data, list):
        raise CatalogBadAnswer(where, f"expected a list, got {_said(data)}")
    for position, row in enumerate(data):
        if not isinstance(row, Mapping) or not isinstance(row.get(name), kind):
            raise CatalogBadAnswer(where, f"row {position} holds no {name}")
    return data


def checked_roots(where: str, data: object) -> Mapping[str, Any]:
    """Return the CA roots."""
    found = checked_object(where, data, "TrustDomain", "Roots")
    checked_rows(where, found["Roots"] or [], "RootCert", str)
    return found


def checked_service(where: str, data: object) -> Mapping[str, Any]:
    """Return a service of the agent."""
    found = checked_object(where, data, "ID")
    if not isinstance(found["ID"], str):
        raise CatalogBadAnswer(where, "the service's ID is no text")
    return found


def checked_services(where: str, data: object) -> Mapping[str, Mapping[str, Any]]:
    """Return the services of the agent by ID."""
    found = checked_object(where, data)
    for service in found.values():
        checked_service(where, service)
    return found


def checked_match(where: str, data: object, service: str) -> list[Any]:
    """Return the intentions of a service out of a match. No intentions is `null` under its name, and only that."""
    found = checked_object(where, data, service)[service]
    return [] if found is None else checked_rows(where, found, "SourceName", str)


def checked_entry(where: str, data: object, kind: str) -> Mapping[str, Any]:
    """Return a config entry."""
    found = checked_object(where, data, "Kind")
    if found["Kind"] != kind:
        raise CatalogBadAnswer(where, f"expected an entry of kind {kind}, got {found['Kind']!r}")
    return found


def checked_chain(where: str, data: object) -> Mapping[str, Any]:
    """Return the compiled chain."""
    found = checked_object(where, data, "Chain")["Chain"]
    return checked_object(where, found, "StartNode", "Nodes", "Targets")


def checked_instances(where: str, data: object) -> list[Any]:
    """Return the rows of a health query."""
    rows = checked_rows(where, data, "Service", Mapping)
    checked_rows(where, rows, "Node", Mapping)
    return rows


def _said(data: object) -> str:
    match data:
        case None:
            return "null"
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case _:
            return f"{str(data)[:20]!r}"
