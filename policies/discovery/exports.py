"""Services exported to peers: their chains may not leave the datacenter."""

from __future__ import annotations

from policies.discovery.chain_set import Source, read_chain_set
from policies.discovery.proposal import Proposal
from policies.entries.gotext import quote
from policies.errors import EntryError
from policies.weak import items, mapping

_CHAIN_KINDS = ("service-router", "service-splitter", "service-resolver")


def exported_services(proposal: Proposal) -> set[str]:
    """Return the names that at least one peer may see. `*` stands for every service with a chain entry."""
    exports = mapping(proposal.get("exported-services", "default"))
    found: set[str] = set()
    for service in items(exports.get("Services")):
        if not any(consumer.get("Peer") for consumer in items(service.get("Consumers"))):
            continue
        found |= _chain_names(proposal) if service["Name"] == "*" else {str(service["Name"])}
    return found


def _chain_names(proposal: Proposal) -> set[str]:
    """Return what has a chain entry. The changed name counts whatever its kind, as it does for Consul."""
    names = {str(entry["Name"]) for kind in _CHAIN_KINDS for entry in proposal.before.of_kind(kind)}
    return names | {proposal.name} if proposal.new is not None else names - {proposal.name}


def check_export(source: Source, service: str) -> None:
    """Refuse a chain of an exported service that redirects or fails over to another datacenter or peer."""
    entries = read_chain_set(source, service)
    for entry in (entries.resolvers[name] for name in sorted(entries.resolvers)):
        redirect = mapping(entry.get("Redirect"))
        for field, spoken in (("Datacenter", "cross-datacenter"), ("Peer", "cross-peer")):
            if redirect.get(field):
                raise EntryError(f"peer exported service {quote(service)} contains {spoken} resolver redirect")
        for failover in mapping(entry.get("Failover")).values():
            datacenters = [target.get("Datacenter") for target in items(failover.get("Targets"))]
            if failover.get("Datacenters") or any(datacenters):
                raise EntryError(f"peer exported service {quote(service)} contains cross-datacenter failover")
