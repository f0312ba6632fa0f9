"""Targets of a chain: a place in the catalog, its names, and what is known of it while a chain is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from policies.durations import format_duration

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Place:
    """Where instances are looked for. Empty fields are not said."""

    service: str
    subset: str = ""
    namespace: str = ""
    partition: str = ""
    datacenter: str = ""
    peer: str = ""

    @property
    def id(self) -> str:
        """Return the name of the target in its chain."""
        if self.peer:
            return f"{self.service}.{self.namespace}.{self.partition}.external.{self.peer}"
        subset = f"{self.subset}." if self.subset else ""
        return f"{subset}{self.service}.{self.namespace}.{self.partition}.{self.datacenter}"

    def sni(self, trust_domain: str) -> str:
        """Return the server name of TLS. A peer's is known to the peer alone: ""."""
        if self.peer:
            return ""
        parts = [self.subset, self.service, self.namespace]
        if self.partition == DEFAULT:
            parts += [self.datacenter, "internal"]
        else:
            parts += [self.partition, self.datacenter, "internal-v1"]
        return ".".join(part for part in [*parts, trust_domain] if part)

    def settled(self, datacenter: str) -> Place:
        """Return the place with what was left open filled in: the evaluating datacenter, or none for a peer."""
        if self.peer:
            return replace(self, datacenter="", partition=DEFAULT, namespace=self.namespace or DEFAULT)
        return replace(
            self,
            datacenter=self.datacenter or datacenter,
            namespace=self.namespace or DEFAULT,
            partition=self.partition or DEFAULT,
        )

    def rewritten(self, by: Place) -> Place:
        """Return the place that a redirect, a failover or a default subset leads to.

        Another service forgets the subset; a peer is kept only if `by` names it.
        """
        place = self
        if by.service and by.service != self.service:
            place = replace(place, service=by.service, subset="")
        return Place(
            service=place.service,
            subset=by.subset or place.subset,
            namespace=by.namespace if by.namespace or by.peer else place.namespace,
            partition=by.partition or place.partition,
            datacenter=by.datacenter or place.datacenter,
            peer=by.peer,
        )


def place_of(row: Mapping[str, Any], service: str = "") -> Place:
    """Return the place that a part of an entry names (route destination, split, redirect, failover, target)."""
    return Place(
        service=str(row.get("Service") or service),
        subset=str(row.get("ServiceSubset") or ""),
        namespace=str(row.get("Namespace") or ""),
        partition=str(row.get("Partition") or ""),
        datacenter=str(row.get("Datacenter") or ""),
        peer=str(row.get("Peer") or ""),
    )


@dataclass(slots=True)
class Target:
    """A place and its settings. `connect_timeout` in nanoseconds, 0 = not resolved."""

    place: Place
    sni: str
    name: str
    subset: Mapping[str, Any]
    mesh_gateway: str = ""
    dialed_directly: bool = False
    external: bool = False
    connect_timeout: int = 0
    locality: Mapping[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """Return the target as Consul's JSON has it."""
        place = self.place
        row: dict[str, Any] = {
            "ConnectTimeout": format_duration(self.connect_timeout) if self.connect_timeout else "",
            "ID": place.id,
            "Service": place.service,
            "ServiceSubset": place.subset,
            "Namespace": place.namespace,
            "Partition": place.partition,
            "Datacenter": place.datacenter,
            "Peer": place.peer,
        }
        row = {key: value for key, value in row.items() if value}
        row["MeshGateway"] = {"Mode": self.mesh_gateway} if self.mesh_gateway else {}
        row["Subset"] = dict(self.subset)
        row["TransparentProxy"] = {"DialedDirectly": True} if self.dialed_directly else {}
        last: dict[str, Any] = {"External": self.external, "SNI": self.sni, "Name": self.name}
        row |= {key: value for key, value in last.items() if value}
        if self.locality is not None:
            row["PrioritizeByLocality"] = dict(self.locality)
        return row
