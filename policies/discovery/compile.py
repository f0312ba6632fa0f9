"""The compiler of discovery chains: router, splitters and resolvers of a service become one graph with its targets.

    router ─▶ splitter ─▶ resolver ─▶ target        each step is skipped where there is no entry

A route or a leg with a subset goes straight to a resolver. A resolver first follows its redirect, then its default
subset; each failover alternative is resolved in the same way, but its own failover is not asked. Every service in the
chain must speak one protocol, and only http-like ones may be routed and split.
Source: section 3 of the project's notes on Consul; every rule is compared with a Consul 1.21 by differential tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.discovery.chain_set import ChainSet, Entry, Source, read_chain_set
from policies.discovery.fingerprint import customization_hash
from policies.discovery.splitting import flatten_splitters
from policies.discovery.targets import DEFAULT, Place, Target, place_of
from policies.discovery.walks import reachable, refuse_circles, shown_node
from policies.durations import format_duration, parse_nanoseconds
from policies.entries.check_common import HTTP_LIKE
from policies.entries.check_defaults import proxy_protocol
from policies.entries.gotext import quote
from policies.errors import ChainError
from policies.weak import items, mapping

Node = dict[str, Any]

_CONNECT_TIMEOUT = 5_000_000_000
_HASHED = frozenset({"ring_hash", "maglev"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a chain is compiled for. Overrides are zero values where nothing is overridden; nanoseconds."""

    service: str
    datacenter: str
    trust_domain: str
    protocol: str = ""
    connect_timeout: int = 0
    mesh_gateway: str = ""


def compile_request(source: Source, request: Request) -> dict[str, Any]:
    """Return the chain as `GET /v1/discovery-chain` has it, without virtual IPs. Raise ChainError."""
    if not request.service:
        raise ChainError("serviceName is required")
    return _Compiler(read_chain_set(source, request.service), request).chain()


class _Compiler:
    """Single use: one chain from the entries that it may look at."""

    def __init__(self, entries: ChainSet, request: Request) -> None:
        self._entries = entries
        self._request = request
        self._plain = bool(request.protocol) and request.protocol not in HTTP_LIKE
        self._protocol = ""
        self._advanced = False
        self._nodes: dict[str, Node] = {}
        self._targets: dict[str, Target] = {}
        self._retained: set[str] = set()
        self._customized: set[str] = set()

    def chain(self) -> dict[str, Any]:
        start = self._start()
        refuse_circles(self._nodes, start)
        flatten_splitters(self._nodes)
        used = reachable(self._nodes, start)
        if self._advanced and self._protocol not in HTTP_LIKE:
            raise ChainError(
                f"discovery chain {quote(self._request.service)} uses a protocol {quote(self._protocol)} "
                "that does not permit advanced routing or splitting behavior"
            )
        if self._request.protocol and self._request.protocol != self._protocol:
            self._protocol = self._request.protocol
            self._customized.add("protocol")
        nodes = {name: shown_node(node) for name, node in self._nodes.items() if name in used}
        targets = {id_: target.shown() for id_, target in self._targets.items() if id_ in self._retained}
        shown = {
            "ServiceName": self._request.service,
            "Namespace": DEFAULT,
            "Partition": DEFAULT,
            "Datacenter": self._request.datacenter,
            "CustomizationHash": self._customization(),
            "Default": self._is_default(self._nodes[start]),
            "Protocol": self._protocol,
            "ServiceMeta": self._own_defaults().get("Meta"),
            "EnvoyExtensions": self._extensions(),
            "StartNode": start,
            "Nodes": dict(sorted(nodes.items())),
            "Targets": dict(sorted(targets.items())),
        }
        return {key: value for key, value in shown.items() if value}

    # --- what is said of the whole chain ------------------------------------------------------------------------------

    def _own_defaults(self) -> Entry:
        return mapping(self._entries.defaults.get(self._request.service))

    def _extensions(self) -> list[Any]:
        both = (mapping(self._entries.proxy_defaults), self._own_defaults())
        return [extension for entry in both for extension in items(entry.get("EnvoyExtensions"))]

    def _customization(self) -> str:
        if not self._customized:
            return ""
        return customization_hash(
            self._request.mesh_gateway if "mesh gateway" in self._customized else "",
            self._request.protocol if "protocol" in self._customized else "",
            self._request.connect_timeout if "connect timeout" in self._customized else 0,
        )

    def _is_default(self, start: Node) -> bool:
        if start["Type"] != "resolver" or not start["Resolver"].get("Default"):
            return False
        place = self._targets[start["Resolver"]["Target"]].place
        return (place.service, place.namespace, place.partition) == (self._request.service, DEFAULT, DEFAULT)

    def _agree_on_protocol(self, service: str) -> None:
        """Take the protocol of a service as the chain's, or refuse it beside another."""
        defaults = self._entries.defaults.get(service)
        if defaults is not None:
            protocol = str(defaults.get("Protocol") or "")
        else:
            protocol = proxy_protocol(mapping(self._entries.proxy_defaults).get("Config"))
        protocol = protocol.lower() or "tcp"
        self._protocol = self._protocol or protocol
        if protocol != self._protocol:
            raise ChainError(
                f"discovery chain {quote(self._request.service)} uses inconsistent protocols; service "
                f"{quote(service)} has {quote(protocol)} which is not {quote(self._protocol)}"
            )

    # --- router -------------------------------------------------------------------------------------------------------

    def _start(self) -> str:
        router = self._entries.router
        if router is not None and self._plain:
            router = None
            self._customized.add("protocol")
        if router is None:
            return self._splitter_or_resolver(Place(self._request.service))
        name = str(router["Name"])
        self._advanced = True
        self._agree_on_protocol(name)
        routes = [self._route(mapping(route)) for route in items(router.get("Routes"))]
        last = {
            "Match": {"HTTP": {"PathPrefix": "/"}},
            "Destination": {"Service": name, "Namespace": DEFAULT, "Partition": DEFAULT},
        }
        routes.append({"Definition": last, "NextNode": self._splitter_or_resolver(Place(name))})
        return self._record({"Type": "router", "Name": f"{name}.{DEFAULT}.{DEFAULT}", "Routes": routes})

    def _route(self, route: Mapping[str, Any]) -> Node:
        place = place_of(mapping(route.get("Destination")), self._request.service)
        next_node = self._resolver_key(place) if place.subset else self._splitter_or_resolver(place)
        return {"Definition": route, "NextNode": next_node}

    def _record(self, node: Node) -> str:
        key = f"{node['Type']}:{node['Name']}"
        self._nodes[key] = node
        return key

    # --- splitters ----------------------------------------------------------------------------------------------------

    def _splitter_or_resolver(self, place: Place) -> str:
        target = self._target(place)
        return self._splitter(target.place.service) or self._resolver_key(place)

    def _splitter(self, service: str) -> str:
        """Return the key of a service's splitter, "" if there is none."""
        key = f"splitter:{service}.{DEFAULT}.{DEFAULT}"
        if key in self._nodes:
            return key
        splitter = self._entries.splitters.get(service)
        if splitter is not None and self._plain:
            splitter = None
            self._customized.add("protocol")
        if splitter is None:
            return ""
        node: Node = {"Type": "splitter", "Name": f"{service}.{DEFAULT}.{DEFAULT}", "Splits": []}
        self._record(node)  # before its legs: a circle ends here
        for split in items(splitter.get("Splits")):
            node["Splits"].append(self._leg(node, service, split))
        self._advanced = True
        return key

    def _leg(self, node: Node, service: str, split: Mapping[str, Any]) -> Node:
        leg = {"Definition": split, "Weight": split["Weight"], "NextNode": ""}
        to, subset = str(split.get("Service") or service), str(split.get("ServiceSubset") or "")
        if to != service and not subset:
            leg["NextNode"] = self._splitter(to)
        if not leg["NextNode"]:
            resolver = self._resolver(self._target(Place(to, subset)), for_failover=False)
            leg["NextNode"] = f"resolver:{resolver['Name']}"
            balancer = resolver.get("LoadBalancer")
            if "LoadBalancer" not in node and mapping(balancer).get("Policy") in _HASHED:
                node["LoadBalancer"] = balancer
        return leg

    # --- resolvers ----------------------------------------------------------------------------------------------------

    def _target(self, place: Place) -> Target:
        """Return the one target of a place."""
        settled = place.settled(self._request.datacenter)
        if settled.id not in self._targets:
            name = settled.sni(self._request.trust_domain)
            self._targets[settled.id] = Target(settled, sni=name, name=name, subset={})
        return self._targets[settled.id]

    def _resolver_key(self, place: Place) -> str:
        return f"resolver:{self._resolver(self._target(place), for_failover=False)['Name']}"

    def _resolver(self, target: Target, *, for_failover: bool) -> Node:
        """Return the resolver node of a target, after redirects and default subset.

        `for_failover`: the node is only looked at for its target, neither kept nor asked for its own failover.
        """
        history: list[str] = []
        while True:
            known = self._nodes.get(f"resolver:{target.place.id}")
            if known is not None:
                return known
            if not target.place.peer:
                self._agree_on_protocol(target.place.service)
            if target.place.id in history:
                circle = " -> ".join([*history, target.place.id])
                raise ChainError(f"detected circular resolver redirect: [{circle}]")
            history.append(target.place.id)
            entry = mapping(self._entries.resolvers.get(target.place.service))
            further = self._redirected(target, entry)
            if further is target:
                break
            target = further
        self._settle(target, entry)
        node = self._resolver_node(target, entry)
        if not for_failover:
            self._record(node)
            self._add_failover(node, target, entry)
        return node

    def _redirected(self, target: Target, entry: Entry) -> Target:
        """Return the target that a resolver leads on to, or the same one."""
        if entry.get("Redirect") is not None:
            redirected = self._target(target.place.rewritten(place_of(entry["Redirect"])))
            if redirected is not target:
                return redirected
        if not target.place.subset and entry.get("DefaultSubset"):
            return self._target(target.place.rewritten(Place("", str(entry["DefaultSubset"]))))
        return target

    def _settle(self, target: Target, entry: Entry) -> None:
        """Put on the target what its resolver, its service and the proxies' defaults say."""
        place = target.place
        subsets = mapping(entry.get("Subsets"))
        if place.subset and place.subset not in subsets:
            raise ChainError(f"service {quote(place.service)} does not have a subset named {quote(place.subset)}")
        target.connect_timeout = self._connect_timeout(entry)
        target.subset = mapping(subsets.get(place.subset))
        if place.partition == DEFAULT and not place.peer:
            proxies = mapping(self._entries.proxy_defaults)
            target.locality = entry.get("PrioritizeByLocality") or proxies.get("PrioritizeByLocality")
            if entry.get("PrioritizeByLocality") is not None:
                target.locality = entry["PrioritizeByLocality"]
        defaults = mapping(self._entries.defaults.get(place.service))
        if defaults.get("ExternalSNI"):
            target.sni, target.external = str(defaults["ExternalSNI"]), True
        if target.external:
            _refuse_for_external(place.service, entry)
            target.mesh_gateway = ""
        else:
            self._settle_gateway(target, defaults)
        self._retained.add(place.id)

    def _connect_timeout(self, entry: Entry) -> int:
        given = entry.get("ConnectTimeout")
        timeout = parse_nanoseconds(str(given)) if given else _CONNECT_TIMEOUT
        override = self._request.connect_timeout
        if override > 0 and override != timeout:
            self._customized.add("connect timeout")
            return override
        return timeout

    def _settle_gateway(self, target: Target, defaults: Entry) -> None:
        proxies = mapping(self._entries.proxy_defaults)
        if defaults:
            target.mesh_gateway = str(mapping(defaults.get("MeshGateway")).get("Mode") or "")
            target.dialed_directly = bool(mapping(defaults.get("TransparentProxy")).get("DialedDirectly"))
        target.mesh_gateway = target.mesh_gateway or str(mapping(proxies.get("MeshGateway")).get("Mode") or "")
        if mapping(proxies.get("TransparentProxy")).get("DialedDirectly"):
            target.dialed_directly = True
        override = self._request.mesh_gateway
        if override and target.mesh_gateway != override:
            target.mesh_gateway = override
            self._customized.add("mesh gateway")

    def _resolver_node(self, target: Target, entry: Entry) -> Node:
        said = ("DefaultSubset", "Subsets", "Failover", "ConnectTimeout", "RequestTimeout")
        options = ("Redirect", "LoadBalancer", "PrioritizeByLocality")
        default = not any(entry.get(field) for field in said) and all(entry.get(field) is None for field in options)
        request_timeout = entry.get("RequestTimeout")
        resolver = {
            "ConnectTimeout": format_duration(target.connect_timeout),
            "Default": default,
            "RequestTimeout": parse_nanoseconds(str(request_timeout)) if request_timeout else 0,
            "Target": target.place.id,
        }
        node: Node = {
            "Type": "resolver",
            "Name": target.place.id,
            "Resolver": {key: value for key, value in resolver.items() if value},
        }
        if entry.get("LoadBalancer") is not None:
            node["LoadBalancer"] = entry["LoadBalancer"]
        return node

    def _add_failover(self, node: Node, target: Target, entry: Entry) -> None:
        sections = mapping(entry.get("Failover"))
        section = sections.get(target.place.subset, sections.get("*"))
        if section is None:
            return
        places = [target.place.rewritten(by) for by in _alternatives(section)]
        targets = [other for other in map(self._target, places) if other is not target]
        if not targets:
            return
        failover: dict[str, Any] = {}
        node["Resolver"]["Failover"] = failover
        policy = section.get("Policy") or mapping(self._entries.proxy_defaults).get("FailoverPolicy")
        if section.get("Policy") is not None:
            policy = section["Policy"]
        failover["Targets"] = [self._resolver(other, for_failover=True)["Resolver"]["Target"] for other in targets]
        if policy is not None:
            failover["Policy"] = policy


def _alternatives(section: Mapping[str, Any]) -> list[Place]:
    """Return the places that a failover section names, in order."""
    if section.get("Datacenters"):
        return [place_of({**section, "Datacenter": datacenter}) for datacenter in section["Datacenters"]]
    return [place_of(target) for target in items(section.get("Targets"))] or [place_of(section)]


def _refuse_for_external(service: str, entry: Entry) -> None:
    for held, spoken in (
        (entry.get("Redirect") is not None, "redirects"),
        (entry.get("Subsets"), "subsets"),
        (entry.get("Failover"), "failover"),
    ):
        if held:
            raise ChainError(
                f"service {quote(service)} has an external SNI set; cannot define {spoken} for external services"
            )
