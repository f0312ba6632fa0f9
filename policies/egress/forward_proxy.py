"""The egress policy: which hosts outside may be asked for through the gateway as a forward proxy, and by whom.

A host is open only as far as it belongs to a linked service: a host and port of one of its instances, or the link's
SNI with the port of one. An IP is the host of nobody whose instance is a name that stands for it. Whoever asks is
judged by the intentions of that service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from policies.balance import Endpoint, build
from policies.egress.host_names import dialled, is_name
from policies.errors import Problem
from policies.instances import Instance
from policies.intentions import Action, Decision, Rules
from policies.matching import Headers
from policies.paths import PathNormalization
from policies.table import Cluster, Egress, FilterChain, ForwardedHost, HostPort

CONNECT = "CONNECT"
HTTP_PORT = 80
_MAX_PORT = 65535
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*)(?:\.[a-z0-9_][a-z0-9_-]*)*")


def parse_authority(text: str, default_port: int | None = None) -> HostPort | None:
    """Return the `host:port` of a request, or None when it is none: no user, no zone, no escapes, no odd numbers.

    Names are equal in any case and with a dot at their end. Without `default_port` the port must be there.
    """
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, ""
    if not port and default_port is None:
        return None
    if port and (not _PORT.fullmatch(port) or int(port) > _MAX_PORT):
        return None
    name = normal_host(host)
    return HostPort(name, int(port or default_port or 0)) if name else None


def normal_host(host: str) -> str:
    """Return a host as it is compared: lower case, no dot at its end, IPv6 in brackets; "" for what is none."""
    try:
        if host.startswith("[") and host.endswith("]"):
            return f"[{IPv6Address(host[1:-1])}]" if "%" not in host else ""
        name = host.lower().removesuffix(".")
        if _NAME.fullmatch(name):
            return str(IPv4Address(name)) if re.fullmatch(r"[0-9.]+", name) else name
    except AddressValueError:
        return ""
    return ""


def _host_of(address: str) -> str:
    """Return the host by which an instance's address is asked for."""
    return normal_host(address if is_name(address) or ":" not in address else f"[{address}]")


def forwarded_hosts(
    cluster: Cluster, instances: Iterable[Instance], endpoints: Iterable[Endpoint], sni: str
) -> tuple[ForwardedHost, ...]:
    """Return the hosts of a linked service. `cluster` is its own; `instances` are all, `endpoints` the healthy ones.

    Each has its own endpoints: a caller that asks for one of two names is not sent to the other.
    """
    healthy: dict[HostPort, list[Endpoint]] = {}
    for instance in instances:
        if 0 < instance.port <= _MAX_PORT and (host := _host_of(instance.address)):
            healthy.setdefault(HostPort(host, instance.port), [])
    for endpoint in endpoints:
        known = healthy.get(HostPort(_host_of(endpoint.address), endpoint.port))
        if known is not None:
            known.append(replace(endpoint, host=endpoint.address) if is_name(endpoint.address) else endpoint)
    hosts = {key: _forwarded(cluster, key, tuple(found)) for key, found in healthy.items()}
    if name := normal_host(sni):
        for port in sorted({key.port for key in healthy}):
            key = HostPort(name, port)
            here = tuple(one for found in healthy.values() for one in found if one.port == port)
            hosts.setdefault(key, _forwarded(cluster, key, dialled(here, strict=cluster.strict_dns)))
    return tuple(hosts[key] for key in sorted(hosts))


def _forwarded(cluster: Cluster, key: HostPort, endpoints: tuple[Endpoint, ...]) -> ForwardedHost:
    own = replace(
        cluster,
        target=f"{cluster.target}/{key}",
        endpoints=endpoints,
        chooser=build(endpoints, cluster.balancer) if endpoints else None,
    )
    return ForwardedHost(key, own, replace(own, target=f"{own.target}/connect", origination=None, raw=True))


def by_host(chains: Iterable[FilterChain]) -> Mapping[HostPort, tuple[str, ForwardedHost]]:
    """Return whose a host is, by the SNI of the filter chain; of two services the first by name."""
    hosts: dict[HostPort, tuple[str, ForwardedHost]] = {}
    for chain in sorted(chains, key=lambda chain: chain.sni):
        for one in chain.hosts:
            hosts.setdefault(one.host, (chain.sni, one))
    return hosts


def contested(chains: Iterable[FilterChain]) -> Iterator[Problem]:
    """Yield the hosts that two services have."""
    owners: dict[HostPort, str] = {}
    for chain in sorted(chains, key=lambda chain: chain.sni):
        for one in chain.hosts:
            owner = owners.setdefault(one.host, chain.service)
            if owner != chain.service:
                message = f"{one.host} is of {owner} too"
                yield Problem(f"service {chain.service} outside", message, f"who asks for it is judged as for {owner}")


class ForwardPolicy:
    """What one source may ask for. Every request is judged by itself: each may be for another host."""

    __slots__ = ("_egress", "_source", "connection")

    constant: Decision | None = None
    denies_all = False

    def __init__(self, source: str, egress: Egress) -> None:
        self._source = source
        self._egress = egress
        self.connection = Decision(True, "a forward proxy judges request by request")

    def request(self, method: str, path: str, headers: Headers) -> Decision:
        """Return the answer to a request whose Host is what it asks for. `path` is normalised; of CONNECT any."""
        asked = next(iter(headers.get_all("host")), "")
        host = parse_authority(asked, None if method == CONNECT else HTTP_PORT)
        found = self._egress.hosts.get(host) if host is not None else None
        if found is None:
            return Decision(False, f"{host or asked} is of no linked service")
        chain = self._egress.chains[found[0]]
        policy = chain.intentions.for_source(self._source, chain.default)
        if chain.protocol != "http" and not policy.connection.allowed:
            return policy.connection
        if policy.constant is not None:
            return policy.constant
        if method == CONNECT:  # what an intention that names requests denies could be said in there
            return Decision(False, f"{policy.connection.because}, and a tunnel hides its requests")
        return policy.request(method, path, headers)


@dataclass(frozen=True, slots=True)
class ForwardRules:
    """The intentions of all linked services, as a forward proxy asks them."""

    egress: Egress

    def for_source(self, source: str, default: Action) -> ForwardPolicy:
        """Return what holds for a service of the mesh; each linked service has its own default."""
        del default
        return ForwardPolicy(source, self.egress)


@dataclass(frozen=True, slots=True)
class ForwardGuard:
    """Who may come in to the forward proxy: everybody of the mesh, and then each request is judged."""

    intentions: Rules
    service: str = "the gateway"
    protocol: str = "http"
    default: Action = Action.DENY
    normalization: PathNormalization = field(default_factory=PathNormalization)
    sanitize_xfcc: bool = True

    @classmethod
    def of(cls, egress: Egress) -> ForwardGuard:
        """Return the guard of a gateway's own name."""
        return cls(ForwardRules(egress))
