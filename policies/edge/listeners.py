"""The listeners of a gateway, and which hosts of them lead to which outbound: from entries to the table's shapes.

An `ingress-gateway` names services for its listeners, an `api-gateway` has routes bound to them; what comes out is the
same. TLS passthrough is the YAML's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from policies.chain import HTTP_PROTOCOLS
from policies.edge.ingress import EntryListener, ExposedService, exposed, outbound_key
from policies.edge.ingress_tls import CLOSED, ingress_tls
from policies.edge.passthrough import PassthroughListener, passthrough_listeners
from policies.edge.settings import NO_EDGE
from policies.edge.words import with_edge_words
from policies.errors import Problem
from policies.modifiers import LEFT_OUT, complaints
from policies.proxies import Registration
from policies.snapshot import Snapshot
from policies.table import IngressListener, Outbound, Table, VirtualHost
from policies.wanted import endpoint_watch
from policies.watches import ChainWatch

_HTTP = "http"
_HIGHEST_PORT = 65535


def edge_listeners(
    snapshot: Snapshot,
    registration: Registration,
    outbounds: dict[str, Outbound],
    previous: Table | None,
    problems: list[Problem],
) -> tuple[IngressListener, ...]:
    """Return the listeners; those that have not changed are the very objects of before. Adds outbounds and problems."""
    listeners = _ingress(snapshot, outbounds, problems) + _api(snapshot, registration, outbounds, previous, problems)
    listeners, wrong = with_edge_words(listeners, (snapshot.edge or NO_EDGE).tls)
    problems.extend(wrong)
    now = tuple(
        replace(listener, address=address)
        for listener in (*listeners, *_registered(snapshot, registration))
        if _is_port(listener, problems)
        for address in registration.gateway_addresses
    )
    before = previous.ingress if previous is not None else ()
    known = {(listener.address, listener.port): listener for listener in before}
    kept = tuple(old if (old := known.get((one.address, one.port), one)) == one else one for one in now)
    return before if kept == before else kept


def _registered(snapshot: Snapshot, registration: Registration) -> tuple[IngressListener, ...]:
    """Return a listener without hosts at the port that an ingress gateway has registered, unless that port is named.

    Consul's check connects there, as under `consul connect envoy`, whose Envoy answers at it too.
    """
    entry, port = snapshot.ingress, registration.port
    if entry is None or not port:
        return ()
    rules = snapshot.edge.passthrough if snapshot.edge is not None else ()
    named = {listener.port for listener in entry.listeners} | {rule.port for rule in rules}
    return () if port in named else (IngressListener("", port, _HTTP, ()),)


def _is_port(listener: IngressListener, problems: list[Problem]) -> bool:
    if 0 < listener.port <= _HIGHEST_PORT:
        return True
    problems.append(Problem(f"listener {listener.port}", "is no port: expected 1 to 65535", CLOSED))
    return False


def _ingress(
    snapshot: Snapshot, outbounds: dict[str, Outbound], problems: list[Problem]
) -> tuple[IngressListener, ...]:
    entry, rows = snapshot.ingress, snapshot.gateway_services
    if entry is None or rows is None:
        return ()
    listeners = []
    for listener in entry.listeners:
        where = f"ingress-gateway {entry.name} listener {listener.port}"
        tls = None
        if listener.tls is not None:
            tls, wrong = ingress_tls(listener.tls, listener.port, (snapshot.edge or NO_EDGE).tls, where)
            problems.extend(wrong)
            if tls is None:
                continue
        hosts = [
            _virtual_host(service, listener)
            for service in exposed(listener, rows)
            if _fits(service, listener, outbounds, where, problems)
        ]
        levels = (level for host in hosts for level in (host.request_headers, host.response_headers))
        problems.extend(Problem(where, text, LEFT_OUT) for text in complaints(levels))
        if listener.protocol in HTTP_PROTOCOLS - {_HTTP} and len(hosts) > 1:
            message = f"{listener.protocol} is relayed as tcp, to one service alone, and this listener has {len(hosts)}"
            problems.append(Problem(where, message, CLOSED))
        elif hosts or listener.protocol == _HTTP:
            listeners.append(IngressListener("", listener.port, listener.protocol, tuple(hosts), tls))
    return tuple(listeners)


def passthrough(
    snapshot: Snapshot,
    registration: Registration,
    ingress: tuple[IngressListener, ...],
    outbounds: Mapping[str, Outbound],
    problems: list[Problem],
) -> tuple[PassthroughListener, ...]:
    """Return the ports on which TLS is passed on, but for those that an entry's listener has."""
    for service in (snapshot.edge or NO_EDGE).proxy_protocol.send_to:
        outbound = outbounds.get(service)
        if outbound is not None and outbound.protocol in HTTP_PROTOCOLS:
            message = f"{service} speaks {outbound.protocol}, and shares its connections among callers"
            problems.append(Problem("proxy_protocol.send_to", message, "it is sent no header"))
    listeners = []
    for listener in passthrough_listeners((snapshot.edge or NO_EDGE).passthrough, registration.bind_address):
        where = f"passthrough port {listener.port}"
        if any(listener.port == one.port for one in ingress):
            problems.append(Problem(where, "a listener of Consul's entry has this port", CLOSED))
            continue
        for rule in listener.rules:
            outbound = outbounds.get(rule.service)
            if outbound is not None and outbound.protocol in HTTP_PROTOCOLS:
                message = f"{rule.service} speaks {outbound.protocol}, and TLS can be passed on to tcp alone"
                problems.append(Problem(where, message, "its connections are refused"))
        listeners.append(listener)
    return tuple(listeners)


def _api(
    snapshot: Snapshot,
    registration: Registration,
    outbounds: dict[str, Outbound],
    previous: Table | None,
    problems: list[Problem],
) -> tuple[IngressListener, ...]:
    """Return the listeners of an api-gateway and add the outbounds of their hosts."""
    if snapshot.bindings is None:
        return ()
    from policies.edge.api_listeners import compile_bindings  # noqa: PLC0415 - only an api-gateway pays for it

    names = snapshot.bindings.services()
    unheard = frozenset(name for name in names.difference(outbounds) if _is_unheard(snapshot, snapshot.upstreams[name]))
    hosts, listeners, met = compile_bindings(
        snapshot.bindings,
        {name: outbounds[name] for name in names if name in outbounds},
        unheard,
        registration.retries,
        previous.outbounds if previous is not None else {},
        (snapshot.edge or NO_EDGE).tls,
    )
    outbounds.update(hosts)
    problems.extend(met)
    return listeners


def _is_unheard(snapshot: Snapshot, watch: ChainWatch) -> bool:
    """Return whether an upstream waits for an answer; else it is its own fault that it is not there."""
    chain, registration = snapshot.chain(watch), snapshot.registration
    if chain is None or registration is None:
        return watch not in snapshot.problems
    needed = (endpoint_watch(watch, target, registration.datacenter) for target in chain.targets.values())
    return any(one not in snapshot.heard for one in needed)


def _fits(
    service: ExposedService,
    listener: EntryListener,
    outbounds: dict[str, Outbound],
    where: str,
    problems: list[Problem],
) -> bool:
    outbound = outbounds.get(outbound_key(service, listener.port))
    if outbound is None:
        return False
    if outbound.protocol == listener.protocol or listener.protocol not in HTTP_PROTOCOLS:
        return True
    if any(named.name == service.name for named in listener.services):
        problems.append(
            Problem(where, f"{service.name} speaks {outbound.protocol}, the listener {listener.protocol}", "left out")
        )
    return False


def _virtual_host(service: ExposedService, listener: EntryListener) -> VirtualHost:
    if listener.protocol not in HTTP_PROTOCOLS:
        hosts: tuple[str, ...] = ("*",)
    else:
        hosts = service.hosts or (f"{service.name.lower()}.ingress.*",)
    return VirtualHost(outbound_key(service, listener.port), hosts, service.request_headers, service.response_headers)
