"""Intentions as rows: made of `service-intentions` entries, in Consul's order, and asked at L4.

Source: Consul's HTTP API, "Intentions". The decision itself is that of policies/intentions.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lictor.dev.consul.decoding import FLAG, INTEGER, TEXT, Own
from lictor.dev.consul.refusals import Refused
from lictor.dev.consul.state import Json, State
from policies.intentions import Action, Decision, parse_intentions

KIND = "service-intentions"
_TEXTS = ("ID", "Description", "SourceNS", "SourceName", "SourcePartition", "SourcePeer", "SourceSamenessGroup")
_JWT = {"Providers": [{"Name": TEXT, "VerifyClaims": [{"Path": [TEXT], "Value": TEXT}]}]}
_HEADER = {
    **dict.fromkeys(("Name", "Exact", "Prefix", "Suffix", "Contains", "Regex"), TEXT),
    **dict.fromkeys(("Present", "Invert", "IgnoreCase"), FLAG),
}
_HTTP = {"PathExact": TEXT, "PathPrefix": TEXT, "PathRegex": TEXT, "Header": [_HEADER], "Methods": [TEXT]}
SHAPE = Own(
    {
        **dict.fromkeys((*_TEXTS, "DestinationNS", "DestinationPartition", "DestinationName", "SourceType"), TEXT),
        **dict.fromkeys(("Action", "DefaultAddr", "CreatedAt", "UpdatedAt", "Hash"), TEXT),
        **dict.fromkeys(("DefaultPort", "Precedence", "CreateIndex", "ModifyIndex"), INTEGER),
        "Permissions": [{"Action": TEXT, "HTTP": _HTTP, "JWT": _JWT}],
        "Meta": {"": TEXT},
        "JWT": _JWT,
    }
)
ENTERPRISE = "Namespaces is a Consul Enterprise feature"


def rows_of(state: State, entry: Mapping[str, Any]) -> list[Json]:
    """Return an entry's sources as rows."""
    created, modified = state.tables.entry_indexes[KIND, entry["Name"].lower()]
    rows = []
    for source in entry.get("Sources") or ():
        row: Json = {}
        if source.get("LegacyID"):
            row = {"CreatedAt": source.get("LegacyCreateTime"), "UpdatedAt": source.get("LegacyUpdateTime")}
            row["ID"] = source["LegacyID"]
        if source.get("Description"):
            row["Description"] = source["Description"]
        row |= {"SourceNS": "default", "SourceName": source["Name"]}
        if source.get("Peer"):
            row["SourcePeer"] = source["Peer"]
        row |= {"DestinationNS": "default", "DestinationName": entry["Name"], "SourceType": "consul"}
        for field in ("Action", "Permissions", "JWT"):
            if source.get(field):
                row[field] = source[field]
        if "JWT" not in row and entry.get("JWT"):
            row["JWT"] = entry["JWT"]
        meta = source.get("LegacyMeta") or (entry.get("Meta") if not source.get("LegacyID") else None)
        if meta:
            row["Meta"] = meta
        row["Precedence"] = source["Precedence"]
        if source.get("LegacyID"):
            digest = hashlib.blake2b(repr(sorted(source.items())).encode(), digest_size=32).digest()
            row["Hash"] = base64.b64encode(digest).decode()
        rows.append({**row, "CreateIndex": created, "ModifyIndex": modified})
    return rows


def every(state: State) -> list[Json]:
    """Return all rows in order of precedence."""
    return ordered(row for entry in state.tables.entries.of_kind(KIND) for row in rows_of(state, entry))


def ordered(rows: Iterable[Json]) -> list[Json]:
    """Return rows in Consul's order: precedence, then names."""
    return sorted(
        rows,
        key=lambda row: (-row["Precedence"], row.get("SourcePeer", ""), row["SourceName"], row["DestinationName"]),
    )


def matching(state: State, by: str, name: str) -> list[Json]:
    """Return the rows that concern a destination (or a source): its own and those of `*`."""
    wanted = name or "*"
    if by == "destination":
        names = {wanted.lower(), "*"}
        return [row for row in every(state) if row["DestinationName"].lower() in names]
    rows = (row for row in every(state) if not row.get("SourcePeer"))
    return [row for row in rows if row["SourceName"] in {wanted, "*"}]


def decide(state: State, source: str, destination: str, default: Action) -> Decision:
    """Return what a tcp connection is told."""
    parsed, _ = parse_intentions(matching(state, "destination", destination))
    return parsed.for_source(source, default).connection


def check(state: State, source: str, destination: str, *, default: bool) -> bool:
    """Return what `GET /v1/connect/intentions/check` says. A destination is taken to the letter there."""
    for row in matching(state, "source", source):
        if row["DestinationName"] in {destination, "*"}:
            return bool(row.get("Action") == "allow")
    return default


def exact(state: State, source: Name, destination: str) -> Json | None:
    """Return the row with exactly these names."""
    entry = state.tables.entries.get(KIND, destination)
    if entry is None:
        return None
    wanted = (source.peer, source.service)
    return next(
        (row for row in rows_of(state, entry) if (row.get("SourcePeer", ""), row["SourceName"]) == wanted), None
    )


@dataclass(frozen=True, slots=True)
class Name:
    """What a parameter says: `name`, `namespace/name`, `partition/namespace/name` or `peer:peer/name`."""

    service: str
    namespace: str = "default"
    partition: str = "default"
    peer: str = ""

    def demand_default(self, text: str, *, indexed: bool = False) -> None:
        """Refuse another namespace than the one that there is. `text` says where it stood, up to the namespace."""
        if self.namespace not in {"", "default"}:
            raise Refused(500, f'{text} "{self.namespace}": {ENTERPRISE}', indexed=indexed)


def parse_name(text: str, which: str, *, peers: bool = False) -> Name:
    """Return the parts of a name in the parameter `which`. Raise Refused."""
    is_peer = text.startswith("peer:")
    if is_peer and not peers:
        raise Refused(500, f'{which} "{text}" is invalid: cannot specify a peer here')
    parts = text.split("/")
    if is_peer:
        if len(parts) < 2:  # noqa: PLR2004 - peer and name
            raise Refused(500, f'{which} "{text}" is invalid: need to specify the service name as well')
        namespace = parts[-2] if len(parts) > 2 else "default"  # noqa: PLR2004 - peer, namespace, name
        return Name(parts[-1], namespace, peer=parts[0].removeprefix("peer:"))
    if len(parts) > 3:  # noqa: PLR2004 - partition, namespace, name
        raise Refused(500, f"{which} \"{text}\" is invalid: input can contain at most two '/'")
    service, namespace, partition, *_ = (*reversed(parts), "default", "default")
    return Name(service, namespace, partition)
