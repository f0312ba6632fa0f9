"""From a snapshot to the table: `compile_table`.

Every upstream is compiled by itself. One that cannot be (a chain that cannot be followed, a filter that does not fit
its rows) keeps what the previous table had for it and becomes a problem; all others go on.

An upstream is compiled from its `Sources` and nothing else (`outbounds`), and carries them along. Where they are the
same as in the previous table, so is the upstream: of a thousand only those are compiled anew that something has changed
for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from policies.errors import EntryError, FilterError, Problem
from policies.identity import Roots
from policies.modifiers import LEFT_OUT
from policies.outbounds import UNPROTECTED, ClusterKey, Protection, Sources, clusters_of, compile_outbound
from policies.proxies import Registration
from policies.retries import RetrySettings
from policies.snapshot import Role, Snapshot
from policies.table import Cluster, Inbound, Outbound, Table, UpstreamListener
from policies.wanted import endpoint_watch
from policies.watches import ChainWatch


def compile_table(snapshot: Snapshot, previous: Table | None = None) -> tuple[Table, tuple[Problem, ...]]:
    """Return the table and the problems met. The snapshot must not be `missing` anything (ValueError)."""
    registration, roots, leaf = snapshot.registration, snapshot.roots, snapshot.leaf
    if registration is None or roots is None or leaf is None:
        message = "a table needs the registration, the roots and a leaf"
        raise ValueError(message)
    problems = [problem for group in snapshot.problems.values() for problem in group]
    outbounds = _outbounds(snapshot, registration, roots, previous, problems)
    listeners = tuple(
        UpstreamListener(stanza.key, stanza.bind_address, stanza.bind_port, stanza.forward_proxy)
        for stanza in registration.upstreams
        if stanza.key in outbounds and stanza.bind_port
    )
    table = Table(
        identity=leaf.spiffe_id,
        inbound=_inbound(snapshot, registration),
        outbounds=outbounds,
        listeners=previous.listeners if previous is not None and previous.listeners == listeners else listeners,
        edge=snapshot.edge,
    )
    if snapshot.role is not Role.SIDECAR:
        table = _of_gateway(table, snapshot, registration, outbounds, previous, problems)
    return table, tuple(problems)


def _of_gateway(
    table: Table,
    snapshot: Snapshot,
    registration: Registration,
    outbounds: dict[str, Outbound],
    previous: Table | None,
    problems: list[Problem],
) -> Table:
    """Return the table with a gateway's own listeners. Adds to its outbounds, and problems."""
    from policies.edge.listeners import edge_listeners, passthrough  # noqa: PLC0415 - a sidecar needs none of it
    from policies.egress.filter_chains import compile_egress  # noqa: PLC0415 - the same

    ingress = edge_listeners(snapshot, registration, outbounds, previous, problems)
    return replace(
        table,
        ingress=ingress,
        egress=compile_egress(snapshot, previous.egress if previous is not None else None, problems),
        passthrough=passthrough(snapshot, registration, ingress, outbounds, problems),
    )


def _inbound(snapshot: Snapshot, registration: Registration) -> Inbound | None:
    mesh, intentions, default = snapshot.mesh, snapshot.intentions, snapshot.default_action
    if mesh is None or intentions is None or default is None or not registration.local_port:
        return None
    return Inbound(
        service=registration.service,
        protocol=registration.protocol,
        bind_address=registration.bind_address,
        bind_port=registration.bind_port,
        local_address=registration.local_address,
        local_port=registration.local_port,
        intentions=intentions,
        default=default,
        local_connect_timeout=registration.local_connect_timeout,
        local_request_timeout=registration.local_request_timeout,
        local_idle_timeout=registration.local_idle_timeout,
        max_connections=registration.max_inbound_connections,
        normalization=mesh.normalization,
        sanitize_xfcc=mesh.sanitize_xfcc,
    )


# --- upstreams -----------------------------------------------------------------------------------------------------


def _outbounds(
    snapshot: Snapshot, registration: Registration, roots: Roots, previous: Table | None, problems: list[Problem]
) -> dict[str, Outbound]:
    compiled: dict[str, Outbound] = {}
    before = previous.outbounds if previous is not None else {}
    known: dict[ClusterKey, Cluster] | None = None
    retries = {stanza.key: stanza.retries for stanza in registration.upstreams}
    for key, place in _places(snapshot, registration).items():
        outbound = old = before.get(key)
        sources = _sources(snapshot, registration, roots, place, retries.get(key, registration.retries))
        if sources is not None and (old is None or old.made_from != sources):
            known = clusters_of(before) if known is None else known
            try:
                outbound = compile_outbound(sources, known) or old
            except (EntryError, FilterError) as error:
                problems.append(Problem(f"upstream {key}", str(error), "the last good state stays"))
        if outbound is not None:
            compiled[key] = outbound
            problems.extend(Problem(f"upstream {key}", text, LEFT_OUT) for text in outbound.left_out)
    return compiled


def _sources(
    snapshot: Snapshot, registration: Registration, roots: Roots, place: _Place, retries: RetrySettings
) -> Sources | None:
    """Return what an upstream is compiled from, None as long as its chain has not been heard."""
    chain, here = snapshot.chain(place.watch), registration.datacenter
    if chain is None:
        return None
    instances = {
        name: snapshot.instances(endpoint_watch(place.watch, target, here)) for name, target in chain.targets.items()
    }
    return Sources(chain, instances, here, roots.trust_domain, place.protection, retries, place.circuit)


@dataclass(frozen=True, slots=True)
class _Place:
    """An upstream to compile. `circuit` is what tells its targets from those that others lead to."""

    watch: ChainWatch
    protection: Protection = UNPROTECTED
    circuit: str = ""


def _places(snapshot: Snapshot, registration: Registration) -> dict[str, _Place]:
    """Return all upstreams by their keys in the table: those of the registration, and what a gateway leads to."""
    upstreams, found, taken = snapshot.upstreams, dict[str, _Place](), set[str]()
    if snapshot.ingress is not None:
        from policies.edge.ingress import exposed_circuits  # noqa: PLC0415 - only an ingress gateway has an entry

        exposures = exposed_circuits(snapshot.ingress, snapshot.gateway_services)
        found = {
            key: _Place(upstreams[one.service], (one.limits, one.passive_health), one.suffix)
            for key, one in exposures.items()
            if one.service in upstreams
        }
        passed_on = {rule.service for rule in snapshot.edge.passthrough} if snapshot.edge is not None else set()
        taken = {one.service for one in exposures.values()} - passed_on
    stanzas = {stanza.key: (stanza.limits, stanza.passive_health) for stanza in registration.upstreams}
    for key, watch in upstreams.items():
        if key in stanzas:
            found[key] = _Place(watch, stanzas[key])
        elif key not in taken:
            found.setdefault(key, _Place(watch))
    return found
