"""/v1/connect/intentions by identifier: the API of before Consul 1.9, which writes into the same entries.

An entry whose rows all come from here may be edited here; after any other write of it this API refuses.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from aiohttp import web

from lictor.dev.consul import intentions
from lictor.dev.consul.decoding import decode
from lictor.dev.consul.definitions import collected
from lictor.dev.consul.intentions import ENTERPRISE, KIND, SHAPE
from lictor.dev.consul.pages_config import Pages as ConfigPages
from lictor.dev.consul.pages_intentions import OF_PEER
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json
from lictor.dev.consul.web import answer, body, hang_up
from policies.entries import normalise_entry
from policies.errors import EntryError

LENGTH_OF_ID = 36
MOST_META, LONGEST_KEY, LONGEST_VALUE = 64, 128, 512
_PREFIX = "Failed to decode request body: "
_ELSEWHERE = (
    "cannot use legacy intention API to edit intentions with a destination of"
    ' "{}" after editing them via a service-intentions config entry'
)
_MOVED = "Cannot modify Destination partition/namespace/name for an intention once it exists."


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    path = "/v1/connect/intentions/{id:.*}"
    return [
        web.post("/v1/connect/intentions", pages.create),
        web.get(path, pages.read, allow_head=False),
        web.put(path, pages.update),
        web.delete(path, pages.delete),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._config = ConfigPages(consul)

    async def create(self, request: web.Request) -> web.Response:
        try:
            given = decode(await body(request, _PREFIX), SHAPE)
        except Refused as error:
            raise Refused(500, error.text.replace("Request decode failed: ", _PREFIX)) from error
        if given is None:
            hang_up(request)
        _check_enterprise(given)
        destination = given.get("DestinationName") or ""
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        if not destination:
            raise Refused(403, "Permission denied")
        if given.get("ID"):
            raise Refused(500, "ID must be empty when creating a new intention")
        _check(given)
        held = self._consul.state.tables.entries.get(KIND, destination) or {}
        rows = [dict(row) for row in held.get("Sources") or ()]
        if rows and not all(row.get("LegacyID") for row in rows):
            raise Refused(500, _ELSEWHERE.format(held["Name"]))
        identifier, now = str(uuid.uuid4()), _now()
        self._write(destination, [*rows, _source(given, identifier, created=now, updated=now)])
        return answer({"ID": identifier}, request)

    async def update(self, request: web.Request) -> web.Response:
        identifier = request.match_info["id"]
        raw = await body(request)
        if raw is None:
            hang_up(request)
        given = decode(raw, SHAPE)
        _check_partitions(given)
        if given.get("SourcePeer"):
            raise Refused(500, OF_PEER)
        row = self._found(identifier, "Intention lookup failed: ", 500)
        if row is None:
            raise Refused(500, f"Cannot modify non-existent intention: '{identifier}'")
        destination = row["DestinationName"]
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        if (given.get("DestinationName") or "") != destination:
            raise Refused(500, _MOVED)
        for side in ("Source", "Destination"):
            namespace = given.get(f"{side}NS") or "default"
            if namespace != "default":
                raise Refused(500, f'Invalid {side.lower()} namespace "{namespace}": {ENTERPRISE}')
        _check(given)
        held = self._consul.state.tables.entries.get(KIND, destination) or {}
        source = _source(given, identifier, created=row["CreatedAt"], updated=_now())
        self._write(
            destination,
            [source if one.get("LegacyID") == identifier else dict(one) for one in held.get("Sources") or ()],
        )
        return answer({"ID": identifier}, request)

    async def read(self, request: web.Request) -> web.Response:
        identifier = request.match_info["id"]
        row = self._found(identifier, "", 400) if identifier else None
        if row is None:
            raise Refused(404, "Intention not found")
        request[AUTHORIZER].demand("intention", "read", row["DestinationName"], bare=True)
        return answer(row, request)

    async def delete(self, request: web.Request) -> web.Response:
        identifier = request.match_info["id"]
        if not identifier:
            raise Refused(403, "Permission denied")
        row = self._found(identifier, "Intention lookup failed: ", 500)
        if row is None:
            raise Refused(500, f"Cannot delete non-existent intention: '{identifier}'")
        destination = row["DestinationName"]
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        tables = self._consul.state.tables
        held = tables.entries.get(KIND, destination) or {}
        left = [dict(one) for one in held.get("Sources") or () if one.get("LegacyID") != identifier]
        if left:
            self._write(destination, left)
        else:
            self._config.apply(tables.entries.delete(KIND, destination), KIND, destination)
        return answer(True, request)

    def _found(self, identifier: str, prefix: str, status: int) -> Json | None:
        """Return the row of an identifier. Raise Refused for what is none."""
        wrong = _no_identifier(identifier)
        if wrong:
            raise Refused(status, f"{prefix}failed config entry lookup: index error: {wrong}")
        return next((row for row in intentions.every(self._consul.state) if row.get("ID") == identifier), None)

    def _write(self, destination: str, sources: list[Json]) -> None:
        """Write rows with their legacy fields, which the operator himself may not set."""
        legacy = {
            row["Name"]: {key: value for key, value in row.items() if key.startswith("Legacy")} for row in sources
        }
        plain = [{key: value for key, value in row.items() if not key.startswith("Legacy")} for row in sources]
        tables = self._consul.state.tables
        held = tables.entries.get(KIND, destination)
        entry = {**(held or {"Kind": KIND, "Name": destination}), "Sources": plain}
        try:
            normal = normalise_entry(entry)
        except EntryError as error:
            raise Refused(500, str(error)) from error
        normal = {**normal, "Sources": [_told(row, legacy[row["Name"]]) for row in normal["Sources"]]}
        self._config.apply(tables.entries.put(normal), KIND, destination)


def _told(row: Json, legacy: Json) -> Json:
    """Return a source with its legacy fields where Consul tells them."""
    order = ("Name", "Action", "Permissions", "Precedence", "LegacyID", "Type", "Description")
    both = {**row, **legacy}
    return {key: both[key] for key in sorted(both, key=lambda key: order.index(key) if key in order else len(order))}


def _source(given: Json, identifier: str, *, created: str, updated: str) -> Json:
    """Return the source of an intention as the entry keeps it."""
    row = {"Name": given.get("SourceName") or "", "Type": "consul", "Action": given["Action"]}
    if given.get("SourceSamenessGroup"):
        row["SamenessGroup"] = given["SourceSamenessGroup"]
    if given.get("Description"):
        row["Description"] = given["Description"]
    row |= {"LegacyID": identifier, "LegacyCreateTime": created, "LegacyUpdateTime": updated}
    return {**row, "LegacyMeta": given["Meta"]} if given.get("Meta") else row


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _no_identifier(text: str) -> str:
    """Return what is wrong with an identifier, or ""."""
    if len(text) != LENGTH_OF_ID:
        return f"UUID must be {LENGTH_OF_ID} characters"
    for sign in text.replace("-", ""):
        if sign not in "0123456789abcdefABCDEF":
            return f"Invalid UUID: encoding/hex: invalid byte: U+{ord(sign):04X} '{sign}'"
    return ""


def _check_partitions(given: Json) -> None:
    for side in ("Source", "Destination"):
        if (given.get(f"{side}Partition") or "default") != "default":
            raise Refused(400, f"Cannot specify a {side.lower()} partition with this endpoint")


def _check_enterprise(given: Json) -> None:
    _check_partitions(given)
    for side in ("Source", "Destination"):
        namespace = given.get(f"{side}NS") or "default"
        if namespace != "default":
            raise Refused(400, f"Invalid {side}NS({namespace}): {ENTERPRISE}")
    if given.get("SourcePeer"):
        raise Refused(500, OF_PEER)


def _check(given: Json) -> None:
    """Refuse what an intention of this API cannot be, every mistake at once."""
    errors: list[str] = []
    for side in ("SourceName", "DestinationName"):
        name = given.get(side) or ""
        if not name:
            errors.append(f"{side} must be set")
        if "*" in name and name != "*":
            errors.append(f"{side}: wildcard character '*' cannot be used with partial values")
    if len((given.get("Description") or "").encode()) > LONGEST_VALUE:
        errors.append(f"Description exceeds maximum length {LONGEST_VALUE}")
    errors += _wrong_meta(given.get("Meta") or {})
    if given.get("Action") not in {"allow", "deny"}:
        errors.append("Action must be set to 'allow' or 'deny'")
    if given.get("Permissions"):
        errors.append("Permissions must not be set when using the legacy APIs")
    if (given.get("SourceType") or "consul") != "consul":
        errors.append("SourceType must be set to 'consul'")
    if errors:
        raise Refused(500, collected(errors))


def _wrong_meta(meta: dict[str, str]) -> list[str]:
    errors = [f"Meta exceeds maximum element count {MOST_META}"] if len(meta) > MOST_META else []
    for key, value in meta.items():
        if len(key.encode()) > LONGEST_KEY:
            errors.append(f'Meta key "{key}" exceeds maximum length {LONGEST_KEY}')
        if len((value or "").encode()) > LONGEST_VALUE:
            errors.append(f'Meta value for key "{key}" exceeds maximum length {LONGEST_VALUE}')
    return errors
