"""The agent: local registrations, sidecars made of them, checks that really run, maintenance.

Source: Consul's HTTP API, "Agent" (services and checks). What is registered here goes to the catalog at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.consul.catalog import DATACENTER, NODE, Catalog, check_row, proxy_row, service_row
from lictor.dev.consul.central import merged_proxy
from lictor.dev.consul.definitions import collected, service_errors
from lictor.dev.consul.probes import probe
from lictor.dev.consul.state import Json, State
from lictor.dev.consul.web import Refused
from policies.durations import format_duration

SIDECAR_PORTS = range(21000, 21256)
FIRST_PROBE_SECONDS = 0.05  # Consul spreads the first run over the interval; a dev server need not
MAINTENANCE_REASON = (
    "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
)
NODE_MAINTENANCE_REASON = (
    "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
)


@dataclass(slots=True)
class Check:
    """A check of this agent: its definition, its row, and the task that runs it."""

    definition: Json
    row: Json
    task: asyncio.Task[None] | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # a TTL check that was updated
    good: int = 0  # results in a row
    bad: int = 0


class Agent:
    """The services and checks of this agent."""

    def __init__(self, state: State, catalog: Catalog) -> None:
        self._state = state
        self.catalog = catalog
        self.services: dict[str, Json] = {}
        self.checks: dict[str, Check] = {}
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
        service["Meta"] = definition.get("Meta") or {}
        if definition.get("Address"):
            service["TaggedAddresses"] = _tagged(service)
        return service

    def _sidecar_of(self, service: Json, definition: Mapping[str, Any]) -> tuple[Json, list[Json]] | None:
        given = (definition.get("Connect") or {}).get("SidecarService")
        if given is None:
            return None
        service["Connect"] = {key: value for key, value in service["Connect"].items() if key != "SidecarService"}
        proxy = dict(given.get("Proxy") or {})
        proxy.setdefault("DestinationServiceName", service["Service"])
        proxy.setdefault("DestinationServiceID", service["ID"])
        if not proxy.get("LocalServiceSocketPath"):
            proxy["LocalServiceAddress"] = proxy.get("LocalServiceAddress") or "127.0.0.1"
            proxy["LocalServicePort"] = proxy.get("LocalServicePort") or service.get("Port") or 0
        sidecar = {
            **self._service({"Name": service["Service"] + "-sidecar-proxy", **given}),
            "ID": f"{service['ID']}-sidecar-proxy",
            "Kind": given.get("Kind") or "connect-proxy",
            "Proxy": proxy,
            "Address": given.get("Address") or service.get("Address") or "",
            "Tags": given.get("Tags") or service.get("Tags") or [],
            "Meta": given.get("Meta") or service["Meta"],
            "Connect": {},
        }
        if sidecar["Address"]:
            sidecar["TaggedAddresses"] = _tagged(sidecar)
        sidecar["Port"] = given.get("Port") or self._sidecar_port(sidecar["ID"])
        errors = service_errors(sidecar, of_agent=True)
        if errors:
            raise Refused(400, f"Failed Validation: {collected(errors)}")
        return sidecar, self._sidecar_checks(given, sidecar, service["ID"])

    def _sidecar_port(self, sidecar_id: str) -> int:
        held = self.services.get(sidecar_id)
        if held is not None:
            return int(held["Port"])
        used = {service.get("Port") for service in self.services.values()}
        for port in SIDECAR_PORTS:
            if port not in used:
                return port
        raise Refused(
            400,
            "Invalid SidecarService: none left in the configured range"
            f" [{SIDECAR_PORTS.start}, {SIDECAR_PORTS.stop - 1}]",
        )

    def _sidecar_checks(self, given: Mapping[str, Any], sidecar: Json, parent: str) -> list[Json]:
        checks = [check for check in (given.get("Check"), *(given.get("Checks") or ())) if check]
        if checks:
            return checks
        address = sidecar["Address"] or "127.0.0.1"
        listening = {"Name": "Connect Sidecar Listening", "TCP": f"{address}:{sidecar['Port']}", "Interval": 10.0}
        return [listening, {"Name": f"Connect Sidecar Aliasing {parent}", "AliasService": parent}]

    def _add(self, service: Json, checks: list[Json], *, replace_checks: bool) -> None:
        identifier = service["ID"]
        self.services[identifier] = service
        names = self._check_ids(identifier, checks)
        if replace_checks:
            for name in [name for name, check in self.checks.items() if check.row["ServiceID"] == identifier]:
                if name not in names and not name.startswith("_service_maintenance"):
                    self.drop_check(name)
        self._to_catalog(service)
        for name, definition in zip(names, checks, strict=True):
            self.add_check(name, definition, service)
        for check in self.checks.values():
            if check.row["ServiceID"] == identifier:
                check.row["ServiceName"], check.row["ServiceTags"] = service["Service"], service.get("Tags") or []
        self._state.touch(("agent service", identifier))

    def _to_catalog(self, service: Json) -> None:
        self.catalog.put_service(NODE, service_row(service))

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
        for name in [name for name, check in self.checks.items() if check.row["ServiceID"] == service_id]:
            self._stop(self.checks.pop(name))
        self._follow_aliases()  # while the service is still known: its aliases pass, for want of checks
        del self.services[service_id]
        self.catalog.drop_service(NODE, service_id)
        self._state.touch(("agent service", service_id))

    def known(self, service_id: str) -> Json:
        """Return a service. Raise Refused (404)."""
        if service_id not in self.services:
            said = f'Unknown service ID "{service_id}". Ensure that the service ID is passed, not the service name.'
            raise Refused(404, said)
        return self.services[service_id]

    # --- how a service is told ---

    def told(self, service: Json, *, central: bool = True) -> Json:
        """Return a service in the shape of `GET /v1/agent/services`."""
        kind = {"Kind": service["Kind"]} if service.get("Kind") else {}
        tagged = dict(service.get("TaggedAddresses") or {})
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
        if service.get("Kind"):
            proxy = proxy_row(service.get("Proxy") or {}, of_catalog=False)
            row["Proxy"] = merged_proxy(self._state.tables.entries, service, proxy) if central else proxy
        if (service.get("Connect") or {}).get("Native"):
            row["Connect"] = {"Native": True}
        row["Datacenter"] = DATACENTER
        return row

    def hashed(self, service: Json) -> Json:
        """Return a service as `GET /v1/agent/service/:id` tells it, with the hash of its content."""
        row = self.told(service)
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True).encode(), digest_size=8).hexdigest()
        at = list(row).index("EnableTagOverride") + 1
        pairs = list(row.items())
        return dict([*pairs[:at], ("ContentHash", digest), *pairs[at:]])

    # --- checks ---

    def add_check(
        self, check_id: str, definition: Json, service: Mapping[str, Any] | None, *, alone: bool = False
    ) -> None:
        """Register a check and run it. One of the same ID keeps its status unless a new one is given.

        `alone`: it was registered by itself, whose row tells durations that are not there as `0s`.
        """
        held = self.checks.get(check_id)
        status = definition.get("Status") or (held.row["Status"] if held else "critical")
        row = check_row(
            NODE,
            check_id,
            Name=definition.get("Name") or (f"Service '{service['Service']}' check" if service else check_id),
            Status=status,
            Notes=definition.get("Notes", ""),
            Output=held.row["Output"] if held and not definition.get("Status") else "",
            ServiceID=service["ID"] if service else "",
            ServiceName=service["Service"] if service else "",
            ServiceTags=(service.get("Tags") or []) if service else [],
            Type=_type(definition),
            Interval=_told_duration(definition.get("Interval"), alone=alone),
            Timeout=_told_duration(definition.get("Timeout"), alone=alone),
        )
        if held is not None:
            self._stop(held)
        check = Check(definition, row)
        self.checks[check_id] = check
        self.catalog.put_check(NODE, {**row})
        check.task = asyncio.get_running_loop().create_task(self._run(check), name=f"check {check_id}")
        self._follow_aliases()

    def drop_check(self, check_id: str) -> None:
        """Forget a check."""
        check = self.checks.pop(check_id, None)
        if check is not None:
            self._stop(check)
            self.catalog.drop_check(NODE, check_id)
            self._follow_aliases()

    @staticmethod
    def _stop(check: Check) -> None:
        if check.task is not None:
            check.task.cancel()

    def set_status(self, check: Check, status: str, output: str) -> None:
        """Keep a result; tell the catalog when the status changed or, for a TTL check, its output."""
        if check.row["Status"] == status and check.row["Output"] == output:
            return
        changed = check.row["Status"] != status
        check.row["Status"], check.row["Output"] = status, output
        if changed or check.row["Type"] in {"ttl", "alias"}:
            self.catalog.put_check(NODE, {**check.row})
        if changed:
            self._follow_aliases()

    def update_ttl(self, check_id: str, status: str, output: str) -> None:
        """Take the result of a TTL check. Raise Refused for one that is none."""
        check = self.checks.get(check_id)
        if check is None:
            said = f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.'
            raise Refused(404, said)
        if not check.definition.get("TTL"):
            raise Refused(500, f'CheckID "{check_id}" does not have associated TTL')
        check.heard.set()
        self.set_status(check, status, output)

    async def _run(self, check: Check) -> None:
        definition = check.definition
        if definition.get("TTL"):
            await self._expire(check, float(definition["TTL"]))
        elif _is_alias(definition):
            self._follow(check)
        elif _type(definition) in {"http", "tcp"}:
            await asyncio.sleep(FIRST_PROBE_SECONDS)
            while True:
                self._count(check, *await probe(definition))
                await asyncio.sleep(max(1.0, float(definition["Interval"])))

    async def _expire(self, check: Check, ttl: float) -> None:
        while True:
            check.heard.clear()
            try:
                async with asyncio.timeout(ttl):
                    await check.heard.wait()
            except TimeoutError:
                last = check.row["Output"]
                said = (
                    last
                    if last.startswith("TTL expired") or not last
                    else f"TTL expired (last output before timeout follows): {last}"
                )
                self.set_status(check, "critical", said or "TTL expired")

    def _count(self, check: Check, status: str, output: str) -> None:
        """Take a result of a probe: a change needs some in a row, as the definition says."""
        definition = check.definition
        if status == "passing":
            check.good, check.bad = check.good + 1, 0
            if check.good > int(definition.get("SuccessBeforePassing") or 0):
                self.set_status(check, status, output)
        else:
            check.good, check.bad = 0, check.bad + 1
            if check.bad > int(definition.get("FailuresBeforeCritical") or 0):
                self.set_status(check, status, output)
            elif check.bad > int(definition.get("FailuresBeforeWarning") or 0) and definition.get(
                "FailuresBeforeWarning"
            ):
                self.set_status(check, "warning", output)

    def _follow_aliases(self) -> None:
        for check in list(self.checks.values()):
            if _is_alias(check.definition):
                self._follow(check)

    def _follow(self, check: Check) -> None:
        """Give an alias check the worst status of what it stands for."""
        target = check.definition.get("AliasService", "")
        if target and target not in self.services:
            self.set_status(check, "critical", f"Service {target} could not be found on node ")
            return
        rows = [
            other.row
            for other in self.checks.values()
            if other is not check and other.row["ServiceID"] in {"", target} and not _is_alias(other.definition)
        ]
        failing = _worst(rows)
        if failing is not None:
            said = f'Aliased check "{failing["Name"]}" failing: {failing["Output"]}'
            self.set_status(check, failing["Status"], said)
        elif any(row["ServiceID"] for row in rows):
            self.set_status(check, "passing", "All checks passing.")
        else:
            self.set_status(check, "passing", "No checks found.")

    # --- maintenance ---

    def maintenance(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Put a service into maintenance or out of it."""
        service = self.known(service_id)
        name = f"_service_maintenance:{service_id}"
        if not enable:
            self.drop_check(name)
        elif name not in self.checks:
            given = {"Name": "Service Maintenance Mode", "Status": "critical", "Notes": reason or MAINTENANCE_REASON}
            self.add_check(name, given, service)

    def node_maintenance(self, *, enable: bool, reason: str) -> None:
        """Put the node into maintenance or out of it."""
        if not enable:
            self.drop_check("_node_maintenance")
        elif "_node_maintenance" not in self.checks:
            notes = reason or NODE_MAINTENANCE_REASON
            given = {"Name": "Node Maintenance Mode", "Status": "critical", "Notes": notes}
            self.add_check("_node_maintenance", given, None)

    def health(self, service_id: str) -> tuple[str, list[Json]]:
        """Return the aggregated status of a service and its checks."""
        rows = [check.row for check in self.checks.values() if check.row["ServiceID"] in {"", service_id}]
        names = {row["CheckID"] for row in rows}
        if names & {"_node_maintenance", f"_service_maintenance:{service_id}"}:
            return "maintenance", rows
        failing = _worst(rows)
        return (failing["Status"] if failing else "passing"), rows

    # --- life ---

    async def stop(self) -> None:
        """End every check."""
        tasks = [check.task for check in self.checks.values() if check.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def dump(self) -> Json:
        """Return the registrations as JSON."""
        checks = {name: {"definition": check.definition, "row": check.row} for name, check in self.checks.items()}
        return {"services": self.services, "checks": checks, "sidecars": self._sidecars}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Take what `dump` gave and run the checks again."""
        self.services, self._sidecars = dict(kept["services"]), dict(kept["sidecars"])
        for service in self.services.values():
            self._to_catalog(service)
        for name, held in kept["checks"].items():
            owner = self.services.get(held["row"]["ServiceID"])
            self.add_check(name, {**held["definition"], "Status": held["row"]["Status"]}, owner)

    def forget_all(self) -> None:
        """Forget every registration, as an agent whose data were lost."""
        for check in self.checks.values():
            self._stop(check)
        self.services, self.checks, self._sidecars = {}, {}, {}


def _told_duration(seconds: float | None, *, alone: bool) -> str:
    return format_duration(round(seconds * 1e9)) if seconds else "0s" if alone else ""


def _worst(rows: Iterable[Json]) -> Json | None:
    found = sorted((row for row in rows if row["Status"] in {"critical", "warning"}), key=lambda row: row["Status"])
    return found[0] if found else None


def _is_alias(definition: Mapping[str, Any]) -> bool:
    return bool(definition.get("AliasService") or definition.get("AliasNode"))


def _type(definition: Mapping[str, Any]) -> str:
    if _is_alias(definition):
        return "alias"
    names = {"ScriptArgs": "script", "HTTP": "http", "H2PING": "h2ping", "TCP": "tcp", "UDP": "udp", "GRPC": "grpc"}
    found = next(
        (word for name, word in {**names, "OSService": "os_service", "TTL": "ttl"}.items() if definition.get(name)), ""
    )
    return found or ("maintenance" if "Maintenance Mode" in str(definition.get("Name")) else "")


def _tagged(service: Mapping[str, Any]) -> Json:
    address = {"Address": service["Address"], "Port": service.get("Port") or 0}
    given = dict(service.get("TaggedAddresses") or {})
    if service["Address"].replace(".", "").isdigit():
        for name in ("lan_ipv4", "wan_ipv4"):
            given.setdefault(name, address)
    return given
