"""`?filter=` on rows of any endpoint: the shapes of their rows; policies/filters reads the language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aiohttp import web

from lictor.dev.consul.web import Refused
from policies.errors import FilterError
from policies.filters import CHECK, ROW, Kind, parse_filter

Shape = Mapping[str, Kind]
_TEXT, _INTEGER = "text", "integer"
_NODE = cast("dict[str, Kind]", ROW["Node"])
_SERVICE = cast("dict[str, Kind]", ROW["Service"])
NODE: Shape = _NODE
SERVICE: Shape = {name: _SERVICE[name] for name in _SERVICE if name != "PeerName"}
CATALOG: Shape = {
    **{name: kind for name, kind in _NODE.items() if name != "Meta"},
    "NodeMeta": ("map", _TEXT),
    "ServiceID": _TEXT,
    "ServiceName": _TEXT,
    "ServiceKind": _TEXT,
    "ServiceAddress": _TEXT,
    "ServiceTags": ("list", _TEXT),
    "ServiceMeta": ("map", _TEXT),
    "ServicePort": _INTEGER,
    "ServiceEnableTagOverride": "flag",
    "ServiceTaggedAddresses": _SERVICE["TaggedAddresses"],
    "ServiceWeights": _SERVICE["Weights"],
    "ServiceProxy": _SERVICE["Proxy"],
    "ServiceConnect": _SERVICE["Connect"],
}
INTENTION: Shape = {
    **dict.fromkeys(("ID", "Description", "SourceNS", "SourceName", "SourcePartition", "SourcePeer"), _TEXT),
    **dict.fromkeys(("DestinationNS", "DestinationName", "DestinationPartition", "SourceType", "Action"), _TEXT),
    "Precedence": _INTEGER,
    "Meta": ("map", _TEXT),
}
DEFAULTS: Shape = {
    **dict.fromkeys(("Kind", "Name", "Protocol", "Mode", "ExternalSNI", "MutualTLSMode"), _TEXT),
    "BalanceInboundConnections": _TEXT,
    **dict.fromkeys(("MaxInboundConnections", "LocalConnectTimeoutMs", "LocalRequestTimeoutMs"), _INTEGER),
    "MeshGateway": {"Mode": _TEXT},
    "Meta": ("map", _TEXT),
}
__all__ = ["CATALOG", "CHECK", "DEFAULTS", "INTENTION", "NODE", "ROW", "SERVICE", "filtered"]


def filtered(request: web.Request, rows: list[Any], shape: Shape = ROW, *, bare: bool = False) -> list[Any]:
    """Return the rows that pass `?filter=`. Raise Refused (500) for one that cannot be asked of them."""
    text = request.query.get("filter", "")
    if not text:
        return rows
    try:
        test = parse_filter(text, shape)
    except FilterError as error:
        prefix = "" if bare and "is not valid" in str(error) else "Failed to create boolean expression evaluator: "
        raise Refused(500, f"{prefix}{error}") from error
    return [row for row in rows if test.matches(row)]
