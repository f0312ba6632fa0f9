"""What an entry may not do to others: the checks that Consul makes on every write and delete.

The chains that the change touches are compiled with it; protocols must fit L7 intentions and ingress listeners; JWT
providers must exist and stay while in use; gateways of two kinds may not share a name; chains that are exported to
peers stay within their datacenter. Chains are taken in the order of their names (Consul takes them at random).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.discovery.chain_set import Entry, related
from policies.discovery.compile import Request, compile_request
from policies.discovery.exports import check_export, exported_services
from policies.discovery.proposal import Proposal
from policies.entries.check_common import HTTP_LIKE, WILDCARD
from policies.entries.gotext import quote, several
from policies.entries.store import Entries
from policies.errors import EntryError
from policies.weak import items, mapping

_CHAIN_KINDS = ("service-router", "service-splitter", "service-resolver")
_CLASHING = {"ingress-gateway": "terminating-gateway", "terminating-gateway": "ingress-gateway"}
_UNCHAINED = frozenset({"mesh", "exported-services"})


def check_graph(
    before: Entries, after: Entries, kind: str, name: str, *, datacenter: str = "dc1", trust_domain: str
) -> None:
    """Check the change of one entry, a write or a delete. Raise EntryError with Consul's text (HTTP 500).

    `name` is spelled as the writer does. An entry that does not change is not checked, as Consul skips such a write.
    """
    new, old = after.get(kind, name), before.get(kind, name)
    if new == old:
        return
    proposal = Proposal(before, kind, name, new)
    _check_own(proposal, old)
    if kind not in _UNCHAINED:
        _check_chains(proposal, Request("", datacenter, trust_domain))
    elif kind == "exported-services" and new is not None:
        for service in sorted(exported_services(proposal)):
            check_export(before, service)
    if new is not None and not name:
        raise EntryError("failed inserting config entry: object missing primary index")


# --- what concerns the entry alone ------------------------------------------------------------------------------------


def _check_own(proposal: Proposal, old: Entry | None) -> None:
    kind, name, new = proposal.kind, proposal.name, proposal.new
    if kind in {"proxy-defaults", "service-defaults"}:
        _check_permissive(proposal.before, new, old)
    elif kind in _CLASHING:
        other = _CLASHING[kind]
        if proposal.before.get(other, name) is not None:
            raise EntryError(
                f"cannot create a {quote(kind)} config entry with name {quote(name)}, "
                f"a {quote(other)} config entry with that name already exists"
            )
    elif kind == "service-intentions" and new is not None:
        known = {provider["Name"] for provider in proposal.before.of_kind("jwt-provider")}
        missing = sorted(_providers(new) - known)
        if missing:
            text = "Referenced JWT Provider does not exist. Provider Name: "
            raise EntryError(several([text + provider for provider in missing]))
    elif kind == "jwt-provider" and new is None and old is not None:
        for intentions in proposal.before.of_kind("service-intentions"):
            if old["Name"] in _providers(intentions):
                raise EntryError(
                    "cannot delete jwt provider config entry referenced by an intention. "
                    f"Provider name: {old['Name']}, intention name: {intentions['Name']}"
                )


def _check_permissive(before: Entries, new: Entry | None, old: Entry | None) -> None:
    mode = mapping(new).get("MutualTLSMode")
    if mode != "permissive" or mapping(old).get("MutualTLSMode") == mode:
        return
    if not mapping(before.get("mesh", "mesh")).get("AllowEnablingPermissiveMutualTLS"):
        raise EntryError(
            "cannot set MutualTLSMode=permissive because AllowEnablingPermissiveMutualTLS=false "
            "in the mesh config entry"
        )


def _providers(intentions: Entry) -> set[str]:
    """Return the JWT providers that intentions ask for, on the whole entry and in permissions."""
    demands = [intentions.get("JWT")]
    for source in items(intentions.get("Sources")):
        demands += [permission.get("JWT") for permission in items(source.get("Permissions"))]
    return {str(provider.get("Name")) for demand in demands for provider in items(mapping(demand).get("Providers"))}


# --- the chains that it touches ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Touched:
    """What a change may break."""

    chains: set[str] = field(default_factory=set)
    ingress: list[Entry] = field(default_factory=list)
    intentions: list[Entry] = field(default_factory=list)


def _touched(proposal: Proposal) -> _Touched | None:
    """Return what a change may break; None if it can break nothing."""
    before, new = proposal.before, proposal.new
    if proposal.kind in {"service-intentions", "ingress-gateway"}:
        if new is None:
            return None
        only = [new]
        return _Touched(ingress=only) if proposal.kind == "ingress-gateway" else _Touched(intentions=only)
    intentions = list(before.of_kind("service-intentions"))
    if proposal.kind == "proxy-defaults":
        chains = {str(entry["Name"]) for kind in _CHAIN_KINDS for entry in before.of_kind(kind)}
        return _Touched(chains, list(before.of_kind("ingress-gateway")), intentions)
    own = before.get("service-intentions", proposal.name)
    linked = [entry for kind in _CHAIN_KINDS for entry in before.of_kind(kind) if proposal.name in related(entry)]
    return _Touched(
        chains={proposal.name} | {str(entry["Name"]) for entry in linked},
        ingress=[entry for entry in before.of_kind("ingress-gateway") if proposal.name in related(entry)],
        intentions=([own] if own is not None else []) + intentions,
    )


def _check_chains(proposal: Proposal, request: Request) -> None:
    touched = _touched(proposal)
    if touched is None:
        return
    for gateway in touched.ingress:
        touched.chains |= related(gateway)
    touched.chains |= {str(entry["Name"]) for entry in touched.intentions}
    exported = exported_services(proposal)
    chains = {}
    for service in sorted(touched.chains):
        chains[service] = compile_request(proposal, Request(service, request.datacenter, request.trust_domain))
        if service in exported:
            check_export(proposal, service)
            _check_exported_targets(proposal.before, chains[service], request)
    for gateway in touched.ingress:
        _check_listeners(gateway, chains, strict=proposal.kind == "ingress-gateway")
    for entry in touched.intentions:
        _check_permissions(entry, chains)


def _check_listeners(gateway: Entry, chains: Mapping[str, Mapping[str, Any]], *, strict: bool) -> None:
    """Refuse a listener of another protocol than its services'.

    Tolerated unless the gateway itself is written: tcp in front of a chain that begins at a resolver.
    """
    for listener in items(gateway.get("Listeners")):
        expected = listener["Protocol"]
        for service in items(listener.get("Services")):
            if service["Name"] == WILDCARD:
                continue
            chain = chains[service["Name"]]
            if chain["Protocol"] == expected:
                continue
            if strict or expected != "tcp" or chain["Nodes"][chain["StartNode"]]["Type"] != "resolver":
                raise EntryError(
                    f"service {quote(service['Name'])} has protocol {quote(chain['Protocol'])}, "
                    f"which does not match defined listener protocol {quote(expected)}"
                )


def _check_permissions(entry: Entry, chains: Mapping[str, Mapping[str, Any]]) -> None:
    name = str(entry["Name"])
    if name == WILDCARD or not any(source.get("Permissions") for source in items(entry.get("Sources"))):
        return
    protocol = chains[name]["Protocol"]
    if protocol not in HTTP_LIKE:
        raise EntryError(
            f"service {quote(name)} has protocol {quote(protocol)}, "
            "which is incompatible with L7 intentions permissions"
        )


def _check_exported_targets(before: Entries, chain: Mapping[str, Any], request: Request) -> None:
    """Refuse new identities behind a tcp service that peers already know."""
    service, protocol = str(chain["ServiceName"]), str(chain["Protocol"])
    if protocol in HTTP_LIKE:
        return
    try:
        old = compile_request(before, Request(service, request.datacenter, request.trust_domain))
    except EntryError as error:
        raise EntryError(f"error compiling current discovery chain for {quote(service)}: {error}") from None
    known = _identities(old)
    for identity, target in _identities(chain).items():
        if identity not in known:
            raise EntryError(
                f"peer exported service {quote(service)} uses protocol={quote(protocol)} "
                f"and cannot introduce new discovery chain targets like {quote(target)}"
            )


def _identities(chain: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Return the targets that are no failover, by what makes their SPIFFE ID."""
    nodes = chain["Nodes"].values()
    failovers = {
        target
        for node in nodes
        for target in items(mapping(mapping(node.get("Resolver")).get("Failover")).get("Targets"))
    }
    fields = ("Partition", "Namespace", "Datacenter", "Peer", "Service")
    found: dict[tuple[str, ...], str] = {}
    for id_, target in chain["Targets"].items():
        if id_ not in failovers:
            found.setdefault(tuple(str(target.get(part, "")) for part in fields), id_)
    return found
