"""/v1/agent: services, checks, maintenance, the agent itself; and /v1/status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lictor.dev.consul.catalog import ADDRESS, NODE, VERSION
from lictor.dev.consul.decoding import decode
from lictor.dev.consul.definitions import (
    SCRIPTS_DISABLED,
    STATES,
    check_error,
    check_meta,
    check_runs,
    check_types,
    check_weights,
    collected,
    is_any_address,
    service_errors,
)
from lictor.dev.consul.filtering import CHECK, filtered
from lictor.dev.consul.filtering import SERVICE as SERVICE_SHAPE
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.server import AUTHORIZER, Consul
from lictor.dev.consul.shapes import CHECK_ALONE, SERVICE
from lictor.dev.consul.state import DATACENTER
from lictor.dev.consul.web import answer, blocking_parameters, body, check_datacenter

RPC_PORT = 8300
_WITHOUT_DEFINITION = {
    "Interval": "0s",
    "Timeout": "0s",
    "DeregisterCriticalServiceAfter": "0s",
    "HTTP": "",
    "Header": None,
    "Method": "",
    "Body": "",
    "TLSServerName": "",
    "TLSSkipVerify": False,
    "TCP": "",
    "TCPUseTLS": False,
    "UDP": "",
    "GRPC": "",
    "OSService": "",
    "GRPCUseTLS": False,
}


def routes(consul: Consul) -> list[web.RouteDef]:
    """Return the routes of this module."""
    pages = Pages(consul)
    return [
        web.get("/v1/agent/self", pages.self_, allow_head=False),
        web.get("/v1/agent/version", pages.version, allow_head=False),
        web.get("/v1/agent/members", pages.members, allow_head=False),
        web.get("/v1/agent/services", pages.services, allow_head=False),
        web.get("/v1/agent/service/{id:(?!(?:register$|deregister/|maintenance/)).*}", pages.service, allow_head=False),
        web.put("/v1/agent/service/register", pages.register),
        web.put("/v1/agent/service/deregister/{id:.*}", pages.deregister),
        web.put("/v1/agent/service/maintenance/{id:.*}", pages.maintenance),
        web.put("/v1/agent/maintenance", pages.node_maintenance),
        web.get("/v1/agent/checks", pages.checks, allow_head=False),
        web.put("/v1/agent/check/register", pages.register_check),
        web.put("/v1/agent/check/deregister/{id:.*}", pages.deregister_check),
        web.put("/v1/agent/check/{word:pass|warn|fail}/{id:.*}", pages.heartbeat),
        web.put("/v1/agent/check/update/{id:.*}", pages.update),
        web.get("/v1/agent/health/service/id/{id:.*}", pages.health_by_id, allow_head=False),
        web.get("/v1/agent/health/service/name/{name:.*}", pages.health_by_name, allow_head=False),
        web.get("/v1/status/leader", pages.leader, allow_head=False),
        web.get("/v1/status/peers", pages.peers, allow_head=False),
    ]


class Pages:
    """The handlers."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._agent = consul.agent

    # --- the agent itself ---

    async def self_(self, request: web.Request) -> web.Response:
        request[AUTHORIZER].demand("agent", "read", NODE)
        settings = self._consul.settings
        node = self._consul.catalog.node(NODE) or {}
        config = {
            "Datacenter": DATACENTER,
            "PrimaryDatacenter": DATACENTER,
            "NodeName": NODE,
            "NodeID": node.get("ID", ""),
            "Revision": "",
            "Server": True,
            "Version": VERSION,
            "BuildDate": "1970-01-01T00:00:01Z",
        }
        debug = {
            "ACLsEnabled": settings.acl,
            "ACLResolverSettings": {"ACLDefaultPolicy": settings.default_policy, "ACLsEnabled": settings.acl},
            "DefaultIntentionPolicy": settings.default_intention_policy,
            "ConnectEnabled": True,
            "DevMode": True,
        }
        xds = {"SupportedProxies": {}, "Port": -1, "Ports": {"Plaintext": -1, "TLS": -1}}
        member = self._member()
        page = {"Config": config, "DebugConfig": debug, "Coord": None, "Member": member, "Stats": {}, "Meta": {}}
        return answer({**page, "xDS": xds}, request)

    async def version(self, request: web.Request) -> web.Response:
        page = {"SHA": "", "BuildDate": "1970-01-01T00:00:01Z", "HumanVersion": VERSION, "FIPS": ""}
        return answer(page, request)

    def _member(self) -> dict[str, Any]:
        tags = {"acls": "1" if self._consul.settings.acl else "0", "bootstrap": "1", "build": f"{VERSION}:"}
        tags |= {"dc": DATACENTER, "role": "consul", "port": str(RPC_PORT), "segment": "", "vsn": "2"}
        numbers = {"ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2, "DelegateMin": 2, "DelegateMax": 5}
        return {
            "Name": NODE, "Addr": ADDRESS, "Port": 8301, "Tags": tags, "Status": 1, **numbers, "DelegateCur": 4,
        }  # fmt: skip

    async def members(self, request: web.Request) -> web.Response:
        seen = request[AUTHORIZER].allows("node", "read", NODE)
        return answer([self._member()] if seen else [], request)

    async def leader(self, request: web.Request) -> web.Response:
        check_datacenter(request, indexed=False)
        return answer("" if self._consul.state.leaderless else f"{ADDRESS}:{RPC_PORT}", request)

    async def peers(self, request: web.Request) -> web.Response:
        check_datacenter(request, indexed=False)
        return answer([f"{ADDRESS}:{RPC_PORT}"], request)

    # --- services ---

    async def services(self, request: web.Request) -> web.Response:
        allowed = request[AUTHORIZER].allows
        rows = {
            name: self._agent.told(service)
            for name, service in sorted(self._agent.services.items())
            if allowed("service", "read", service["Service"])
        }
        keep = {row["ID"] for row in filtered(request, list(rows.values()), SERVICE_SHAPE)}
        return answer({name: row for name, row in rows.items() if name in keep}, request)

    async def service(self, request: web.Request) -> web.Response:
        """Return a service; with `?hash=` wait until it is another."""
        name, seen = request.match_info["id"], request.query.get("hash", "")
        _, seconds = blocking_parameters(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            held = self._agent.services.get(name)
            if held is None:
                raise Refused(404, f"unknown service ID: {name}")
            request[AUTHORIZER].demand("service", "read", held["Service"])
            row = self._agent.hashed(held)
            left = deadline - loop.time()
            if not seen or row["ContentHash"] != seen or left <= 0:
                response = answer(row, request)
                response.headers["X-Consul-Contenthash"] = row["ContentHash"]
                return response
            defaults = [("entry", "service-defaults", held["Service"].lower()), ("entry", "proxy-defaults", "global")]
            proxy = held.get("Proxy") or {}
            names = [
                proxy.get("DestinationServiceName", ""),
                *(up.get("DestinationName", "") for up in proxy.get("Upstreams") or ()),
            ]
            defaults += [("entry", "service-defaults", str(one).lower()) for one in names]
            await self._consul.state.changed([("agent service", name), *defaults], left)

    async def register(self, request: web.Request) -> web.Response:
        definition = decode(await body(request), SERVICE)
        if not isinstance(definition, dict) or not definition.get("Name"):
            raise Refused(400, "Missing service name")
        if is_any_address(definition.get("Address") or ""):
            raise Refused(400, "Invalid service address")
        if definition.get("Weights") is not None:
            check_weights(definition["Weights"])
        check_meta(definition.get("Meta") or {}, "Service")
        errors = service_errors(definition)
        if errors:
            raise Refused(400, f"Validation failed: {collected(errors)}")
        checks = check_types(definition)
        sidecar = (definition.get("Connect") or {}).get("SidecarService")
        if sidecar is not None:
            _sidecar_checks(sidecar)
        self._may_write(request, definition)
        replace = request.query.get("replace-existing-checks") in {"", "true"}
        self._agent.register(definition, checks, replace_checks=replace)
        return answer(None)

    @staticmethod
    def _may_write(request: web.Request, definition: Mapping[str, Any]) -> None:
        names = [definition.get("Name") or definition.get("Service")]
        proxy = definition.get("Proxy") or {}
        if definition.get("Kind") == "connect-proxy":
            names.append(proxy.get("DestinationServiceName"))
        if (definition.get("Connect") or {}).get("SidecarService") is not None:
            sidecar = definition["Connect"]["SidecarService"]
            names.append(sidecar.get("Name") or f"{definition['Name']}-sidecar-proxy")
        for name in names:
            request[AUTHORIZER].demand("service", "write", str(name or ""))

    async def deregister(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        held = self._agent.services.get(name)
        if held is not None:
            request[AUTHORIZER].demand("service", "write", held["Service"])
        self._agent.deregister(name)
        return answer(None)

    async def maintenance(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if not name:
            raise Refused(400, "Missing service ID")
        enable = _enable(request)
        held = self._agent.known(name)
        request[AUTHORIZER].demand("service", "write", held["Service"])
        self._agent.maintenance(name, enable=enable, reason=request.query.get("reason", ""))
        return answer(None)

    async def node_maintenance(self, request: web.Request) -> web.Response:
        enable = _enable(request)
        request[AUTHORIZER].demand("node", "write", NODE)
        self._agent.node_maintenance(enable=enable, reason=request.query.get("reason", ""))
        return answer(None)

    # --- checks ---

    async def checks(self, request: web.Request) -> web.Response:
        allowed = request[AUTHORIZER].allows
        rows = [
            {**check.row, "CreateIndex": 0, "ModifyIndex": 0}
            for _, check in sorted(self._agent.checks.items())
            if (
                allowed("service", "read", check.row["ServiceName"])
                if check.row["ServiceID"]
                else allowed("node", "read", NODE)
            )
        ]
        return answer({row["CheckID"]: row for row in filtered(request, rows, CHECK, bare=True)}, request)

    async def register_check(self, request: web.Request) -> web.Response:
        given = decode(await body(request), CHECK_ALONE)
        if not isinstance(given, dict) or not given.get("Name"):
            raise Refused(400, "Missing check name")
        if given.get("Status") and given["Status"] not in STATES:
            raise Refused(400, "Bad check status")
        if wrong := check_error(given):
            raise Refused(400, f"Invalid check: {wrong}")
        service = None
        if given.get("ServiceID"):
            service = self._agent.services.get(given["ServiceID"])
            if service is None:
                raise Refused(404, f'ServiceID "{given["ServiceID"]}" does not exist')
            request[AUTHORIZER].demand("service", "write", service["Service"])
        else:
            request[AUTHORIZER].demand("node", "write", NODE)
        check_runs(given)
        self._agent.checks.add(given.get("ID") or given["Name"], given, service, alone=True)
        return answer(None)

    async def deregister_check(self, request: web.Request) -> web.Response:
        check_id = request.match_info["id"]
        self._known_check(request, check_id)
        self._agent.checks.drop(check_id)
        return answer(None)

    async def heartbeat(self, request: web.Request) -> web.Response:
        status = {"pass": "passing", "warn": "warning", "fail": "critical"}[request.match_info["word"]]
        self._known_check(request, request.match_info["id"])
        self._agent.checks.update_ttl(request.match_info["id"], status, request.query.get("note", ""))
        return answer(None)

    async def update(self, request: web.Request) -> web.Response:
        given = await body(request)
        given = {key.lower(): value for key, value in given.items()} if isinstance(given, dict) else {}
        status = given.get("status")
        if status not in STATES:
            raise Refused(400, f"Invalid check status: '{status or ''}'")
        self._known_check(request, request.match_info["id"])
        self._agent.checks.update_ttl(request.match_info["id"], status, str(given.get("output") or ""))
        return answer(None)

    def _known_check(self, request: web.Request, check_id: str) -> None:
        check = self._agent.checks.get(check_id)
        if check is None:
            raise Refused(
                404, f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.'
            )
        if check.row["ServiceID"]:
            request[AUTHORIZER].demand("service", "write", check.row["ServiceName"])
        else:
            request[AUTHORIZER].demand("node", "write", NODE)

    # --- health by status ---

    async def health_by_id(self, request: web.Request) -> web.Response:
        held = self._agent.services.get(request.match_info["id"])
        if held is None:
            name = request.match_info["id"]
            page = {"AggregatedStatus": "critical", "Service": None, "Checks": None}
            return _health_answer(request, f"ServiceId {name} not found", page, 404)
        request[AUTHORIZER].demand("service", "read", held["Service"])
        status, page = self._health_page(held)
        return _health_answer(request, status, page, _CODES[status])

    async def health_by_name(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        request[AUTHORIZER].demand("service", "read", name)
        found = [self._health_page(held) for held in self._agent.services.values() if held["Service"] == name]
        if not found:
            return _health_answer(request, f"ServiceName {name} Not Found", [], 404)
        worst = max((status for status, _ in found), key=list(_CODES).index)
        return _health_answer(request, worst, [page for _, page in found], _CODES[worst])

    def _health_page(self, held: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        status, rows = self._agent.health(held["ID"])
        checks = [
            {
                **{key: value for key, value in row.items() if key not in {"Interval", "Timeout"}},
                "ServiceTags": self._agent.checks[row["CheckID"]].tags,
                "Type": "",
                "Definition": _WITHOUT_DEFINITION,
                "CreateIndex": 0,
                "ModifyIndex": 0,
            }
            for row in rows
        ]
        page = {"AggregatedStatus": status, "Service": self._agent.told(held), "Checks": checks}
        return status, page


_CODES = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


def _health_answer(request: web.Request, reason: str, page: Any, status: int) -> web.Response:
    if request.query.get("format") == "text" or "text/plain" in request.headers.get("Accept", ""):
        response = web.Response(body=reason.encode(), status=status, content_type="text/plain")
    else:
        response = answer(page, request, status)
    response.headers["X-Consul-Reason"] = reason
    return response


def _enable(request: web.Request) -> bool:
    text = request.query.get("enable")
    if text is None:
        raise Refused(400, "Missing value for enable")
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise Refused(400, f"Invalid value for enable: {json.dumps(text)}")


def _sidecar_checks(sidecar: Mapping[str, Any]) -> None:
    try:
        check_types(sidecar)
    except Refused as error:
        said = error.text.replace("Invalid check:", "Invalid check in sidecar_service:")
        if said == SCRIPTS_DISABLED:
            said = f"error updating service registration: {said}"
        raise Refused(error.status, said) from error
