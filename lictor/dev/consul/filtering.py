"""`?filter=` on rows of any endpoint: the shapes of their rows; policies/filters reads the language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from aiohttp import web

from lictor.dev.consul.refusals import Refused
from policies.entries.filter_syntax import syntax_error
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


_PREFIX = "Failed to create boolean expression evaluator: "
_SELECTOR = re.compile(r"Selector '(?P<selector>.*)' is not valid")
_OPERATION = re.compile(r"'(?P<operator>[a-z=!]+(?: [a-z]+){0,2})' on (?P<selector>\S+): ('(?P<value>.*)' is)?")
_OPERATORS = {"==": "Equal", "!=": "Not Equal", "in": "In", "not in": "Not In", "matches": "Matches"}
_OPERATORS |= {"not matches": "Not Matches", "is empty": "Is Empty", "is not empty": "Is Not Empty"}


def filtered(
    request: web.Request, rows: list[Any], shape: Shape = ROW, *, bare: bool = False, indexed: bool = False
) -> list[Any]:
    """Return the rows that pass `?filter=`. Raise Refused (500) for one that cannot be asked of them.

    `bare`: where there are no rows, or the syntax is good, the error has no prefix. `indexed`: it has a read's headers.
    """
    text = request.query.get("filter", "")
    if not text:
        return rows
    if wrong := syntax_error(text):
        raise Refused(500, f"{_PREFIX}{wrong}", indexed=indexed)
    if bare and not rows:
        return rows
    try:
        test = parse_filter(text, shape)
    except FilterError as error:
        raise Refused(500, ("" if bare else _PREFIX) + _in_consuls_words(str(error)), indexed=indexed) from error
    return [row for row in rows if test.matches(row)]


def _in_consuls_words(said: str) -> str:
    """Return what the filter parser found about selectors and types as Consul tells it."""
    if found := _SELECTOR.search(said):
        return f'Selector "{found["selector"]}" is not valid'
    found = _OPERATION.search(said)
    if found is None:
        return said
    selector, value = found["selector"], found["value"]
    if value is None:
        return f'Invalid match operator "{_OPERATORS[found["operator"]]}" for selector "{selector}"'
    parse = "Bool" if "neither true" in said else "Int"
    why = f'strconv.Parse{parse}: parsing "{value}": invalid syntax'
    return f'Failed to coerce value "{value}" for selector "{selector}": {why}'
