"""Every kind of entry that Consul CE knows, with its fields."""

from __future__ import annotations

from policies.entries import schema_chains, schema_defaults, schema_gateways, schema_identity
from policies.entries.shapes import Struct

SCHEMAS: dict[str, Struct] = {
    "service-defaults": schema_defaults.SERVICE_DEFAULTS,
    "proxy-defaults": schema_defaults.PROXY_DEFAULTS,
    "service-router": schema_chains.ROUTER,
    "service-splitter": schema_chains.SPLITTER,
    "service-resolver": schema_chains.RESOLVER,
    "ingress-gateway": schema_gateways.INGRESS,
    "terminating-gateway": schema_gateways.TERMINATING,
    "service-intentions": schema_identity.INTENTIONS,
    "mesh": schema_defaults.MESH,
    "exported-services": schema_defaults.EXPORTED_SERVICES,
    "sameness-group": schema_defaults.SAMENESS_GROUP,
    "api-gateway": schema_gateways.API_GATEWAY,
    "bound-api-gateway": schema_gateways.BOUND_API_GATEWAY,
    "http-route": schema_gateways.HTTP_ROUTE,
    "tcp-route": schema_gateways.TCP_ROUTE,
    "file-system-certificate": schema_gateways.CERTIFICATE,
    "inline-certificate": schema_gateways.CERTIFICATE,
    "jwt-provider": schema_identity.JWT_PROVIDER,
}
"""Kind of entry -> its fields: every kind that Consul CE knows."""
