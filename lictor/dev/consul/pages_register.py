"""/v1/catalog/register and deregister: what another agent, or none, looks after.

Everything is looked at before anything is written, as in Consul, which writes all of a request or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lictor.dev.consul.catalog import NODE
from lictor.dev.consul.checks import type_of
from lictor.dev.consul.decoding import DURATION, decode
from lictor.dev.consul.definitions import collected, is_any_address, service_errors, wrong_meta, wrong_weights
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.service_rows import check_row, service_row
from lictor.dev.consul.shapes import NODE as FIELDS
from lictor.dev.consul.shapes import NODE_CHECK
from lictor.dev.consul.state import DATACENTER, Json
from lictor.dev.consul.web import answer, body
from policies.durations import format_duration

LENGTH_OF_UUID = 36
FIELDS_OF_CHECK = NODE_CHECK["Definition"]
_DEREGISTER = dict.fromkeys(("Datacenter", "Node", "ServiceID", "CheckID", "PeerName", "Token"), "string")


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    return [
        web.put("/v1/catalog/register", pages.register),
        web.put("/v1/catalog/deregister", pages.deregister),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._catalog = consul.catalog

    async def register(self, request: web.Request) -> web.Response:
        """Register a node, maybe with a service and checks."""
        given = decode(await body(request), FIELDS, tell_enterprise=True) or {}
        _check_node(given)
        node, service = str(given["Node"]), _service_of(given)
        checks = [check for check in (*(given.get("Checks") or ()), given.get("Check")) if check is not None]
        authorizer = request[AUTHORIZER]
        authorizer.demand("node", "write", node)
        if service is not None:
            authorizer.demand("service", "write", service["Service"])
        rows = [self._check_row(node, check, service) for check in checks]
        _check_rows(node, service, rows)
        if not given.get("SkipNodeUpdate") or self._catalog.node(node) is None:
            self._catalog.put_node(given)
        if service is not None:
            self._catalog.put_service(node, service_row(service))
        for row in rows:
            self._catalog.put_check(node, row)
        return answer(True, request)

    def _check_row(self, node: str, check: Mapping[str, Any], service: Json | None) -> Json:
        service_id, check_id = check.get("ServiceID") or "", check.get("CheckID") or check.get("Name") or ""
        if (check.get("Node") or node) != node:
            said = f"Node '{check['Node']}' for check '{check_id}' doesn't match register request node '{node}'"
            raise Refused(500, said)
        owner: Mapping[str, Any] | None = service if service is not None and service["ID"] == service_id else None
        if owner is None:
            owner = self._consul.state.tables.services.get((node.lower(), service_id))
        if service_id and owner is None:
            raise Refused(500, f"Unknown service ID '{service_id}' for check ID '{check_id}'")
        texts = {name: check.get(name) or "" for name in ("Name", "Notes", "Output", "Type", "Interval", "Timeout")}
        of_service = owner if service_id and owner is not None else {}
        definition = _told_definition(check.get("Definition") or {})
        texts["Type"] = texts["Type"] or type_of(definition)
        return check_row(
            node,
            check_id,
            **texts,
            Status=check.get("Status") or "critical",
            ServiceID=service_id,
            ServiceName=of_service.get("Service") or check.get("ServiceName") or "",
            ServiceTags=of_service.get("Tags") or check.get("ServiceTags") or [],
            Definition=definition,
        )

    async def deregister(self, request: web.Request) -> web.Response:
        """Forget a node, a service or a check."""
        given = decode(await body(request), _DEREGISTER, tell_enterprise=True) or {}
        if (given.get("Datacenter") or DATACENTER) != DATACENTER:
            raise Refused(500, "No path to datacenter")
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


def _told_definition(definition: Mapping[str, Any]) -> Json:
    """Return a check's definition as it is read back: durations in words, nothing empty."""
    return {
        name: format_duration(round(value * 1e9)) if FIELDS_OF_CHECK[name] == DURATION else value
        for name, value in definition.items()
        if value
    }


def _check_node(given: Mapping[str, Any]) -> None:
    if (given.get("Datacenter") or DATACENTER) != DATACENTER:
        raise Refused(500, "No path to datacenter")
    if not given.get("Node"):
        raise Refused(500, "Must provide node")
    if given.get("ID") and len(given["ID"]) != LENGTH_OF_UUID:
        raise Refused(500, "Bad node ID: uuid string is wrong length")
    if not given.get("Address") and not given.get("SkipNodeUpdate"):
        raise Refused(500, "Must provide address if SkipNodeUpdate is not set")
    if given.get("PeerName"):
        raise Refused(500, "cannot register requests with PeerName in them")


def _service_of(given: Mapping[str, Any]) -> Json | None:
    """Return the service of a request with its ID. Raise Refused for one that cannot be."""
    service = given.get("Service")
    if service is None:
        return None
    name = service.get("Service") or ""
    if not name and service.get("ID"):
        raise Refused(500, "Must provide service name (Service.Service) when service ID is provided")
    errors = service_errors(service, typed=False)
    if errors:
        raise Refused(500, collected(errors))
    if is_any_address(service.get("Address") or ""):
        raise Refused(500, "Invalid service address")
    weights = service.get("Weights")
    if weights is not None and wrong_weights(weights):
        service = {**service, "Weights": None}  # those that an agent would refuse count for nothing here
    return {**service, "Service": name, "ID": service.get("ID") or name}


def _check_rows(node: str, service: Json | None, checks: list[Json]) -> None:
    """Refuse what cannot be stored."""
    wrong = wrong_meta(service.get("Meta") or {}) if service is not None else ""
    if service is not None and wrong:
        what = f"Invalid Service Meta for node {node} and serviceID {service['ID']}"
        raise Refused(500, f"failed inserting service: {what}: {wrong}")
    if any(not check["CheckID"] for check in checks):
        said = "failed health check lookup: index error: object is missing a value for this index"
        raise Refused(500, f'failed inserting check on node "{node}": {said}')
