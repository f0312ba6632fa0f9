"""The catalog: nodes, services and checks as rows, and every view of them. Compares before it writes.

Source: Consul's HTTP API, "Catalog" and "Health". Rows are kept in the shape of `GET /v1/health/service/:service`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from lictor.dev.consul.service_rows import check_row, service_row
from lictor.dev.consul.state import DATACENTER, Json, State, Topic

NODE, ADDRESS, VERSION = "n1", "127.0.0.1", "1.21.0"
CHAIN_KINDS = ("service-router", "service-splitter", "service-resolver", "service-defaults")
ADDRESSED_KINDS = (*CHAIN_KINDS, "service-intentions")
_INDEXES = ("CreateIndex", "ModifyIndex")
_OF_GATEWAY = "consul-virtual:"  # and the name of a service behind it


class Catalog:
    """Rows of every node, this agent's and those that were registered from outside."""

    def __init__(self, state: State) -> None:
        self._state = state
        if not state.tables.nodes:
            self.begin()

    def begin(self) -> None:
        """Register the server itself, as a fresh Consul does."""
        state = self._state
        index = state.touch(("nodes",))
        tagged = {"lan": ADDRESS, "lan_ipv4": ADDRESS, "wan": ADDRESS, "wan_ipv4": ADDRESS}
        state.tables.nodes[NODE] = {
            "ID": str(uuid.uuid4()),
            "Node": NODE,
            "Address": ADDRESS,
            "Datacenter": DATACENTER,
            "TaggedAddresses": tagged,
            "Meta": {"consul-network-segment": "", "consul-version": VERSION},
            "CreateIndex": index,
            "ModifyIndex": index,
        }
        serf = {"Name": "Serf Health Status", "Status": "passing", "Output": "Agent alive and reachable"}
        self.put_check(NODE, check_row(NODE, "serfHealth", **serf))
        meta = {"version": VERSION, "non_voter": "false", "read_replica": "false", "raft_version": "3"}
        self.put_service(NODE, service_row({"ID": "consul", "Service": "consul", "Meta": meta, "Port": 8300}))

    # --- writes ---

    def put_node(self, given: Mapping[str, Any]) -> None:
        """Register a node, or what is new about it."""
        tables, name = self._state.tables, str(given["Node"])
        held = tables.nodes.get(name.lower())
        row = {
            "ID": str(given.get("ID") or (held or {}).get("ID") or ""),
            "Node": name,
            "Address": str(given.get("Address") or ""),
            "Datacenter": DATACENTER,
            "TaggedAddresses": given.get("TaggedAddresses"),
            "Meta": given.get("NodeMeta"),
        }
        if held is not None and _same(held, row):
            return
        names = [self._service_topics(service) for _, service in tables.services.of("node", name.lower())]
        index = self._state.touch(("nodes",), ("node", name.lower()), *(topic for topics in names for topic in topics))
        tables.nodes[name.lower()] = _indexed(row, held, index)

    def put_service(self, node: str, row: Json) -> bool:
        """Register a service row; an equal one changes nothing. Return whether something changed."""
        return self._put_service(node, self._with_virtual_addresses(row))

    def _put_service(self, node: str, row: Json) -> bool:
        tables, key = self._state.tables, (node.lower(), row["ID"])
        held = tables.services.get(key)
        if held is not None and _same(held, row, ("Locality",)):
            return False
        topics = [*self._service_topics(row), *(self._service_topics(held) if held else ())]
        named = held is None or held["Service"] != row["Service"] or held["Tags"] != row["Tags"]
        if named or held is None or held.get("Port") != row.get("Port"):
            topics.append(("services",))
        if named or held is None or held.get("Kind") != row.get("Kind"):
            topics += self._gateway_topics(row)
        index = self._state.touch(*dict.fromkeys((*topics, ("node", node.lower()))))
        tables.services[key] = _indexed(row, held, index)
        return True

    def put_check(self, node: str, row: Json) -> bool:
        """Register a check row. Return whether something changed."""
        tables, key = self._state.tables, (node.lower(), row["CheckID"])
        held = tables.checks.get(key)
        service = tables.services.get((node.lower(), row["ServiceID"])) if row["ServiceID"] else None
        if service is not None:  # whatever the one who registers it knows of its service
            row = {**row, "ServiceName": service["Service"], "ServiceTags": service["Tags"]}
        if held is not None and _same(held, row, ("Type", "Interval", "Timeout")):
            return False
        index = self._state.touch(*self._check_topics(node, row))
        tables.checks[key] = _indexed(row, held, index)
        return True

    def type_of_check(self, node: str, check_id: str) -> str:
        """Return the type of a check as it was last written, or ""."""
        return str(self._state.tables.checks.get((node.lower(), check_id), {}).get("Type", ""))

    def drop_service(self, node: str, service_id: str) -> None:
        """Forget a service and its checks."""
        tables = self._state.tables
        row = tables.services.get((node.lower(), service_id))
        for key, _ in tables.checks.of("service", node.lower(), service_id):
            del tables.checks[key]
        if row is not None:
            topics, linked = self._service_topics(row), self._is_linked(row["Service"])
            del tables.services[node.lower(), service_id]
            if not linked:
                self.release_virtual_ip(row["Service"])
            topics += [*self._gateway_topics(row), ("checks",), ("checks", row["Service"].lower())]
            topics += [("node", node.lower()), ("node checks", node.lower())]
            self._state.touch(*topics, ("services",), ("extinct",))

    def drop_check(self, node: str, check_id: str) -> None:
        """Forget a check."""
        row = self._state.tables.checks.pop((node.lower(), check_id), None)
        if row is not None:
            self._state.touch(*self._check_topics(node, row))

    def drop_node(self, node: str) -> None:
        """Forget a node with everything on it."""
        tables = self._state.tables
        for (name, service_id), _ in tables.services.of("node", node.lower()):
            self.drop_service(name, service_id)
        for key, _ in tables.checks.of("node", node.lower()):
            del tables.checks[key]
        if tables.nodes.pop(node.lower(), None) is not None:
            self._state.touch(("nodes",), ("node", node.lower()), ("checks",), ("node checks", node.lower()))

    def _check_topics(self, node: str, row: Mapping[str, Any]) -> Iterable[Topic]:
        services = self._state.tables.services
        topics: list[Topic] = [("checks",), ("checks", str(row["ServiceName"]).lower()), ("node checks", node.lower())]
        if row["ServiceID"]:
            own = services.get((node.lower(), row["ServiceID"]))
            concerned = [own] if own is not None else []
        else:
            concerned = [service for _, service in services.of("node", node.lower())]
        for service in concerned:
            topics += self._service_topics(service)
        return dict.fromkeys(topics)

    def _service_topics(self, row: Mapping[str, Any]) -> list[Topic]:
        topics: list[Topic] = [("service", row["Service"].lower())]
        topics += [("connect", name.lower()) for name in self._served(row)]
        return topics

    def _gateway_topics(self, row: Mapping[str, Any]) -> list[Topic]:
        """Return what concerns the gateways when a row comes or goes: those that name it, and those that take all."""
        names = {row["Service"].lower(), *(name.lower() for name in self._served(row))}
        topics: list[Topic] = [("gateways",), *(("gateways", name) for name in sorted(names))]
        if not row.get("Kind") and self._state.tables.services.any_of("kind", "terminating-gateway"):
            linked = (self._linked(gateway["Name"]) for gateway in self._terminating())
            topics += [("connect", name.lower()) for some in linked for name in some if name == row["Service"]]
        return topics

    def _terminating(self) -> Iterable[Mapping[str, Any]]:
        return self._state.tables.entries.of_kind("terminating-gateway")

    def _served(self, row: Mapping[str, Any]) -> list[str]:
        """Return the names that callers in the mesh reach by this row."""
        kind = row.get("Kind")
        if kind == "connect-proxy":
            return [row["Proxy"].get("DestinationServiceName", "")]
        if row["Connect"].get("Native"):
            return [row["Service"]]
        if kind == "terminating-gateway":
            return self._linked(row["Service"])
        return []

    def _linked(self, gateway: str) -> list[str]:
        from lictor.dev.consul.gateways import gateway_services  # noqa: PLC0415 - gateways look at the catalog

        return [link["Service"]["Name"] for link in gateway_services(self._state, gateway)]

    # --- virtual addresses ---

    def virtual_ip(self, service: str) -> str:
        """Return the address that stands for a service, given at its first need."""
        return self._state.tables.virtual_ips.of(service)

    def release_virtual_ip(self, service: str, *, of_gateway: bool = False) -> None:
        """Give an address back when no entry, no gateway and no instance of that name needs it any more.

        As in Consul a proxy alone does not hold it, but when a gateway has ceased to link the service (`of_gateway`).
        """
        services, name = self._state.tables.services, service.lower()
        needed = self._has_entry(service) or services.any_of("name", name) or self._is_linked(service)
        if not needed and not (of_gateway and services.any_of("to", name)):
            self._state.tables.virtual_ips.release(service)

    def _has_entry(self, service: str) -> bool:
        entries = self._state.tables.entries
        return any(entries.get(kind, service) is not None for kind in ADDRESSED_KINDS)

    def _is_linked(self, service: str) -> bool:
        """Return whether a terminating gateway leads to a service, by name or by its wildcard."""
        services, name = self._state.tables.services, service.lower()
        linked = {
            str(link["Name"]).lower()
            for entry in self._state.tables.entries.of_kind("terminating-gateway")
            for link in entry.get("Services") or ()
        }
        return name in linked or ("*" in linked and services.any_of("outside", service))

    def _with_virtual_addresses(self, row: Json) -> Json:
        port = row.get("Port", 0)
        added: Json = {}
        if row.get("Kind") == "connect-proxy":
            address = self.virtual_ip(row["Proxy"].get("DestinationServiceName", ""))
            added["consul-virtual"] = {"Address": address, "Port": port}
        elif row["Connect"].get("Native"):
            added["consul-virtual"] = {"Address": self.virtual_ip(row["Service"]), "Port": port}
        elif row.get("Kind") == "terminating-gateway":
            return self._with_linked_addresses(row)
        given = row.get("TaggedAddresses") or {}
        return {**row, "TaggedAddresses": {**given, **added}} if added else row

    def _with_linked_addresses(self, row: Json) -> Json:
        """Return the row of a gateway with the addresses of the services behind it."""
        entry = self._state.tables.entries.get("terminating-gateway", row["Service"]) or {}
        names = [str(service["Name"]) for service in entry.get("Services") or ()]
        given = row.get("TaggedAddresses") or {}
        tagged = {name: address for name, address in given.items() if not name.startswith(_OF_GATEWAY)}
        tagged |= {f"{_OF_GATEWAY}{name}": {"Address": self.virtual_ip(name), "Port": 0} for name in names}
        return {**row, "TaggedAddresses": tagged} if tagged or given else row

    def relink(self, gateway: str, before: Iterable[str]) -> None:
        """Give the services of a terminating gateway their virtual addresses; those of `before` may lose theirs."""
        entry = self._state.tables.entries.get("terminating-gateway", gateway)
        if entry is None:
            return
        names = [str(link["Name"]) for link in entry.get("Services") or ()]
        for name in names:
            self.virtual_ip(name)
        for name in before:
            if name not in names:
                self.release_virtual_ip(name, of_gateway=True)
        for node, row in self.named(gateway):
            self._put_service(node, {**self._with_linked_addresses(row), "Meta": row["Meta"] or {}})

    # --- views ---

    def node(self, name: str) -> Json | None:
        """Return a node's row."""
        return self._state.tables.nodes.get(name.lower())

    def nodes(self) -> list[Json]:
        """Return every node by name."""
        return [row for _, row in sorted(self._state.tables.nodes.items())]

    def services_of(self, node: str) -> list[Json]:
        """Return the services of a node by ID."""
        return [row for _, row in self._state.tables.services.of("node", node.lower())]

    def named(self, service: str) -> list[tuple[str, Json]]:
        """Return the instances with this name: node and row, by node and ID."""
        return [(node, row) for (node, _), row in self._state.tables.services.of("name", service.lower())]

    def in_mesh(self, service: str) -> list[tuple[str, Json]]:
        """Return the rows by which callers in the mesh reach a service: proxies, native ones, terminating gateways."""
        tables, wanted = self._state.tables, service.lower()
        direct = [(node, row) for (node, _), row in tables.services.of("to", wanted)]
        gateways = [entry["Name"] for entry in tables.entries.of_kind("terminating-gateway")]
        serving = [name for name in gateways if wanted in {linked.lower() for linked in self._linked(name)}]
        return direct + [pair for name in serving for pair in self.named(name)]  # of whatever kind they are

    def health_row(self, node: str, service: Json) -> Json:
        """Return a row of a health query: the node, the service, its checks and its node's."""
        return {
            "Node": self._state.tables.nodes[node.lower()],
            "Service": service,
            "Checks": self.checks_of(node, service),
        }

    def checks_of(self, node: str, service: Mapping[str, Any]) -> list[Json]:
        """Return the node's checks and the service's own."""
        checks = self._state.tables.checks
        both = (checks.of("service", node.lower(), name) for name in ("", service["ID"]))
        return [row for rows in both for _, row in rows]

    def checks_on(self, node: str) -> list[Json]:
        """Return the checks of a node and of its services."""
        return [row for _, row in self._state.tables.checks.of("node", node.lower())]

    def checks_named(self, service: str) -> list[Json]:
        """Return the checks of a service by its name."""
        return [row for _, row in self._state.tables.checks.of("name", service.lower())]

    def checks(self) -> list[Json]:
        """Return every check by node and ID."""
        return [row for _, row in sorted(self._state.tables.checks.items(), key=lambda item: item[0])]


def _same(held: Mapping[str, Any], row: Mapping[str, Any], unseen: tuple[str, ...] = ()) -> bool:
    """Return whether two rows are equal but for indexes and `unseen` fields: those alone are no reason to write."""
    passed = {*_INDEXES, *unseen}
    return {key: value for key, value in held.items() if key not in passed} == {
        key: value for key, value in row.items() if key not in passed
    }


def _indexed(row: Json, held: Json | None, index: int) -> Json:
    return {**row, "CreateIndex": held["CreateIndex"] if held else index, "ModifyIndex": index}
