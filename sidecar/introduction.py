"""Who we are: the snapshot to start with, by what the operator said and the agent knows."""

from __future__ import annotations

from dataclasses import replace

from controlplane.consul.catalog import Catalog
from controlplane.registration import Definition, find_sidecar, seed
from policies.errors import CatalogNotFound, ConfigError, Problem
from policies.reducer import apply
from policies.snapshot import Role, Snapshot
from policies.updates import Heard
from policies.watches import RegistrationWatch
from sidecar.patience import until_answered
from sidecar.settings import ProcessSettings


async def introduce(settings: ProcessSettings, catalog: Catalog) -> Snapshot:
    """Return the first snapshot. Asks until Consul answers; raise ConfigError for what it cannot find."""
    return await until_answered(lambda: _first_snapshot(settings, catalog), terminal_too=False)


async def _first_snapshot(settings: ProcessSettings, catalog: Catalog) -> Snapshot:
    if settings.definitions:
        return await _of_definition(settings.definitions[-1], settings, catalog)
    proxy_id = settings.proxy_id or await _find(settings, catalog)
    await _check_kind(settings.role, catalog, proxy_id)
    return Snapshot(settings.role, proxy_id, settings.edge)


async def _of_definition(proxy: Definition, settings: ProcessSettings, catalog: Catalog) -> Snapshot:
    """Return a snapshot that has heard of a registration which is yet to be made."""
    service = str((proxy.get("Proxy") or {}).get("DestinationServiceName") or proxy["Name"])
    chain = await catalog.own_chain(service)
    seeded = seed(proxy, str(chain.get("Datacenter") or ""), str(chain.get("Protocol") or ""))
    watch = RegistrationWatch(str(proxy["ID"]))
    snapshot = apply(Snapshot(settings.role, watch.proxy_id, settings.edge), Heard(watch, seeded))
    return replace(snapshot, problems={})


async def _find(settings: ProcessSettings, catalog: Catalog) -> str:
    if settings.role is Role.SIDECAR:
        return await find_sidecar(catalog, settings.sidecar_for)
    kind, wanted = settings.role.value, settings.gateway_service
    found = [
        str(service_id)
        for service_id, row in (await catalog.services()).items()
        if row.get("Kind") == kind and (not wanted or row.get("Service") == wanted)
    ]
    if len(found) != 1:
        message = f"{len(found)} {kind} services are registered with this agent"
        raise ConfigError((Problem("--gateway", message, "name one by --proxy-id, or add --register --address"),))
    return found[0]


async def _check_kind(role: Role, catalog: Catalog, proxy_id: str) -> None:
    try:
        row = await catalog.service(proxy_id)
    except CatalogNotFound as error:
        problem = Problem("--proxy-id", f"this agent has no service {proxy_id}", "register it first")
        raise ConfigError((problem,)) from error
    if row.get("Kind") != role.value:
        message = f"{proxy_id} is of kind {row.get('Kind') or 'typical'!r}, expected {role.value}"
        raise ConfigError((Problem("--proxy-id", message),))
