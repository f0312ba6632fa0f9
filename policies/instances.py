"""Instances of a service as health queries list them, and which of them may be dialled.

Source: `GET /v1/health/connect/:service`, asked unfiltered: subset filters run here, on the proxy's row, because the
server's own filtering of gateway rows depends on how it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.balance import Endpoint
from policies.filters import Filter
from policies.weak import items, mapping

MAX_WEIGHT = 128  # Envoy's upper bound; Consul clamps to it


@dataclass(frozen=True, slots=True)
class Instance:
    """One row. `critical` and `all_passing` sum up node checks and the row's own.

    `row` is what filters look at, as JSON: most services have no filter, and ten thousand decoded rows cost memory and
    are gone through by every collection of garbage.
    """

    id: str
    node: str
    datacenter: str
    kind: str
    address: str
    wan_address: str
    port: int
    wan_port: int
    weight_passing: int
    weight_warning: int
    critical: bool
    all_passing: bool
    row: str = field(repr=False)


def parse_instances(rows: Iterable[object], before: tuple[Instance, ...] = ()) -> tuple[Instance, ...]:
    """Return the instances in an order that does not depend on the order of the answer.

    An instance that has not changed is the very object of before, and so is the tuple when none has: what is compared
    afterwards is compared by identity, and of many rows only the changed ones are ever held twice.
    """
    known = {_key(one): one for one in before}
    found = (_instance(mapping(row)) for row in rows)
    now = tuple(sorted((_kept(known.get(_key(one)), one) for one in found), key=_key))
    return before if now == before else now


def _key(instance: Instance) -> tuple[str, str, str, int]:
    return (instance.node, instance.id, instance.address, instance.port)


def _kept(old: Instance | None, new: Instance) -> Instance:
    return old if old is not None and old == new else new


def _instance(row: Mapping[str, Any]) -> Instance:
    node, service = mapping(row.get("Node")), mapping(row.get("Service"))
    weights = mapping(service.get("Weights"))
    statuses = {str(mapping(check).get("Status")) for check in items(row.get("Checks"))}
    node_address, port = str(node.get("Address") or ""), int(service.get("Port") or 0)
    address = str(service.get("Address") or "") or node_address
    wan = mapping(mapping(service.get("TaggedAddresses")).get("wan"))
    node_wan = str(mapping(node.get("TaggedAddresses")).get("wan") or "")
    return Instance(
        id=str(service.get("ID") or ""),
        node=str(node.get("Node") or ""),
        datacenter=str(node.get("Datacenter") or ""),
        kind=str(service.get("Kind") or ""),
        address=address,
        wan_address=str(wan.get("Address") or "") or node_wan or address,
        port=port,
        wan_port=int(wan.get("Port") or 0) or port,
        weight_passing=_weight(weights.get("Passing")),
        weight_warning=_weight(weights.get("Warning")),
        critical=bool(statuses - {"passing", "warning"}),
        all_passing=statuses <= {"passing"},
        row=json.dumps(_without_indexes(row)),
    )


def _weight(value: object) -> int:
    return value if isinstance(value, int) else 1


def _without_indexes(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row without what changes although nothing that matters did: indexes and the output of checks."""
    parts = {name: _bare(mapping(row.get(name))) for name in ("Node", "Service")}
    return {**parts, "Checks": [_bare(mapping(check), "Output") for check in items(row.get("Checks"))]}


def _bare(part: Mapping[str, Any], *more: str) -> dict[str, Any]:
    dropped = {"CreateIndex", "ModifyIndex", *more}
    return {key: value for key, value in part.items() if key not in dropped}


def steadied(now: Iterable[Instance], before: Iterable[Instance]) -> tuple[Instance, ...]:
    """Return the instances of now, each that was healthy before and is critical now as it was before.

    For the time after an agent's restart: it begins every check as critical and runs it when its interval is over.
    """
    healthy = {(one.node, one.id): one for one in before if not one.critical}
    return tuple(healthy.get((one.node, one.id), one) if one.critical else one for one in now)


def healthy_endpoints(
    instances: Iterable[Instance], *, subset: Filter | None, only_passing: bool, local_datacenter: str
) -> tuple[Endpoint, ...]:
    """Return the endpoints that may be dialled, with Consul's rules of health and weight.

    Any critical check takes an instance out; `only_passing` takes out warnings too. The weight is the registered
    one for passing or for warning; below 1 takes the instance out, above 128 is 128. A terminating gateway stands in
    for a service outside and is exempt from the subset's filter. Raises FilterError for a filter that does not fit.
    """
    return tuple(
        _endpoint(instance, local_datacenter)
        for instance in instances
        if not instance.critical
        and (instance.all_passing or not only_passing)
        and _row_weight(instance) >= 1
        and (subset is None or instance.kind == "terminating-gateway" or subset.matches(json.loads(instance.row)))
    )


def _row_weight(instance: Instance) -> int:
    weight = instance.weight_passing if instance.all_passing else instance.weight_warning
    return min(weight, MAX_WEIGHT)


def _endpoint(instance: Instance, local_datacenter: str) -> Endpoint:
    far = bool(instance.datacenter) and instance.datacenter != local_datacenter
    return Endpoint(
        instance_id=f"{instance.node}/{instance.id}",
        address=instance.wan_address if far else instance.address,
        port=instance.wan_port if far else instance.port,
        weight=_row_weight(instance),
    )
