"""Who a client certificate's URI names, as `POST /v1/agent/connect/authorize` reads it.

Trust domain and datacenter are not looked at, nor port, user and query; percent signs are decoded; the keywords of the
path are taken to the letter.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from lictor.dev.consul.refusals import Refused

_PARTITION = "(?:/ap/(?P<partition>[^/]+))?"
_SERVICE = re.compile(_PARTITION + "/ns/(?P<namespace>[^/]+)/dc/(?P<datacenter>[^/]+)/svc/(?P<service>[^/]+)")
_OTHERS = tuple(
    re.compile(_PARTITION + path)
    for path in ("/agent/client/dc/[^/]+/id/[^/]+", "/agent/server/dc/[^/]+", "/gateway/mesh/dc/[^/]+")
)


def caller_of(uri: str) -> str:
    """Return the service; "" for one of another namespace, which no intention here names. Raise Refused (400)."""
    kind = "Connect"
    try:
        split = urlsplit(uri)
    except ValueError as error:
        raise _invalid(kind) from error
    if split.scheme.lower() == "spiffe" and not re.search("%(?![0-9A-Fa-f]{2})", uri):
        path = unquote(split.path)
        if found := _SERVICE.fullmatch(path):
            return _of_here(found)
        signing = not path and "." in (split.hostname or "")
        if signing or any(pattern.fullmatch(path) for pattern in _OTHERS):
            kind = "Service"
    raise _invalid(kind)


def _of_here(found: re.Match[str]) -> str:
    partition = found["partition"] or "default"
    if partition != "default":
        raise Refused(400, f'Mismatched partitions: "{partition}" != "default"')
    return found["service"] if found["namespace"] == "default" else ""


def _invalid(kind: str) -> Refused:
    return Refused(400, f"ClientCertURI not a valid {kind} identifier")
