"""The agent's checks: they really run. TTL checks expire, TCP and HTTP checks look, alias checks follow.

Source: Consul's HTTP API, `PUT /v1/agent/check/register`, and its documentation of health checks. Checks are kept by
the service that they are of, aliases by what they follow: one result costs the same with ten checks and ten thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.consul.catalog import NODE, Catalog
from lictor.dev.consul.probes import probe
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.service_rows import check_row
from lictor.dev.consul.state import Json
from policies.durations import format_duration

FIRST_PROBE_SECONDS = 0.05  # Consul spreads the first run over the interval, which helps nobody who waits for it
SPREAD_ABOVE_SECONDS = 60.0  # unless the interval says that nobody does
SHORTEST_INTERVAL = 1.0
ALIAS_SECONDS = 60.0  # after which an alias looks again although its service's checks have told nothing
OF_NODE = ""  # the service ID of a check that is of no service


@dataclass(slots=True)
class Check:
    """A check of this agent: its definition, its row, and the task that runs it."""

    definition: Json
    row: Json
    task: asyncio.Task[None] | None = None
    tags: list[str] | None = None  # its service's, when it was registered
    heard: asyncio.Event = field(default_factory=asyncio.Event)  # a TTL check that was updated
    good: int = 0  # results in a row
    bad: int = 0

    @property
    def alias_of(self) -> str | None:
        """Return the service that it follows, `OF_NODE` for the whole node, or None when it is no alias."""
        definition = self.definition
        if definition.get("AliasService") or definition.get("AliasNode"):
            return str(definition.get("AliasService") or OF_NODE)
        return None


class Checks(Mapping[str, Check]):
    """The checks of this agent by ID. `services` are the agent's, by ID."""

    def __init__(self, catalog: Catalog, services: Mapping[str, Json]) -> None:
        self._catalog = catalog
        self._services = services
        self._checks: dict[str, Check] = {}
        self._of: dict[str, dict[str, Check]] = {}  # by the service's ID
        self._aliases: dict[str, dict[str, Check]] = {}  # by the ID of the service that is followed

    def __getitem__(self, check_id: str) -> Check:
        return self._checks[check_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)

    def of(self, service_id: str) -> list[Check]:
        """Return the checks of a service; of the node for `OF_NODE`."""
        return list(self._of.get(service_id, {}).values())

    # --- registration ---

    def add(self, check_id: str, definition: Json, service: Mapping[str, Any] | None, *, alone: bool = False) -> None:
        """Register a check and run it. One of the same ID keeps its status and output, whatever the new one says.

        `alone`: it was registered by itself, whose row tells durations that are not there as `0s`.
        """
        held = self._checks.get(check_id)
        kept = held.row if held is not None else {}
        row = check_row(
            NODE,
            check_id,
            Name=definition.get("Name") or (f"Service '{service['Service']}' check" if service else check_id),
            Status=kept.get("Status") or definition.get("Status") or "critical",
            Notes=definition.get("Notes", ""),
            Output=kept.get("Output", ""),
            ServiceID=service["ID"] if service else OF_NODE,
            ServiceName=service["Service"] if service else "",
            ServiceTags=(service.get("Tags") or []) if service else [],
            Type=type_of(definition),
            Interval=_told_duration(_interval(definition), alone=alone),
            Timeout=_told_duration(definition.get("Timeout"), alone=alone),
        )
        if held is not None:
            self._remove(check_id)
        check = Check(definition, row, tags=service.get("Tags") if service else None)
        self._checks[check_id] = check
        self._of.setdefault(row["ServiceID"], {})[check_id] = check
        if check.alias_of is not None:
            self._aliases.setdefault(check.alias_of, {})[check_id] = check
        self._catalog.put_check(NODE, {**row})
        check.task = asyncio.get_running_loop().create_task(self._run(check), name=f"check {check_id}")
        self._tell(check)

    def drop(self, check_id: str) -> None:
        """Forget a check, here and in the catalog."""
        if check_id in self._checks:
            check = self._remove(check_id)
            self._catalog.drop_check(NODE, check_id)
            self._tell(check)

    def drop_service(self, service_id: str) -> None:
        """Forget the checks of a service that is gone, and let its aliases look again."""
        for check_id in list(self._of.get(service_id, {})):
            self._remove(check_id)
        self.follow(service_id)

    def clear(self) -> None:
        """Forget every check, here alone."""
        for check_id in list(self._checks):
            self._remove(check_id)

    def _remove(self, check_id: str) -> Check:
        check = self._checks.pop(check_id)
        if check.task is not None:
            check.task.cancel()
        _take(self._of, check.row["ServiceID"], check_id)
        if check.alias_of is not None:
            _take(self._aliases, check.alias_of, check_id)
        return check

    # --- results ---

    def set_status(self, check: Check, status: str, output: str) -> None:
        """Keep a result; tell the catalog when the status changed. Consul tells it another output minutes later."""
        if check.row["Status"] == status and check.row["Output"] == output:
            return
        changed = check.row["Status"] != status
        check.row["Status"], check.row["Output"] = status, output
        told = self._catalog.type_of_check(NODE, check.row["CheckID"])
        if changed or told == check.row["Type"] == "alias":
            self._catalog.put_check(NODE, {**check.row})
        if changed:
            self._tell(check)

    def update_ttl(self, check_id: str, status: str, output: str) -> None:
        """Take the result of a TTL check. Raise Refused for one that is none."""
        check = self._checks.get(check_id)
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
        elif check.alias_of is not None:
            while True:
                self._follow(check)
                await asyncio.sleep(ALIAS_SECONDS)
        elif definition.get("Interval"):
            await self._look(check, max(SHORTEST_INTERVAL, float(definition["Interval"])))

    async def _look(self, check: Check, interval: float) -> None:
        await asyncio.sleep(FIRST_PROBE_SECONDS if interval <= SPREAD_ABOVE_SECONDS else interval / 10)
        kind = check.row["Type"]
        if kind not in {"http", "tcp"}:
            self.set_status(check, "critical", f"the dev server of Lictor does not run {kind} checks")
            return
        while True:
            self._count(check, *await probe(check.definition))
            await asyncio.sleep(interval)

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

    # --- aliases ---

    def _tell(self, check: Check) -> None:
        """Let the aliases of a service look again when one of its checks has changed.

        A check of the node tells none of them, as in Consul: they see it when they look the next time.
        """
        if check.row["ServiceID"] != OF_NODE:
            self.follow(check.row["ServiceID"])

    def follow(self, service_id: str) -> None:
        """Let the aliases of a service look again."""
        for check in list(self._aliases.get(service_id, {}).values()):
            self._follow(check)

    def _follow(self, check: Check) -> None:
        """Give an alias check the worst status of what it stands for. An alias of the node's own is none of them."""
        target = check.alias_of or OF_NODE
        if target and target not in self._services:
            self.set_status(check, "critical", f"Service {target} could not be found on node ")
            return
        of_node = [other for other in self.of(OF_NODE) if other.alias_of is None or other is check]
        of_service = self.of(target) if target else []
        rows = [other.row for other in (*of_node, *of_service)]  # an alias of its own service follows itself, too
        failing = worst(rows)
        if failing is not None:
            said = f'Aliased check "{failing["Name"]}" failing: {failing["Output"]}'
            self.set_status(check, failing["Status"], said)
        else:
            self.set_status(check, "passing", "All checks passing." if rows else "No checks found.")

    async def stop(self) -> None:
        """End every check's task."""
        tasks = [check.task for check in self._checks.values() if check.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _take(index: dict[str, dict[str, Check]], key: str, check_id: str) -> None:
    left = index[key]
    del left[check_id]
    if not left:
        del index[key]


def _interval(definition: Mapping[str, Any]) -> float:
    """Return how often a check looks, in seconds: not more often than each second; 0 for one that does not look."""
    given = float(definition.get("Interval") or 0)
    return max(SHORTEST_INTERVAL, given) if given else 0.0


def _told_duration(seconds: float | None, *, alone: bool) -> str:
    return format_duration(round(seconds * 1e9)) if seconds else "0s" if alone else ""


def worst(rows: Iterable[Json]) -> Json | None:
    """Return the first critical row, else the first that warns, else None."""
    found = sorted((row for row in rows if row["Status"] in {"critical", "warning"}), key=lambda row: row["Status"])
    return found[0] if found else None


def type_of(definition: Mapping[str, Any]) -> str:
    """Return the kind of a check as its row tells it."""
    if definition.get("AliasService") or definition.get("AliasNode"):
        return "alias"
    names = {"ScriptArgs": "script", "HTTP": "http", "H2PING": "h2ping", "TCP": "tcp", "UDP": "udp", "GRPC": "grpc"}
    found = next(
        (word for name, word in {**names, "OSService": "os_service", "TTL": "ttl"}.items() if definition.get(name)), ""
    )
    return found or ("maintenance" if "Maintenance Mode" in str(definition.get("Name")) else "")
