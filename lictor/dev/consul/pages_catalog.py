"""/v1/catalog and /v1/health: who is where, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from lictor.dev.consul.acl import Authorizer
from lictor.dev.consul.catalog import NODE
from lictor.dev.consul.central import merged_proxy
from lictor.dev.consul.filtering import CATALOG, CHECK, SERVICE, filtered
from lictor.dev.consul.filtering import NODE as NODE_SHAPE
from lictor.dev.consul.gateways import exposing, exposure_topics, gateway_services, gateway_topics
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.service_rows import catalog_row
from lictor.dev.consul.state import DATACENTER, Json, Topic
from lictor.dev.consul.web import Read, answer, check_datacenter, flag, read, visible

STATES = ("any", "passing", "warning", "critical", "maintenance")
Row = tuple[str, Json]
Item = TypeVar("Item")


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    found: dict[str, Callable[[web.Request], Any]] = {
        "catalog/datacenters": pages.datacenters,
        "catalog/nodes": pages.nodes,
        "catalog/services": pages.services,
        "catalog/service/{name:.*}": pages.service,
        "catalog/connect/{name:.*}": pages.connect,
        "catalog/node/{name:.*}": pages.node,
        "catalog/node-services/{name:.*}": pages.node_services,
        "catalog/gateway-services/{name:.*}": pages.gateway_services,
        "health/node/{name:.*}": pages.health_node,
        "health/checks/{name:.*}": pages.health_checks,
        "health/state/{name:.*}": pages.health_state,
        "health/service/{name:.*}": pages.health_service,
        "health/connect/{name:.*}": pages.health_connect,
        "health/ingress/{name:.*}": pages.health_ingress,
    }
    return [web.get(f"/v1/{path}", page, allow_head=False) for path, page in found.items()]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._catalog = consul.catalog

    # --- nodes and names ---

    async def datacenters(self, request: web.Request) -> web.Response:
        response = answer([DATACENTER], request)
        if "cached" in request.query:
            response.headers.update({"X-Cache": "HIT", "Age": "0"})
        return response

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = [row for row in self._catalog.nodes() if _has_meta(row["Meta"], request)]
            seen, hidden = visible(rows, lambda row: allowed("node", "read", row["Node"]))
            index = self._last(("nodes",))
            data = filtered(request, _near(request, seen, lambda row: row), NODE_SHAPE, indexed=True)
            return Read(data, (("nodes",),), index, _tell(request, hidden), consistency=True)

        return await self._read(request, look)

    async def services(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            names: dict[str, set[str]] = {}
            seen: list[Row] = []
            hidden = False
            for (node, _), row in self._consul.state.tables.services.items():
                if not _has_meta((self._catalog.node(node) or {}).get("Meta"), request):
                    continue
                name = (self._catalog.node(node) or {}).get("Node", node)
                if not allowed("node", "read", name) or not allowed("service", "read", row["Service"]):
                    hidden = True
                    continue
                seen.append((node, row))
            if request.query.get("filter"):
                told = [(catalog_row(self._catalog.node(node) or {}, row), row) for node, row in seen]
                kept = filtered(request, [one for one, _ in told], CATALOG, indexed=True)
                identities = {id(one) for one in kept}
                seen = [("", row) for one, row in told if id(one) in identities]
            for _, row in seen:
                names.setdefault(row["Service"], set()).update(row["Tags"])
            data = {name: sorted(tags) for name, tags in sorted(names.items())}
            index = self._last(("services",))
            return Read(data, (("services",),), index, _tell(request, hidden), consistency=True, cached=True)

        return await self._read(request, look)

    async def service(self, request: web.Request) -> web.StreamResponse:
        return await self._catalog_rows(request, "service", self._catalog.named)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        return await self._catalog_rows(request, "connect", self._catalog.in_mesh)

    async def _catalog_rows(
        self, request: web.Request, topic: str, find: Callable[[str], list[Row]]
    ) -> web.StreamResponse:
        name = _name(request, "Missing service name")

        def look() -> Read:
            found = [pair for pair in find(name) if topic == "connect" or _tagged(pair[1], request)]
            rows, hidden = self._seen(request, [pair for pair in found if self._on_such_node(pair, request)])
            rows = _near(request, rows, lambda pair: self._catalog.node(pair[0]) or {})
            told = [catalog_row(self._catalog.node(node) or {}, self._merged(request, row)) for node, row in rows]
            topics: tuple[Topic, ...] = ((topic, name.lower()),)
            data = filtered(request, told, CATALOG, indexed=True)
            return Read(data, topics, self._index(topics), _tell(request, hidden), consistency=True, cached=True)

        return await self._read(request, look)

    async def node(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            found = self._of_node(request)
            if found is None:
                return self._node_read(request, None)
            node, rows = found
            return self._node_read(request, {"Node": node, "Services": {row["ID"]: row for row in rows}})

        return await self._read(request, look)

    async def node_services(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            found = self._of_node(request)
            node, rows = found or (None, None)
            return self._node_read(request, {"Node": node, "Services": rows})

        return await self._read(request, look)

    def _of_node(self, request: web.Request) -> tuple[Json, list[Json]] | None:
        name = _name(request, "Missing node name")
        node, allowed = self._catalog.node(name), request[AUTHORIZER].allows
        if node is None or not allowed("node", "read", node["Node"]):
            return None
        rows = [row for row in self._catalog.services_of(name) if allowed("service", "read", row["Service"])]
        return node, filtered(request, rows, SERVICE, indexed=True)

    def _node_read(self, request: web.Request, data: Any) -> Read:
        topics: tuple[Topic, ...] = (("node", request.match_info["name"].lower()),)
        return Read(data, topics, self._last(*topics), consistency=True)

    async def gateway_services(self, request: web.Request) -> web.StreamResponse:
        name = _name(request, "Missing gateway name")
        request[AUTHORIZER].demand("service", "read", name, indexed=True)

        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = gateway_services(self._consul.state, name)
            seen, hidden = visible(rows, lambda row: allowed("service", "read", row["Service"]["Name"]))
            topics = gateway_topics(self._consul.state, name)
            return Read(seen, topics, self._last(*topics), _tell(request, hidden), consistency=True)

        return await self._read(request, look)

    # --- health ---

    async def health_service(self, request: web.Request) -> web.StreamResponse:
        return await self._health_rows(request, "service", self._catalog.named)

    async def health_connect(self, request: web.Request) -> web.StreamResponse:
        return await self._health_rows(request, "connect", self._catalog.in_mesh, demand=True)

    async def health_ingress(self, request: web.Request) -> web.StreamResponse:
        def find(name: str) -> list[Row]:
            return [row for gateway in exposing(self._consul.state, name) for row in self._catalog.named(gateway)]

        return await self._health_rows(request, "gateways", find, demand=True)

    async def _health_rows(
        self, request: web.Request, topic: str, find: Callable[[str], list[Row]], *, demand: bool = False
    ) -> web.StreamResponse:
        name = _name(request, "Missing service name")
        passing = _passing(request)
        if request.query.get("sg"):
            raise Refused(500, "sameness groups are not supported in consul CE")
        if demand:
            request[AUTHORIZER].demand("service", "read", name, bare=True)

        def look() -> Read:
            found = self._instances(request, topic, name, find)
            rows, hidden = self._seen(request, [pair for pair in found if self._on_such_node(pair, request)])
            rows = _near(request, rows, lambda pair: self._catalog.node(pair[0]) or {})
            told = [self._catalog.health_row(node, self._merged(request, row)) for node, row in rows]
            if passing:
                told = _passing_of(told)
            topics: tuple[Topic, ...] = ((topic, name.lower()),)
            if topic == "gateways":
                topics = exposure_topics(self._consul.state, name)
            data = filtered(request, told)
            streamed = topic != "gateways" and _streamed(request)
            return Read(
                data,
                topics,
                self._index(topics) if topic != "gateways" else self._last(*topics),
                _tell(request, hidden),
                consistency=True,
                cached=True,
                streamed=streamed,
            )

        return await self._read(request, look, indexed=False)

    def _instances(self, request: web.Request, topic: str, name: str, find: Callable[[str], list[Row]]) -> list[Row]:
        """Return the rows of a health query. A tag makes Consul ask for the service itself where it asks a gateway."""
        if request.query.get("peer"):
            return []
        if topic == "connect" or "tag" not in request.query:
            return find(name)
        return [pair for pair in self._catalog.named(name) if _tagged(pair[1], request)]

    def _on_such_node(self, pair: Row, request: web.Request) -> bool:
        return _has_meta((self._catalog.node(pair[0]) or {}).get("Meta"), request)

    async def health_node(self, request: web.Request) -> web.StreamResponse:
        name = _name(request, "Missing node name")
        return await self._checks(request, lambda: self._catalog.checks_on(name), ("node checks", name.lower()))

    async def health_checks(self, request: web.Request) -> web.StreamResponse:
        name = _name(request, "Missing service name")
        return await self._checks(
            request, lambda: self._catalog.checks_named(name), ("checks", name.lower()), meta=True
        )

    async def health_state(self, request: web.Request) -> web.StreamResponse:
        state = _name(request, "Missing check state").lower()

        def find() -> list[Json]:
            return [row for row in self._catalog.checks() if state in {"any", row["Status"]}]

        return await self._checks(request, find, ("checks",), meta=True)

    async def _checks(
        self, request: web.Request, find: Callable[[], list[Json]], topic: Topic, *, meta: bool = False
    ) -> web.StreamResponse:
        def look() -> Read:
            rows = find()
            if meta:
                rows = [row for row in rows if _has_meta((self._catalog.node(row["Node"]) or {}).get("Meta"), request)]
            seen, hidden = visible(rows, lambda row: _may_see_check(request[AUTHORIZER], row))
            index = self._consul.state.last((topic,), self._last(("checks",)))
            data = filtered(request, seen, CHECK, indexed=True)
            return Read(data, (topic,), index, _tell(request, hidden), consistency=True)

        return await self._read(request, look)

    # --- how ---

    async def _read(
        self, request: web.Request, look: Callable[[], Read], *, indexed: bool = True
    ) -> web.StreamResponse:
        check_datacenter(request, indexed=indexed)
        return await read(request, self._consul.state, look)

    def _seen(self, request: web.Request, rows: Iterable[Row]) -> tuple[list[Row], bool]:
        allowed = request[AUTHORIZER].allows

        def may_see(pair: Row) -> bool:
            node, row = pair
            name = (row.get("Proxy") or {}).get("DestinationServiceName") or row["Service"]
            return (
                allowed("node", "read", (self._catalog.node(node) or {}).get("Node", node))
                and allowed("service", "read", row["Service"])
                and allowed("service", "read", name)
            )

        return visible(rows, may_see)

    def _merged(self, request: web.Request, row: Json) -> Json:
        if "merge-central-config" not in request.query or not row.get("Kind"):
            return row
        merged = merged_proxy(self._consul.state.tables.entries, row, row["Proxy"])
        return {**row, "Proxy": {**row["Proxy"], **merged}}

    def _last(self, *topics: Topic) -> int:
        return self._consul.state.last(topics)

    def _index(self, topics: tuple[Topic, ...]) -> int:
        return self._consul.state.last(topics, self._last(("extinct",), ("nodes",)))


def _passing_of(rows: list[Json]) -> list[Json]:
    """Return the rows whose checks all pass, in Consul's order: the last takes the place of one that is left out."""
    left, at = list(rows), 0
    while at < len(left):
        if all(check["Status"] == "passing" for check in left[at]["Checks"]):
            at += 1
        else:
            left[at] = left[-1]
            left.pop()
    return left


def _streamed(request: web.Request) -> bool:
    """Return whether Consul answers from its stream of events, whose answers say less of the leader."""
    query = request.query
    asked = "cached" in query or query.get("index", "0") not in {"", "0"}
    return asked and "near" not in query and "merge-central-config" not in query


def _near(request: web.Request, rows: list[Item], node: Callable[[Item], Mapping[str, Any]]) -> list[Item]:
    """Return rows by their distance from a node: this agent's own come first, of others none is known."""
    if request.query.get("near", "").lower() not in {"_agent", NODE}:
        return rows
    return sorted(rows, key=lambda row: str(node(row).get("Node")).lower() != NODE)


def _name(request: web.Request, missing: str) -> str:
    name = request.match_info["name"]
    if not name:
        raise Refused(400, missing)
    return name


def _passing(request: web.Request) -> bool:
    if "passing" not in request.query:
        return False
    try:
        return flag(request, "passing")
    except Refused as error:
        raise Refused(400, "Invalid value for ?passing") from error


def _tagged(row: Mapping[str, Any], request: web.Request) -> bool:
    tags = {tag.lower() for tag in row["Tags"]}
    return all(tag.lower() in tags for tag in request.query.getall("tag", []))


def _has_meta(meta: Mapping[str, str] | None, request: web.Request) -> bool:
    for pair in request.query.getall("node-meta", []):
        key, _, value = pair.partition(":")
        if (meta or {}).get(key) != value:
            return False
    return True


def _may_see_check(authorizer: Authorizer, row: Mapping[str, Any]) -> bool:
    if not authorizer.allows("node", "read", row["Node"]):
        return False
    return not row["ServiceName"] or authorizer.allows("service", "read", row["ServiceName"])


def _tell(request: web.Request, hidden: bool) -> bool:  # noqa: FBT001
    """Return whether to tell that rows are hidden: an anonymous caller is not told."""
    return hidden and bool(request[AUTHORIZER].accessor)
