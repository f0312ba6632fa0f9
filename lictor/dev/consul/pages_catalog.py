"""/v1/catalog and /v1/health: who is where, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from lictor.dev.consul.acl import Authorizer
from lictor.dev.consul.catalog import DATACENTER, NODE, catalog_row, check_row, service_row
from lictor.dev.consul.central import merged_proxy
from lictor.dev.consul.definitions import NODE_SERVICE, check_meta, collected, decode, is_any_address, service_errors
from lictor.dev.consul.filtering import CATALOG, CHECK, SERVICE, filtered
from lictor.dev.consul.filtering import NODE as NODE_SHAPE
from lictor.dev.consul.gateways import exposing, gateway_services
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.state import Json, Topic
from lictor.dev.consul.web import Read, Refused, answer, body, flag, read, visible

STATES = ("any", "passing", "warning", "critical", "maintenance")
_REGISTER = {
    "Datacenter": "string",
    "ID": "string",
    "Node": "string",
    "Address": "string",
    "TaggedAddresses": {"": "string"},
    "NodeMeta": {"": "string"},
    "Service": NODE_SERVICE,
    "Check": "any",
    "Checks": "any",
    "SkipNodeUpdate": "bool",
    "Locality": "any",
    "PeerName": "string",
    "Token": "string",
}
_DEREGISTER = dict.fromkeys(("Datacenter", "Node", "ServiceID", "CheckID", "PeerName", "Token"), "string")
Row = tuple[str, Json]


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
    return [
        *(web.get(f"/v1/{path}", page, allow_head=False) for path, page in found.items()),
        web.put("/v1/catalog/register", pages.register),
        web.put("/v1/catalog/deregister", pages.deregister),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._catalog = consul.catalog

    # --- nodes and names ---

    async def datacenters(self, request: web.Request) -> web.Response:
        return answer([DATACENTER], request)

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            rows = [row for row in self._catalog.nodes() if _has_meta(row["Meta"], request)]
            seen, hidden = visible(rows, lambda row: allowed("node", "read", row["Node"]))
            index = self._last(("nodes",))
            return Read(
                filtered(request, seen, NODE_SHAPE), (("nodes",),), index, _tell(request, hidden), consistency=True
            )

        return await self._read(request, look)

    async def services(self, request: web.Request) -> web.StreamResponse:
        def look() -> Read:
            allowed = request[AUTHORIZER].allows
            names: dict[str, set[str]] = {}
            hidden = False
            for (node, _), row in self._consul.state.tables.services.items():
                if not _has_meta((self._catalog.node(node) or {}).get("Meta"), request):
                    continue
                name = (self._catalog.node(node) or {}).get("Node", node)
                if not allowed("node", "read", name) or not allowed("service", "read", row["Service"]):
                    hidden = True
                    continue
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
            rows, hidden = self._seen(request, find(name))
            told = [catalog_row(self._catalog.node(node) or {}, self._merged(request, row)) for node, row in rows]
            topics: tuple[Topic, ...] = ((topic, name.lower()),)
            data = filtered(request, told, CATALOG)
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
        return node, filtered(request, rows, SERVICE)

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
            topics: tuple[Topic, ...] = (("gateways",),)
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
            found = [] if request.query.get("peer") else find(name)
            rows, hidden = self._seen(request, [pair for pair in found if _tagged(pair[1], request)])
            told = [self._catalog.health_row(node, self._merged(request, row)) for node, row in rows]
            told = [row for row in told if _has_meta(row["Node"]["Meta"], request)]
            if passing:
                told = [row for row in told if all(check["Status"] == "passing" for check in row["Checks"])]
            topics: tuple[Topic, ...] = ((topic, name.lower()),) if topic != "gateways" else (("gateways",),)
            data = filtered(request, told)
            return Read(data, topics, self._index(topics), _tell(request, hidden), consistency=True, cached=True)

        return await self._read(request, look)

    async def health_node(self, request: web.Request) -> web.StreamResponse:
        name = _name(request, "Missing node name")
        return await self._checks(request, lambda row: row["Node"].lower() == name.lower(), ("node", name.lower()))

    async def health_checks(self, request: web.Request) -> web.StreamResponse:
        name = _name(request, "Missing service name")
        return await self._checks(
            request, lambda row: row["ServiceName"].lower() == name.lower(), ("checks", name.lower()), meta=True
        )

    async def health_state(self, request: web.Request) -> web.StreamResponse:
        state = _name(request, "Missing check state")
        return await self._checks(request, lambda row: state in {"any", row["Status"]}, ("checks",), meta=True)

    async def _checks(
        self, request: web.Request, wanted: Callable[[Json], bool], topic: Topic, *, meta: bool = False
    ) -> web.StreamResponse:
        def look() -> Read:
            rows = [row for row in self._catalog.checks() if wanted(row)]
            if meta:
                rows = [row for row in rows if _has_meta((self._catalog.node(row["Node"]) or {}).get("Meta"), request)]
            seen, hidden = visible(rows, lambda row: _may_see_check(request[AUTHORIZER], row))
            topics = (topic, ("checks",)) if topic[0] == "node" else (topic,)
            index = self._last(*topics)
            return Read(filtered(request, seen, CHECK), topics, index, _tell(request, hidden), consistency=True)

        return await self._read(request, look)

    # --- writes ---

    async def register(self, request: web.Request) -> web.Response:
        """Register what another agent, or none, looks after."""
        given = decode(await body(request), _REGISTER, snake=False)
        if not given.get("Node"):
            raise Refused(500, "Must provide node")
        if not given.get("Address") and not given.get("SkipNodeUpdate"):
            raise Refused(500, "Must provide address if SkipNodeUpdate is not set")
        service = given.get("Service")
        if service is not None:
            self._check_service(service)
        check_meta(given.get("NodeMeta") or {}, "Node")
        authorizer = request[AUTHORIZER]
        authorizer.demand("node", "write", given["Node"])
        if service is not None:
            authorizer.demand("service", "write", service.get("Service") or "")
        if not given.get("SkipNodeUpdate") or self._catalog.node(given["Node"]) is None:
            self._catalog.put_node(given)
        if service is not None:
            self._catalog.put_service(
                given["Node"], service_row({**service, "ID": service.get("ID") or service["Service"]})
            )
        for check in (given.get("Check"), *(given.get("Checks") or ())):
            if check:
                self._put_check(given["Node"], check)
        return answer(True, request)

    @staticmethod
    def _check_service(service: Json) -> None:
        service.setdefault("Service", "")
        if not service["Service"] and service.get("ID"):
            raise Refused(500, "Must provide service name (Service.Service) with ID")
        if is_any_address(service.get("Address") or ""):
            raise Refused(500, "Invalid service address")
        errors = service_errors(service)
        if errors:
            raise Refused(500, collected(errors))

    def _put_check(self, node: str, check: Mapping[str, Any]) -> None:
        folded = {key.lower(): value for key, value in check.items()}
        service_id = str(folded.get("serviceid") or "")
        service = next((row for row in self._catalog.services_of(node) if row["ID"] == service_id), None)
        if service_id and service is None:
            raise Refused(500, f'failed inserting check: Missing service registration: service ID "{service_id}"')
        row = check_row(
            str(folded.get("node") or node),
            str(folded.get("checkid") or folded.get("name") or ""),
            Name=str(folded.get("name") or ""),
            Status=str(folded.get("status") or "critical"),
            Notes=str(folded.get("notes") or ""),
            Output=str(folded.get("output") or ""),
            ServiceID=service_id,
            ServiceName=service["Service"] if service else str(folded.get("servicename") or ""),
            ServiceTags=service["Tags"] if service else [],
            Type=str(folded.get("type") or ""),
            Definition=folded.get("definition") or {},
        )
        self._catalog.put_check(node, row)

    async def deregister(self, request: web.Request) -> web.Response:
        """Forget a node, a service or a check."""
        given = decode(await body(request), _DEREGISTER, snake=False)
        node = given.get("Node")
        if not node:
            raise Refused(500, "Must provide node")
        self._may_forget(request, given)
        if given.get("ServiceID"):
            self._catalog.drop_service(node, given["ServiceID"])
        elif given.get("CheckID"):
            self._catalog.drop_check(node, given["CheckID"])
        elif node.lower() != NODE:
            self._catalog.drop_node(node)
        return answer(True, request)

    def _may_forget(self, request: web.Request, given: Mapping[str, Any]) -> None:
        authorizer = request[AUTHORIZER]
        if authorizer.allows("node", "write", given["Node"]):
            return
        rows = self._catalog.services_of(given["Node"])
        service = next((row for row in rows if row["ID"] == given.get("ServiceID")), None)
        if service is not None:
            authorizer.demand("service", "write", service["Service"])
        else:
            authorizer.demand("node", "write", given["Node"])

    # --- how ---

    async def _read(self, request: web.Request, look: Callable[[], Read]) -> web.StreamResponse:
        _check_datacenter(request)
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


def _check_datacenter(request: web.Request) -> None:
    if request.query.get("dc", DATACENTER) not in {"", DATACENTER}:
        raise Refused(500, "No path to datacenter", indexed=True)


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
