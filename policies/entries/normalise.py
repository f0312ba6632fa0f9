"""What Consul does to an entry before it stores it: defaults, normal spelling, checks; and how it is read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policies.entries.check_certificate import check_inline_certificate
from policies.entries.check_chains import check_router, check_splitter, settle_router, settle_splitter
from policies.entries.check_common import check_meta
from policies.entries.check_defaults import (
    check_mesh,
    check_proxy_defaults,
    check_service_defaults,
    settle_proxy_defaults,
    settle_service_defaults,
)
from policies.entries.check_gateways import check_ingress, check_terminating, settle_ingress
from policies.entries.check_identity import (
    check_exported_services,
    check_jwt_provider,
    settle_exported_services,
    settle_jwt_provider,
)
from policies.entries.check_intentions import check_intentions, settle_intentions
from policies.entries.check_resolver import check_resolver
from policies.entries.check_routes import (
    check_api_gateway,
    check_bound_api_gateway,
    check_http_route,
    check_tcp_route,
    settle_api_gateway,
    settle_route,
)
from policies.entries.render import complete, render
from policies.entries.schemas import SCHEMAS
from policies.errors import EntryError

Step = Callable[[dict[str, Any]], None]


def _refuse_sameness_group(_entry: dict[str, Any]) -> None:
    raise EntryError("sameness-groups are an enterprise-only feature")


_STEPS: dict[str, tuple[Step, ...]] = {
    "service-defaults": (settle_service_defaults, check_service_defaults),
    "proxy-defaults": (settle_proxy_defaults, check_proxy_defaults),
    "service-router": (settle_router, check_router),
    "service-splitter": (settle_splitter, check_splitter),
    "service-resolver": (check_resolver,),
    "ingress-gateway": (settle_ingress, check_ingress),
    "terminating-gateway": (check_terminating,),
    "service-intentions": (settle_intentions, check_intentions),
    "mesh": (check_mesh,),
    "exported-services": (settle_exported_services, check_exported_services),
    "sameness-group": (_refuse_sameness_group,),
    "api-gateway": (settle_api_gateway, check_api_gateway),
    "bound-api-gateway": (check_bound_api_gateway,),
    "http-route": (settle_route, check_http_route),
    "tcp-route": (settle_route, check_tcp_route),
    "file-system-certificate": (check_meta,),
    "inline-certificate": (check_inline_certificate,),
    "jwt-provider": (settle_jwt_provider, check_jwt_provider),
}
KINDS = tuple(kind for kind in SCHEMAS if kind not in {"sameness-group", "bound-api-gateway"})
"""The kinds that can be written."""


def normalise_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry as `GET /v1/config/:kind/:name` shows it, without CreateIndex, ModifyIndex and Hash.

    `entry` is what `decode_entry` returned, or an entry read back (normalising twice changes nothing). Raise EntryError
    with Consul's text (HTTP 500; 403 if it begins with `Permission denied`) for what it refuses. What other entries
    have to say is not asked here but by `discovery.check_graph`.
    """
    kind = str(entry.get("Kind"))
    if kind not in SCHEMAS:
        raise EntryError(f"invalid config entry kind: {kind}")
    whole = complete(entry, SCHEMAS[kind])
    for step in _STEPS[kind]:
        step(whole)
    return {"Kind": kind, **render(whole, SCHEMAS[kind])}
