"""From the bindings of an api-gateway to the shapes of any gateway: an outbound a host, a listener a port.

A rule leads to services, and below a service stands what its own chain says: its splitter, its resolver. Its router
does not count: the rule is in its place. So an arm of a rule is an arm of the last route of the service's outbound,
which is the one that takes what the router leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from policies.durations import limit
from policies.edge.api_gateway import ApiListener, Bindings, BoundPort, HostRules
from policies.edge.http_routes import MatchedRule, RoutedService, Rule
from policies.edge.ingress_tls import CLOSED, with_words
from policies.edge.server_certificates import CertificateReference
from policies.edge.tls import NO_TLS, EdgeTls, ListenerTls
from policies.errors import Problem
from policies.mesh import TlsLimits
from policies.modifiers import LEFT_OUT, complaints
from policies.retries import RetrySettings
from policies.route_index import RouteIndex
from policies.routes import RouteMatch, merged
from policies.table import (
    DEFAULT_IDLE_TIMEOUT,
    DEFAULT_REQUEST_TIMEOUT,
    IngressListener,
    Leg,
    Outbound,
    Route,
    VirtualHost,
)

_HTTP = "http"
_WHOLE = 100.0


@dataclass(frozen=True, slots=True)
class HostSources:
    """All that the outbound of a host is compiled from. `services` are those that are known, by name."""

    rules: HostRules
    services: Mapping[str, Outbound]
    retries: RetrySettings


def compile_bindings(
    bindings: Bindings,
    services: Mapping[str, Outbound],
    unheard: frozenset[str],
    retries: RetrySettings,
    before: Mapping[str, Outbound],
    edge: EdgeTls = NO_TLS,
) -> tuple[dict[str, Outbound], tuple[IngressListener, ...], tuple[Problem, ...]]:
    """Return the outbounds of hosts by their keys, the listeners (their address is ""), and the problems met.

    `services` are compiled as upstreams. Of those that are `unheard` nothing is known yet: a rule that leads to one
    does what a rule of the same match did `before`, or answers 503.
    """
    hosts: dict[str, Outbound] = {}
    listeners: list[IngressListener] = []
    problems = list(bindings.problems)
    for port in bindings.ports:
        if port.protocol == _HTTP:
            virtual_hosts = [VirtualHost(_key(rules, port), (rules.host,)) for rules in port.hosts]
            for rules in port.hosts:
                key = _key(rules, port)
                sources = HostSources(rules, _of(rules, services), retries)
                hosts[key] = outbound = _outbound(sources, unheard, before.get(key))
                problems += [Problem(f"host {key}", text, LEFT_OUT) for text in outbound.left_out]
            problems += _strangers(port, services)
        else:
            virtual_hosts = _of_tcp(port, services, problems)
        tls, closed = _tls(port, edge)
        problems += closed
        if virtual_hosts and not closed:
            listeners.append(IngressListener("", port.port, port.protocol, tuple(virtual_hosts), tls))
    return hosts, tuple(listeners), tuple(problems)


def _key(rules: HostRules, port: BoundPort) -> str:
    """Return the key into the table's outbounds; no service has a name like that."""
    return f"{rules.host} on {port.port}"


def _strangers(port: BoundPort, services: Mapping[str, Outbound]) -> Iterable[Problem]:
    for name in sorted(port.services() & services.keys()):
        if services[name].protocol != _HTTP:
            message = f"{name} speaks {services[name].protocol}, its http-route http"
            effect = f"its share is answered 503; Protocol of service-defaults {name} says what it speaks"
            yield Problem(f"api-gateway port {port.port}", message, effect)


def _tls(port: BoundPort, edge: EdgeTls) -> tuple[ListenerTls | None, list[Problem]]:
    """Return how a port speaks TLS, None for plaintext, and why it stays closed.

    A `TLS` without certificates asks Consul's proxies for the gateway's leaf, which has no name that a caller from
    outside could ask for; here it asks for the certificates of the gateway's YAML.
    """
    asked = [listener for listener in port.listeners if listener.certificates or listener.limits != TlsLimits()]
    if not asked:
        return None, []
    named = dict.fromkeys(CertificateReference(*one) for listener in asked for one in listener.certificates)
    certificates = tuple(named) or edge.own_references()
    if not certificates:
        message = "its TLS names no certificate, and the gateway's YAML has none"
        return None, [Problem(f"listener {asked[0].name}", message, f"add one under `Certificates`; {CLOSED}")]
    tls = ListenerTls(certificates, limits=asked[0].limits, limits_by_host=_limits_by_host(asked))
    return with_words(tls, port.port, edge), []


def _limits_by_host(listeners: list[ApiListener]) -> dict[str, TlsLimits]:
    """Return the versions and ciphers of each host where listeners of one port differ; of one host the first's."""
    found = {listener.hostname: listener.limits for listener in reversed(listeners)}
    return found if len(set(found.values())) > 1 else {}


def _of(rules: HostRules, services: Mapping[str, Outbound]) -> dict[str, Outbound]:
    return {name: services[name] for name in sorted(rules.services()) if name in services}


def _of_tcp(port: BoundPort, services: Mapping[str, Outbound], problems: list[Problem]) -> list[VirtualHost]:
    outbound = services.get(port.service)
    if outbound is None:
        return []
    if outbound.protocol == _HTTP:
        where = f"api-gateway port {port.port}"
        problems.append(Problem(where, f"{port.service} speaks http, its tcp-route tcp", "the port stays closed"))
        return []
    return [VirtualHost(port.service, ("*",))]


def _outbound(sources: HostSources, unheard: frozenset[str], before: Outbound | None) -> Outbound:
    if before is not None and before.made_from == sources:
        return before
    known = _by_match(before) if before is not None and unheard else {}
    routes = tuple(
        (known.get(matched.match) if _waits(matched.rule, unheard) else None) or _route(matched, sources)
        for matched in sources.rules.rules
    )
    clusters = {id(cluster): cluster for route in routes for leg in route.legs for cluster in leg.clusters}
    levels = (level for route in routes for level in route.modifiers())
    return Outbound(
        sources.rules.host,
        _HTTP,
        routes,
        _index(sources.rules, before),
        tuple(clusters.values()),
        made_from=sources,
        left_out=complaints(levels),
    )


def _waits(rule: Rule, unheard: frozenset[str]) -> bool:
    return bool(unheard) and not rule.refused and any(service.name in unheard for service in rule.services)


def _by_match(outbound: Outbound) -> dict[RouteMatch | None, Route]:
    """Return the routes of an outbound by their matches, of equal ones the first."""
    return {route.match: route for route in reversed(outbound.routes)}


def _index(rules: HostRules, before: Outbound | None) -> RouteIndex:
    """Return the index of a host's rules, that of before while they are the same: endpoints change more often."""
    made_from = before.made_from if before is not None else None
    if before is not None and before.index and isinstance(made_from, HostSources) and made_from.rules == rules:
        return before.index
    return RouteIndex([matched.match for matched in rules.rules])


def _route(matched: MatchedRule, sources: HostSources) -> Route:
    rule = matched.rule
    alone = rule.services[0] if len(rule.services) == 1 else None
    below = [_below(service, sources) for service in rule.services]
    route = Route(
        match=matched.match,
        legs=(),
        prefix_rewrite=rule.prefix_rewrite,
        request_timeout=_request_timeout(rule, below),
        idle_timeout=limit(rule.idle_timeout, DEFAULT_IDLE_TIMEOUT),
        retry=sources.retries.of(rule.retry),
        request_headers=rule.request_headers,
        response_headers=rule.response_headers,
        refused=rule.refused,
    )
    if alone is not None:
        return replace(
            route,
            legs=below[0].legs if below[0] is not None else (),
            prefix_rewrite=alone.prefix_rewrite or rule.prefix_rewrite,
            request_headers=merged(rule.request_headers, alone.request_headers),
            response_headers=merged(rule.response_headers, alone.response_headers),
        )
    whole = sum(service.weight for service in rule.services)
    shares = zip(rule.services, below, strict=True)
    return replace(route, legs=tuple(leg for service, one in shares for leg in _legs(service, whole, one)))


def _below(service: RoutedService, sources: HostSources) -> Route | None:
    """Return what stands below a service's router; None where nothing can take a request."""
    outbound = sources.services.get(service.name)
    return outbound.routes[-1] if outbound is not None and outbound.protocol == _HTTP else None


def _legs(service: RoutedService, whole: int, below: Route | None) -> Iterable[Leg]:
    """Yield the arms of a service among several. One that nobody serves keeps its share."""
    for leg in below.legs if below is not None else (Leg(_WHOLE, ()),):
        yield Leg(
            weight=service.weight / whole * leg.weight,
            clusters=leg.clusters,
            request_headers=merged(service.request_headers, leg.request_headers),
            response_headers=merged(leg.response_headers, service.response_headers),
            prefix_rewrite=service.prefix_rewrite,
        )


def _request_timeout(rule: Rule, below: Iterable[Route | None]) -> float | None:
    """Return the rule's own limit, else the longest of the services, else Envoy's default."""
    if rule.request_timeout:
        return limit(rule.request_timeout, DEFAULT_REQUEST_TIMEOUT)
    limits = [route.request_timeout for route in below if route is not None]
    return None if None in limits else max((one for one in limits if one is not None), default=DEFAULT_REQUEST_TIMEOUT)
