"""/v1/connect/intentions by the names of both sides: the list, match, check and exact.

A write goes into the `service-intentions` entry of its destination, as the operator's own writes of entries do.
"""

from __future__ import annotations

from aiohttp import web

from lictor.dev.consul import intentions
from lictor.dev.consul.decoding import decode
from lictor.dev.consul.definitions import collected
from lictor.dev.consul.filtering import INTENTION, filtered
from lictor.dev.consul.intentions import KIND, SHAPE, Name, parse_name
from lictor.dev.consul.pages_config import Pages as ConfigPages
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.web import Read, answer, body, hang_up, read
from policies.entries import normalise_entry
from policies.errors import EntryError

OF_PEER = "SourcePeer field is not supported on this endpoint. Use config entries instead"


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    return [
        web.get("/v1/connect/intentions", pages.every, allow_head=False),
        web.get("/v1/connect/intentions/match", pages.match, allow_head=False),
        web.get("/v1/connect/intentions/check", pages.check, allow_head=False),
        web.get("/v1/connect/intentions/exact", pages.exact, allow_head=False),
        web.put("/v1/connect/intentions/exact", pages.put),
        web.delete("/v1/connect/intentions/exact", pages.delete),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._config = ConfigPages(consul)

    async def every(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = [
                row
                for row in intentions.every(self._consul.state)
                if allowed("intention", "read", row["DestinationName"])
            ]
            index = self._consul.state.last((("entries",),))
            return Read(filtered(request, rows, INTENTION), (("kind", KIND),), index)

        return await read(request, self._consul.state, look)

    async def match(self, request: web.Request) -> web.StreamResponse:
        by = request.query.get("by")
        if by is None:
            raise Refused(500, "required query parameter 'by' not set")
        if by not in {"source", "destination"}:
            raise Refused(500, "'by' parameter must be one of 'source' or 'destination'")
        texts = request.query.getall("name", [])
        if not texts:
            raise Refused(500, "required query parameter 'name' not set")
        names = {text: parse_name(text, "name") for text in texts}
        for name in names.values():
            name.demand_default("Invalid match entry namespace", indexed=True)
            if name.partition not in {"", "default"}:
                said = f'Invalid match entry partition "{name.partition}": Partitions is a Consul Enterprise feature'
                raise Refused(500, said, indexed=True)
            request[AUTHORIZER].demand("intention", "read", name.service, bare=False, indexed=True)

        def look() -> Read:
            state = self._consul.state
            data = {text: intentions.matching(state, by, name.service) or None for text, name in names.items()}
            own = tuple(("intentions", name.service.lower()) for name in names.values())
            topics: tuple[Topic, ...] = (("kind", KIND),) if by == "source" else (("intentions", "*"), *own)
            return Read(data, topics, state.last((("entries",),)), consistency=True, cached=True)

        return await read(request, self._consul.state, look)

    async def check(self, request: web.Request) -> web.Response:
        texts = [_one(request, name) for name in ("source", "destination")]
        if request.query.get("source-type", "consul") != "consul":
            raise Refused(500, "'source-type' parameter must be one of 'consul'")
        source, destination = parse_name(texts[0], "source"), parse_name(texts[1], "destination")
        source.demand_default("Invalid source namespace")
        destination.demand_default("Invalid destination namespace")
        request[AUTHORIZER].demand("service", "read", destination.service)
        settings = self._consul.settings
        default = not settings.acl or settings.default_policy != "deny"
        allowed = intentions.check(self._consul.state, source.service, destination.service, default=default)
        return answer({"Allowed": allowed}, request)

    async def exact(self, request: web.Request) -> web.Response:
        texts = [_one(request, name) for name in ("source", "destination")]
        source, destination = parse_name(texts[0], "source", peers=True), parse_name(texts[1], "destination")
        missing = [f"{side}Name is missing" for side, name in _sides(source, destination) if not name.service]
        for side, name in _sides(source, destination):
            name.demand_default(f"Invalid {side}NS")
        if missing:
            raise Refused(500, collected(missing))
        request[AUTHORIZER].demand("intention", "read", destination.service, bare=True)
        row = intentions.exact(self._consul.state, source, destination.service)
        if row is None:
            raise Refused(404, "Intention not found")
        return answer(row, request)

    async def put(self, request: web.Request) -> web.Response:
        source, destination = _names(request)
        raw = await body(request)
        if raw is None:
            hang_up(request)
        given = decode(raw, SHAPE)
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        if given.get("SourcePeer"):
            raise Refused(500, OF_PEER)
        held = self._consul.state.tables.entries.get(KIND, destination)
        if given.get("Meta") and (held is None or given["Meta"] != (held.get("Meta") or {})):
            more = ", or should be unchanged during an update." if held is not None else ""
            raise Refused(500, f"Meta must not be specified{more}")
        fields = {name: given[name] for name in ("Action", "Permissions", "Description", "JWT") if given.get(name)}
        if given.get("SourceSamenessGroup"):
            fields["SamenessGroup"] = given["SourceSamenessGroup"]
        self._upsert(destination, {"Name": source, "Type": given.get("SourceType") or "consul", **fields})
        return answer(True, request)

    def _upsert(self, destination: str, source: Json) -> None:
        """Put a source in the place of the one with its name, of whatever peer.

        What the old API kept of the others is gone then; but where it kept metadata the write is refused, as in Consul.
        """
        held = self._consul.state.tables.entries.get(KIND, destination)
        rows = [dict(row) for row in (held or {}).get("Sources") or ()]
        at = next((place for place, row in enumerate(rows) if row["Name"] == source["Name"]), len(rows))
        entry = held or {"Kind": KIND, "Name": destination}
        self._write(destination, {**entry, "Sources": [*rows[:at], source, *rows[at + 1 :]]})

    def _write(self, destination: str, entry: Json) -> None:
        tables = self._consul.state.tables
        try:
            normal = normalise_entry(entry)
        except EntryError as error:
            raise Refused(500, str(error)) from error
        self._config.apply(tables.entries.put(normal), KIND, destination)  # even an equal one, as in Consul

    async def delete(self, request: web.Request) -> web.Response:
        source, destination = _names(request)
        missing = [
            f"{side}Name is missing" for side, name in (("Source", source), ("Destination", destination)) if not name
        ]
        if missing:
            raise Refused(500, f"Intention lookup failed: {collected(missing)}")
        request[AUTHORIZER].demand("intention", "write", destination, bare=True)
        held = self._consul.state.tables.entries.get(KIND, destination)
        rows = list((held or {}).get("Sources") or ())
        left = [dict(row) for row in rows if row["Name"] != source or row.get("Peer")]
        if held is not None and len(left) < len(rows):
            if left:
                self._write(destination, {**held, "Sources": left})
            else:
                self._config.apply(self._consul.state.tables.entries.delete(KIND, destination), KIND, destination)
        return answer(True, request)


def _sides(source: Name, destination: Name) -> tuple[tuple[str, Name], tuple[str, Name]]:
    return ("Source", source), ("Destination", destination)


def _names(request: web.Request) -> tuple[str, str]:
    """Return the names of a write: their namespaces and partitions are not looked at."""
    sides = ("source", "destination")
    texts = [_one(request, side, filled=True) for side in sides]
    source, destination = (parse_name(text, side) for text, side in zip(texts, sides, strict=True))
    return source.service, destination.service


def _one(request: web.Request, name: str, *, filled: bool = False) -> str:
    values = request.query.getall(name, [])
    if len(values) != 1 or (filled and not values[0]):
        raise Refused(500, f"required query parameter '{name}' not set")
    return values[0]
