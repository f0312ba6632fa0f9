"""The agent: local registrations, sidecars made of them, maintenance.

Source: Consul's HTTP API, "Agent" (services and checks). What is registered here goes to the catalog at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lictor.dev.consul.catalog import NODE, Catalog
from lictor.dev.consul.central import merged_proxy
from lictor.dev.consul.checks import OF_NODE, Checks, worst
from lictor.dev.consul.definitions import GATEWAYS, collected, service_errors, wrong_meta
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.service_rows import addresses_of, proxy_row, service_row
from lictor.dev.consul.state import DATACENTER, Json, State

PROXIES = frozenset({"connect-proxy", *GATEWAYS})  # central config is merged into them
SIDECAR_PORTS = range(21000, 21256)
MAINTENANCE_REASON = (
    "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
)
NODE_MAINTENANCE_REASON = (
    "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
)


class Agent:
    """The services and checks of this agent."""

    def __init__(self, state: State, catalog: Catalog) -> None:
        self._state = state
        self.catalog = catalog
        self.services: dict[str, Json] = {}
        self.checks = Checks(catalog, self.services)
        self._ports: Counter[int] = Counter()  # of the services
        self._sidecars: dict[str, str] = {}  # of a service, by its ID

    # --- services ---

    def register(self, definition: Mapping[str, Any], checks: list[Json], *, replace_checks: bool) -> None:
        """Register a service with its checks, and the sidecar that it describes. Raise Refused."""
        service = self._service(definition)
        sidecar = self._sidecar_of(service, definition)
        self._add(service, checks, replace_checks=replace_checks)
        if sidecar is not None:
            own, own_checks = sidecar
            self._add(own, own_checks, replace_checks=replace_checks)
            self._sidecars[service["ID"]] = own["ID"]

    def _service(self, definition: Mapping[str, Any]) -> Json:
        service = {key: value for key, value in definition.items() if key not in {"Name", "Check", "Checks", "Token"}}
        service["Service"] = definition["Name"]
        service["ID"] = definition.get("ID") or definition["Name"]
        if (service.get("Proxy") or {}).get("Upstreams"):
            upstreams = [
                {**upstream, "DestinationType": upstream.get("DestinationType") or "service"}
                for upstream in service["Proxy"]["Upstreams"]
            ]
            service["Proxy"] = {**service["Proxy"], "Upstreams": upstreams}
        if definition.get("Address"):
            service["TaggedAddresses"] = _tagged(service)
        return service

    def _sidecar_of(self, service: Json, definition: Mapping[str, Any]) -> tuple[Json, list[Json]] | None:
        given = (definition.get("Connect") or {}).get("SidecarService")
        if given is None:
            return None
        service["Connect"] = {key: value for key, value in service["Connect"].items() if key != "SidecarService"}
        proxy = dict(given.get("Proxy") or {})
        proxy["DestinationServiceName"] = proxy.get("DestinationServiceName") or service["Service"]
        proxy["DestinationServiceID"] = proxy.get("DestinationServiceID") or service["ID"]
        if service.get("SocketPath") and not proxy.get("LocalServiceSocketPath"):
            proxy["LocalServiceSocketPath"] = service["SocketPath"]
        if not proxy.get("LocalServiceSocketPath"):
            proxy["LocalServiceAddress"] = proxy.get("LocalServiceAddress") or "127.0.0.1"
            proxy["LocalServicePort"] = proxy.get("LocalServicePort") or service.get("Port") or 0
        sidecar = {
            **self._service({"Name": service["Service"] + "-sidecar-proxy", **given, "Proxy": proxy}),
            "ID": f"{service['ID']}-sidecar-proxy",
            "Kind": given.get("Kind") or "connect-proxy",
            "Address": given.get("Address") or service.get("Address") or "",
            "Tags": given.get("Tags") or service.get("Tags") or given.get("Tags"),
            "Locality": service.get("Locality") if given.get("Locality") is None else given["Locality"],
            "Meta": given.get("Meta") or service.get("Meta") or given.get("Meta"),
            "Connect": {key: value for key, value in (given.get("Connect") or {}).items() if key == "Native"},
        }
        errors = service_errors(sidecar, of_agent=True)
        if errors:
            raise Refused(400, f"Failed Validation: {collected(errors)}")
        if wrong := wrong_meta(sidecar["Meta"] or {}):
            raise Refused(400, f"Invalid SidecarService: {wrong}")
        weights = given.get("Weights")
        if weights is not None:  # those of a sidecar are not refused
            sidecar["Weights"] = {**weights, "Passing": max(1, weights.get("Passing") or 0)}
        port = given.get("Port") or 0
        sidecar["Port"] = port if port > 0 else self._sidecar_port(sidecar["ID"])
        if sidecar["Address"]:
            sidecar["TaggedAddresses"] = _tagged({**sidecar, "TaggedAddresses": given.get("TaggedAddresses")})
        return sidecar, self._sidecar_checks(given, sidecar, service["ID"])

    def _sidecar_port(self, sidecar_id: str) -> int:
        held = self.services.get(sidecar_id)
        if held is not None:
            return int(held["Port"])
        for port in SIDECAR_PORTS:
            if not self._ports[port]:
                return port
        raise Refused(
            400,
            "Invalid SidecarService: none left in the configured range"
            f" [{SIDECAR_PORTS.start}, {SIDECAR_PORTS.stop - 1}]",
        )

    def _sidecar_checks(self, given: Mapping[str, Any], sidecar: Json, parent: str) -> list[Json]:
        single = given.get("Check") or {}
        checks = [single] if any(single.values()) else []
        checks += given.get("Checks") or ()
        if checks:
            return checks
        address = sidecar["Address"] or "127.0.0.1"
        listening = {"Name": "Connect Sidecar Listening", "TCP": f"{address}:{sidecar['Port']}", "Interval": 10.0}
        return [listening, {"Name": f"Connect Sidecar Aliasing {parent}", "AliasService": parent}]

    def _add(self, service: Json, checks: list[Json], *, replace_checks: bool) -> None:
        identifier = service["ID"]
        self._keep(service)
        names = self._check_ids(identifier, checks)
        if replace_checks:
            for name in [check.row["CheckID"] for check in self.checks.of(identifier)]:
                if name not in names:
                    self.checks.drop(name)
        self._to_catalog(service)
        for name, definition in zip(names, checks, strict=True):
            self.checks.add(name, definition, service)
        self.checks.follow(identifier)
        self._state.touch(("agent service", identifier))

    def _keep(self, service: Json) -> None:
        held = self.services.get(service["ID"])
        if held is not None:
            self._ports[held.get("Port") or 0] -= 1
        self.services[service["ID"]] = service
        self._ports[service.get("Port") or 0] += 1

    def _to_catalog(self, service: Json) -> None:
        self.catalog.put_service(NODE, service_row({**service, "Proxy": self._merged(service)}))

    def _merged(self, service: Json) -> Json:
        """Return a service's `Proxy` as central config has it now."""
        proxy = service.get("Proxy") or {}
        if service.get("Kind") not in PROXIES:
            return proxy
        return merged_proxy(self._state.tables.entries, service, proxy_row(proxy, of_catalog=False))

    def merge_again(self) -> None:
        """Tell the catalog of central config that has changed."""
        for service in self.services.values():
            if service.get("Kind") in PROXIES:
                self._to_catalog(service)

    @staticmethod
    def _check_ids(service_id: str, checks: list[Json]) -> list[str]:
        numbered = [
            f"service:{service_id}" + (f":{number}" if len(checks) > 1 else "") for number in range(1, len(checks) + 1)
        ]
        return [check.get("CheckID") or name for check, name in zip(checks, numbered, strict=True)]

    def deregister(self, service_id: str) -> None:
        """Forget a service with its checks and its sidecar. Raise Refused (404) for an unknown one."""
        self.known(service_id)
        self._forget(service_id)
        sidecar = self._sidecars.pop(service_id, None)
        if sidecar in self.services:
            self._forget(sidecar)

    def _forget(self, service_id: str) -> None:
        self._ports[self.services.pop(service_id).get("Port") or 0] -= 1
        self.checks.drop_service(service_id)
        self.catalog.drop_service(NODE, service_id)
        self._state.touch(("agent service", service_id))

    def known(self, service_id: str) -> Json:
        """Return a service. Raise Refused (404)."""
        if service_id not in self.services:
            said = f'Unknown service ID "{service_id}". Ensure that the service ID is passed, not the service name.'
            raise Refused(404, said)
        return self.services[service_id]

    # --- how a service is told ---

    def told(self, service: Json) -> Json:
        """Return a service in the shape of `GET /v1/agent/services`."""
        kind = {"Kind": service["Kind"]} if service.get("Kind") else {}
        tagged = addresses_of(service)
        weights = service.get("Weights") or {"Passing": 1, "Warning": 1}
        row: Json = {
            **kind,
            "ID": service["ID"],
            "Service": service["Service"],
            "Tags": service.get("Tags") or [],
            "Meta": service.get("Meta") or {},
            "Port": service.get("Port") or 0,
            "Address": service.get("Address") or "",
        }
        if service.get("SocketPath"):
            row["SocketPath"] = service["SocketPath"]
        if tagged:
            row["TaggedAddresses"] = tagged
        row["Weights"] = {"Passing": weights.get("Passing", 0), "Warning": weights.get("Warning", 0)}
        row["EnableTagOverride"] = bool(service.get("EnableTagOverride"))
        if service.get("Kind") in PROXIES:
            row["Proxy"] = self._merged(service)
        if (service.get("Connect") or {}).get("Native"):
            row["Connect"] = {"Native": True}
        if service.get("Locality") is not None:
            row["Locality"] = {"Region": "", "Zone": "", **service["Locality"]}
        row["Datacenter"] = DATACENTER
        return row

    def hashed(self, service: Json) -> Json:
        """Return a service as `GET /v1/agent/service/:id` tells it, with the hash of its content."""
        row = self.told(service)
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()
        at = list(row).index("EnableTagOverride") + 1
        pairs = list(row.items())
        return dict([*pairs[:at], ("ContentHash", digest), *pairs[at:]])

    # --- maintenance ---

    def maintenance(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Put a service into maintenance or out of it."""
        service = self.known(service_id)
        name = f"_service_maintenance:{service_id}"
        if not enable:
            self.checks.drop(name)
        elif name not in self.checks:
            given = {"Name": "Service Maintenance Mode", "Status": "critical", "Notes": reason or MAINTENANCE_REASON}
            self.checks.add(name, given, service)

    def node_maintenance(self, *, enable: bool, reason: str) -> None:
        """Put the node into maintenance or out of it."""
        if not enable:
            self.checks.drop("_node_maintenance")
        elif "_node_maintenance" not in self.checks:
            notes = reason or NODE_MAINTENANCE_REASON
            given = {"Name": "Node Maintenance Mode", "Status": "critical", "Notes": notes}
            self.checks.add("_node_maintenance", given, None)

    def health(self, service_id: str) -> tuple[str, list[Json]]:
        """Return the aggregated status of a service and its checks."""
        rows = [check.row for name in (OF_NODE, service_id) for check in self.checks.of(name)]
        names = {row["CheckID"] for row in rows}
        if names & {"_node_maintenance", f"_service_maintenance:{service_id}"}:
            return "maintenance", rows
        failing = worst(rows)
        return (failing["Status"] if failing else "passing"), rows

    # --- life ---

    async def stop(self) -> None:
        """End every check."""
        await self.checks.stop()

    def dump(self) -> Json:
        """Return the registrations as JSON."""
        checks = {name: {"definition": check.definition, "row": check.row} for name, check in self.checks.items()}
        return {"services": self.services, "checks": checks, "sidecars": self._sidecars}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave and run the checks again."""
        self._sidecars = dict(kept["sidecars"])
        for service in kept["services"].values():
            self._keep(service)
            self._to_catalog(service)
        for name, held in kept["checks"].items():
            owner = self.services.get(held["row"]["ServiceID"])
            self.checks.add(name, {**held["definition"], "Status": held["row"]["Status"]}, owner)

    def forget_all(self) -> None:
        """Forget every registration, as an agent whose data were lost."""
        self.checks.clear()
        self.services.clear()
        self._sidecars.clear()
        self._ports.clear()


def _tagged(service: Mapping[str, Any]) -> Json:
    address = {"Address": service["Address"], "Port": service.get("Port") or 0}
    given = dict(service.get("TaggedAddresses") or {})
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(service["Address"]).version
        for name in (f"lan_ipv{version}", f"wan_ipv{version}"):
            given.setdefault(name, address)
    return given
