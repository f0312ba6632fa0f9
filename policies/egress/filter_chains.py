"""From what a terminating gateway has heard to its filter chains: `compile_egress`.

Each linked service is compiled by itself, from its `_Sources` and nothing else. It has a chain for all its instances
and one for every subset. A subset whose filter cannot be asked keeps the instances that it had, under the intentions in
force, and becomes a problem; a service of which not everything is known yet stays closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from policies.balance import Endpoint, build, reused
from policies.egress.forward_proxy import by_host, contested, forwarded_hosts
from policies.egress.host_names import dialled
from policies.egress.links import LinkedService, Origination, complaints
from policies.egress.outside import OutsideResolver, Subset
from policies.errors import Problem
from policies.identity import SpiffeId, sni_of
from policies.instances import Instance, healthy_endpoints
from policies.intentions import Action, Intentions
from policies.mesh import Mesh
from policies.snapshot import Role, Snapshot
from policies.table import Cluster, Egress, FilterChain, ForwardedHost
from policies.watches import OutsideWatch

_EVERYTHING = Subset("")
_ALPN = {"http": "http/1.1", "http2": "h2", "grpc": "h2"}  # what callers of the mesh speak goes on as it is


@dataclass(frozen=True, slots=True)
class _Sources:
    """All that the chains of a linked service are compiled from."""

    link: LinkedService
    protocol: str
    trust_domain: str
    datacenter: str
    intentions: Intentions
    default: Action
    mesh: Mesh
    resolver: OutsideResolver
    instances: tuple[Instance, ...]
    strict_dns: bool
    connect_timeout: float  # in seconds, where the resolver has none
    forward_proxy: bool


def compile_egress(snapshot: Snapshot, previous: Egress | None, problems: list[Problem]) -> Egress | None:
    """Return the listener of a terminating gateway, None for any other proxy. Problems are added."""
    registration, entry, rows = snapshot.registration, snapshot.terminating, snapshot.gateway_services
    if snapshot.role is not Role.TERMINATING or registration is None or entry is None or rows is None:
        return None
    problems += complaints(entry, rows)
    before = previous.chains if previous is not None else {}
    by_service: dict[str, list[FilterChain]] = {}
    for chain in before.values():
        by_service.setdefault(chain.service, []).append(chain)
    chains: dict[str, FilterChain] = {}
    for link in snapshot.links.values():
        sources = _sources(snapshot, link)
        if sources is None:
            continue
        old = by_service.get(link.name, [])
        whole = len(old) == 1 + len(sources.resolver.subsets)
        same = whole and all(chain.made_from == sources for chain in old)
        for chain in old if same else _chains(sources, {chain.sni: chain for chain in old}, problems):
            first = chains.setdefault(chain.sni, chain)
            if first is not chain:
                said = f"{first.service} has the server name {chain.sni} already"
                problems.append(Problem(f"linked service {chain.service}", said, "nobody reaches it by that name"))
    proxy_sni = _proxy_sni(snapshot) if registration.forward_proxy else ""
    problems += contested(chains.values())
    egress = Egress(registration.bind_address, registration.bind_port, chains, proxy_sni, by_host(chains.values()))
    return previous if previous == egress else egress


def _sources(snapshot: Snapshot, link: LinkedService) -> _Sources | None:
    registration, roots, mesh, default = snapshot.registration, snapshot.roots, snapshot.mesh, snapshot.default_action
    intentions, resolver = snapshot.intentions_of(link.name), snapshot.resolver(link.name)
    protocol, instances = snapshot.protocol(link.name), snapshot.instances(OutsideWatch(link.name))
    if registration is None or roots is None or mesh is None or default is None:
        return None
    if intentions is None or resolver is None or protocol is None or instances is None:
        return None
    here = registration.datacenter
    return _Sources(
        link,
        protocol,
        roots.trust_domain,
        here,
        intentions,
        default,
        mesh,
        resolver,
        instances,
        registration.strict_dns,
        registration.connect_timeout,
        registration.forward_proxy,
    )


def _chains(sources: _Sources, before: Mapping[str, FilterChain], problems: list[Problem]) -> list[FilterChain]:
    clusters: list[tuple[Subset, Cluster]] = []
    made_from: object = sources
    for subset in (_EVERYTHING, *sources.resolver.subsets):
        old = before.get(_sni(sources, subset))
        if not subset.broken:
            clusters.append((subset, _cluster(sources, subset, old.cluster if old is not None else None)))
            continue
        where = f"service-resolver {sources.link.name} subset {subset.name}"
        problems.append(Problem(where, subset.broken, "it keeps the instances that it had"))
        made_from = None  # to be told again
        if old is not None:
            clusters.append((subset, old.cluster))
    chains = (_chain(sources, subset, cluster, made_from) for subset, cluster in clusters)
    return [_kept(before.get(chain.sni), chain) for chain in chains]


def _kept(old: FilterChain | None, new: FilterChain) -> FilterChain:
    return old if old is not None and (old, old.made_from) == (new, new.made_from) else new


def _sni(sources: _Sources, subset: Subset) -> str:
    prefix = f"{subset.name}." if subset.name else ""
    return sni_of(f"{prefix}{sources.link.name}", sources.datacenter, sources.trust_domain)


def _proxy_sni(snapshot: Snapshot) -> str:
    registration, roots = snapshot.registration, snapshot.roots
    if registration is None or roots is None:
        return ""
    return sni_of(registration.service, registration.datacenter, roots.trust_domain)


def _chain(sources: _Sources, subset: Subset, cluster: Cluster, made_from: object) -> FilterChain:
    service, limit = sources.link.name, sources.resolver.request_timeout
    return FilterChain(
        sni=_sni(sources, subset),
        service=service,
        subset=subset.name,
        protocol=sources.protocol,
        spiffe_id=SpiffeId(sources.trust_domain, sources.datacenter, service),
        intentions=sources.intentions,
        default=sources.default,
        cluster=cluster,
        auto_host_rewrite=sources.link.auto_host_rewrite,
        request_timeout=limit if limit > 0 else None,
        normalization=sources.mesh.normalization,
        sanitize_xfcc=sources.mesh.sanitize_xfcc,
        hosts=_hosts(sources, cluster) if sources.forward_proxy and not subset.name else (),
        made_from=made_from,
    )


def _hosts(sources: _Sources, cluster: Cluster) -> tuple[ForwardedHost, ...]:
    return forwarded_hosts(cluster, sources.instances, _healthy(sources, _EVERYTHING), sources.link.sni)


def _healthy(sources: _Sources, subset: Subset) -> tuple[Endpoint, ...]:
    return healthy_endpoints(
        sources.instances,
        subset=subset.filter,
        only_passing=subset.only_passing,
        local_datacenter=sources.datacenter,
    )


def _cluster(sources: _Sources, subset: Subset, before: Cluster | None) -> Cluster:
    found = _healthy(sources, subset)
    chosen = dialled(found, strict=sources.strict_dns)
    endpoints = reused(chosen, before.endpoints if before is not None else ())
    resolver, prefix = sources.resolver, f"{subset.name}." if subset.name else ""
    kept = before is not None and before.endpoints is endpoints and before.balancer == resolver.balancer
    chooser = before.chooser if before is not None and kept else None
    cluster = Cluster(
        target=f"{prefix}{sources.link.name}.default.default.{sources.datacenter}",
        service=sources.link.name,
        subset=subset.name,
        datacenter=sources.datacenter,
        sni="",
        spiffe_id=None,
        endpoints=endpoints,
        balancer=resolver.balancer,
        connect_timeout=resolver.connect_timeout or sources.connect_timeout,
        chooser=chooser or (build(endpoints, resolver.balancer) if endpoints else None),
        origination=_origination(sources),
        strict_dns=sources.strict_dns,
    )
    return before if before is not None and before == cluster else cluster


def _origination(sources: _Sources) -> Origination | None:
    origination = sources.link.origination
    return replace(origination, alpn=_ALPN.get(sources.protocol, "")) if origination is not None else None
