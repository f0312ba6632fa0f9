"""A large mesh as Consul tells of it: rows of the size and the shape that a real agent sends."""

from __future__ import annotations

from typing import Any

from harness.certificates import TRUST_DOMAIN, Authority

Json = dict[str, Any]


def name(number: int) -> str:
    return f"service-{number:04}"


def row(service: str, number: int, port: int = 9, status: str = "passing") -> Json:
    """Return a row of a health query. Nobody listens there."""
    identifier, node = f"{service}-{number}", f"node-{number % 300:03}"
    check = {
        "Node": node,
        "ServiceID": f"{identifier}-sidecar-proxy",
        "ServiceName": f"{service}-sidecar-proxy",
        "ServiceTags": ["mesh"],
        "Type": "tcp",
        "Interval": "10s",
        "Timeout": "0s",
        "ExposedPort": 0,
        "Definition": {},
        "CreateIndex": 100 + number,
        "ModifyIndex": 200 + number,
    }
    return {
        "Node": {
            "ID": f"11111111-2222-3333-4444-{number % 300:012}",
            "Node": node,
            "Address": "127.0.0.1",
            "Datacenter": "dc1",
            "TaggedAddresses": {"lan": "127.0.0.1", "lan_ipv4": "127.0.0.1", "wan": "127.0.0.1"},
            "Meta": {"consul-network-segment": "", "consul-version": "1.21.0", "zone": f"zone-{number % 3}"},
            "CreateIndex": 10,
            "ModifyIndex": 12,
        },
        "Service": {
            "Kind": "connect-proxy",
            "ID": f"{identifier}-sidecar-proxy",
            "Service": f"{service}-sidecar-proxy",
            "Tags": ["mesh"],
            "Address": f"127.{1 + number // 60000}.{number // 250 % 240}.{1 + number % 250}",
            "TaggedAddresses": {"lan_ipv4": {"Address": "127.0.0.1", "Port": port}},
            "Meta": {"version": f"v{1 + number % 2}", "team": "payments"},
            "Port": port,
            "Weights": {"Passing": 1, "Warning": 1},
            "EnableTagOverride": False,
            "Proxy": {
                "DestinationServiceName": service,
                "DestinationServiceID": identifier,
                "LocalServiceAddress": "127.0.0.1",
                "LocalServicePort": 8080,
                "Mode": "",
                "Config": {"protocol": "http"},
                "MeshGateway": {},
                "Expose": {},
            },
            "Connect": {},
            "PeerName": "",
            "CreateIndex": 100 + number,
            "ModifyIndex": 200 + number,
        },
        "Checks": [
            {**check, "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "ServiceID": ""},
            {**check, "CheckID": f"service:{identifier}", "Name": "Proxy listening", "Status": status, "Output": "ok"},
        ],
    }


def target(service: str) -> Json:
    return {
        "ID": f"{service}.default.default.dc1",
        "Service": service,
        "Namespace": "default",
        "Partition": "default",
        "Datacenter": "dc1",
        "MeshGateway": {},
        "Subset": {},
        "TransparentProxy": {},
        "ConnectTimeout": "5s",
        "SNI": f"{service}.default.dc1.internal.{TRUST_DOMAIN}",
        "Name": f"{service}.default.dc1.internal.{TRUST_DOMAIN}",
    }


def resolver(service: str) -> Json:
    identifier = f"{service}.default.default.dc1"
    found = {"Default": True, "ConnectTimeout": "5s", "Target": identifier}
    return {"Type": "resolver", "Name": identifier, "Resolver": found}


def chain(service: str, *others: str, routes: int = 0, rewrite: str = "/") -> Json:
    """Return a chain as the endpoint answers it; with routes, they lead to the service and the others in turn."""
    services = (service, *others)
    nodes = {f"resolver:{one}.default.default.dc1": resolver(one) for one in services}
    start = f"resolver:{service}.default.default.dc1"
    if routes:
        start = f"router:{service}.default.default"
        nodes[start] = {
            "Type": "router",
            "Name": f"{service}.default.default",
            "Routes": [_route(number, services[number % len(services)], rewrite) for number in range(routes)],
        }
    return {
        "Chain": {
            "ServiceName": service,
            "Namespace": "default",
            "Partition": "default",
            "Datacenter": "dc1",
            "Protocol": "http",
            "StartNode": start,
            "Nodes": nodes,
            "Targets": {f"{one}.default.default.dc1": target(one) for one in services},
        }
    }


def _route(number: int, service: str, rewrite: str) -> Json:
    match: Json = {"PathPrefix": f"/v1/tenants/{number}/"}
    if number % 5 == 0:
        match = {"PathExact": f"/v1/tenants/{number}", "Methods": ["GET", "HEAD"]}
    if number % 5 == 1:
        match["Header"] = [{"Name": "x-stage", "Exact": "canary"}]
    return {
        "Definition": {
            "Match": {"HTTP": match},
            "Destination": {
                "Service": service,
                "PrefixRewrite": rewrite,
                "RequestTimeout": "5s",
                "NumRetries": 2,
                "RetryOnStatusCodes": [503],
                "RequestHeaders": {"Set": {"x-tenant": str(number)}},
            },
        },
        "NextNode": f"resolver:{service}.default.default.dc1",
    }


def intention(number: int, action: str = "allow") -> Json:
    """Return a row of an intention match; every tenth has permissions."""
    found = {
        "ID": "",
        "Description": f"team {number % 40} may call",
        "SourceNS": "default",
        "SourceName": f"caller-{number:04}",
        "SourcePartition": "default",
        "DestinationNS": "default",
        "DestinationName": "web",
        "DestinationPartition": "default",
        "SourceType": "consul",
        "Meta": {},
        "Precedence": 9,
        "CreatedAt": "2026-11-26T08:00:00.123456789Z",
        "UpdatedAt": "2026-11-26T08:00:00.123456789Z",
        "Hash": "0123456789abcdef0123456789abcdef01234567890=",
        "CreateIndex": 300,
        "ModifyIndex": 301,
    }
    if number % 10:
        return {**found, "Action": action}
    http = {"PathPrefix": f"/v1/{number}", "Methods": ["GET", "PUT"], "Header": [{"Name": "x-team", "Present": True}]}
    return {**found, "Permissions": [{"Action": action, "HTTP": http}, {"Action": "deny", "HTTP": {"PathPrefix": "/"}}]}


def common(authority: Authority, service: str) -> Json:
    """Return what every proxy asks for."""
    leaf = authority.leaf(service)
    return {
        "agent/connect/ca/roots": {
            "ActiveRootID": "r1",
            "TrustDomain": TRUST_DOMAIN,
            "Roots": [{"ID": "r1", "RootCert": authority.pem, "Active": True}],
        },
        f"agent/connect/ca/leaf/{service}": {"CertPEM": leaf.chain_pem, "PrivateKeyPEM": leaf.key_pem.decode()},
        "agent/connect/authorize": {"Authorized": False, "Reason": "Default behavior configured by ACLs"},
        "agent/checks": {},
    }


def sidecar(ports: list[int]) -> Json:
    """Return the registration of a sidecar with an upstream a port."""
    return {
        "Kind": "connect-proxy",
        "ID": "web-sidecar-proxy",
        "Service": "web-sidecar-proxy",
        "Tags": [],
        "Meta": {},
        "Port": 0,
        "Address": "127.0.0.1",
        "Datacenter": "dc1",
        "Proxy": {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
            "Config": {"protocol": "http"},
            "Upstreams": [
                {
                    "DestinationType": "service",
                    "DestinationName": name(number),
                    "LocalBindAddress": "127.0.0.1",
                    "LocalBindPort": port,
                    "Config": {"connect_timeout_ms": 1000},
                    "MeshGateway": {},
                }
                for number, port in enumerate(ports)
            ],
        },
    }


def gateway() -> Json:
    return {
        "Kind": "ingress-gateway",
        "ID": "edge",
        "Service": "edge",
        "Port": 0,
        "Address": "127.0.0.1",
        "Datacenter": "dc1",
        "Proxy": {},
    }


def ingress_entry(port: int) -> Json:
    services = [{"Name": "*"}]
    return {
        "Kind": "ingress-gateway",
        "Name": "edge",
        "Listeners": [{"Port": port, "Protocol": "http", "Services": services}],
    }


def gateway_service(service: str, port: int) -> Json:
    return {
        "Gateway": {"Name": "edge"},
        "Service": {"Name": service},
        "GatewayKind": "ingress-gateway",
        "Port": port,
        "Protocol": "http",
        "FromWildcard": True,
        "CreateIndex": 5,
        "ModifyIndex": 5,
    }
