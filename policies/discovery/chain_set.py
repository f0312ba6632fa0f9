"""Which entries take part in the chain of one service: those that Consul reads before it compiles.

It follows names from the router over splitters to resolvers. A peer's failover target is not followed, so the entries
of a local service with the same name have no say there unless something else leads to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from policies.weak import items, mapping

Entry = Mapping[str, Any]


class Source(Protocol):
    """Where entries come from: the stored ones, or the stored ones with a change that is proposed."""

    def get(self, kind: str, name: str) -> Entry | None:
        """Return the entry, or None."""


@dataclass(slots=True)
class ChainSet:
    """The entries of one chain, by the name under which each was asked for."""

    router: Entry | None = None
    proxy_defaults: Entry | None = None
    splitters: dict[str, Entry] = field(default_factory=dict)
    resolvers: dict[str, Entry] = field(default_factory=dict)
    defaults: dict[str, Entry] = field(default_factory=dict)


def read_chain_set(source: Source, service: str) -> ChainSet:
    """Return the entries that the chain of `service` may look at."""
    found = ChainSet(
        router=source.get("service-router", service), proxy_defaults=source.get("proxy-defaults", "global")
    )
    seen_splitters = _follow(source, "service-splitter", _router_names(service, found.router), found.splitters)
    seen_resolvers = _follow(source, "service-resolver", seen_splitters, found.resolvers)
    for name in {service, *seen_splitters, *seen_resolvers}:
        entry = source.get("service-defaults", name)
        if entry is not None:
            found.defaults[name] = entry
    return found


def _router_names(service: str, router: Entry | None) -> set[str]:
    return {service} if router is None else related(router)


def _follow(source: Source, kind: str, names: set[str], found: dict[str, Entry]) -> set[str]:
    """Gather entries of a kind from `names` on; return all names that were looked at."""
    seen: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        seen.add(name)
        entry = source.get(kind, name)
        if entry is not None:
            found[name] = entry
            todo |= related(entry) - seen
    return seen


def related(entry: Entry) -> set[str]:
    """Return the services that an entry names, as Consul's index of links has them.

    A router counts itself, splitters and resolvers only others, an ingress gateway its services without `*`.
    """
    own = str(entry["Name"])
    match entry["Kind"]:
        case "service-router":
            routes = [mapping(route).get("Destination") for route in items(entry.get("Routes"))]
            return {own} | {str(mapping(destination).get("Service") or own) for destination in routes if destination}
        case "service-splitter":
            return {str(mapping(split).get("Service") or own) for split in items(entry.get("Splits"))} - {own}
        case "service-resolver":
            return _resolver_names(entry, own) - {own}
        case "ingress-gateway":
            return {
                str(service["Name"])
                for listener in items(entry.get("Listeners"))
                for service in items(listener.get("Services"))
            } - {"*"}
        case _:
            return set()


def _resolver_names(entry: Entry, own: str) -> set[str]:
    redirect = entry.get("Redirect")
    names = {str(redirect.get("Service") or own)} if redirect is not None else set()
    for failover in mapping(entry.get("Failover")).values():
        targets = items(failover.get("Targets"))
        places = [target for target in targets if not target.get("Peer")] if targets else [failover]
        names |= {str(place.get("Service") or own) for place in places}
    return names
