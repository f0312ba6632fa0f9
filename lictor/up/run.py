"""Run a mesh: everybody at once as far as the order allows, each sidecar before its app; stop the other way round.

start   servers ready ─▶ entries ─▶ sidecar: leaf, listeners, registered ─▶ it knows whom it calls ─▶ app ─▶ passing
stop    gateway drains ─▶ callers before called: sidecar deregistered and drained ─▶ app ends ─▶ sidecar ends
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from controlplane.consul.catalog import Catalog
from lictor.dev.mesh import write_secret
from lictor.up.child import Child
from lictor.up.console import Console
from lictor.up.guard import APP, PROXY
from lictor.up.plan import (
    NO_CHECK,
    MeshFile,
    Ports,
    Service,
    entries_of,
    expanded,
    gateway_settings,
    in_order,
    made_entries,
    ports_wanted,
    sidecar_settings,
    ways_to,
)
from lictor.up.ports import free_ports
from lictor.up.readiness import http_probe, port_probe, until_ready
from lictor.up.servers import SERVERS, Embedded, Existing, Servers, python_path
from lictor.up.written import Written
from policies.errors import CatalogError

DRAIN_SECONDS = 12.0
GATEWAY, GUARD = "gateway", "guard"


@dataclass(slots=True)
class Instance:
    """A service that runs: its app and its sidecar. `ready`: the app answers, and Consul sends callers to it."""

    service: Service
    ports: Ports
    sidecar: Child
    app: Child
    ready: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Mesh:
    """A mesh. `start` it, and `stop` it whatever became of the start; `kill` it when stopping takes too long."""

    file: MeshFile
    console: Console
    folder: Path
    seconds: float  # that an app may take to be ready
    writes: bool = True  # the entries; without, what Consul holds is left as it is
    restarts: bool = True  # of the apps
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    instances: list[Instance] = field(default_factory=list)
    gateway: Child | None = None
    guard: Child | None = None
    servers: Servers | None = None
    _admin_of_gateway: int = 0
    _catalog: Catalog | None = None
    _written: Written | None = None
    _session: aiohttp.ClientSession | None = None

    # --- start ---

    async def start(self) -> None:
        """Start everything. Raise MeshError when something does not get ready."""
        names = [service.id for service in self.file.services]
        self.console.introduce(*names, *(f"{name}/sidecar" for name in names), GATEWAY, SERVERS)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0), trust_env=False)
        self._start_guard()
        servers = self.servers = self._make_servers()
        servers.start()
        await servers.ready()
        self._catalog = Catalog(servers.agent)
        self.console.note(servers.told())
        if self.writes:
            await self._write_entries(self._catalog)
        self._plan(servers)
        self.console.progress(f"starting {', '.join(names)}{', each' if names[1:] else ''} with its sidecar")
        async with _together() as group:
            for instance in self.instances:
                group.create_task(self._start(instance))
            group.create_task(self._start_gateway(servers))

    def _make_servers(self) -> Servers:
        if self.file.links:
            return Existing(self.file, self.environment)
        assert self._session is not None  # noqa: S101 - made above
        self.console.progress("starting Consul and Vault, the embedded ones")
        http, vault = free_ports(2, ports_wanted(self.file))
        return Embedded.on(self.file, self.folder, self.console, self._session, (http, vault))

    def _start_guard(self) -> None:
        program = Path(__file__).with_name("guard.py")
        words = [sys.executable, "-I", "-S", str(program), str(self.folder), str(os.getpid())]
        self.guard = Child(GUARD, words, Path("/"), {}, self.console, last_signal=15)
        self.guard.start()

    async def _write_entries(self, catalog: Catalog) -> None:
        entries = entries_of(self.file)
        self.console.progress(f"writing {len(entries)} config {'entries' if entries[1:] else 'entry'}")
        self._written = Written(catalog, self.console)
        await self._written.write(entries, made_entries(self.file))

    def _plan(self, servers: Servers) -> None:
        wanted = ports_wanted(self.file)
        free = iter(free_ports(3 * len(self.file.services) + 1, wanted))
        self._admin_of_gateway = next(free)
        protocols = {service.name: service.protocol for service in self.file.services}
        for service in self.file.services:
            app, side, admin = (next(free) for _ in range(3))
            ports = Ports(service.port or app, side, admin)
            link = servers.link(service.name, service.id)
            settings = sidecar_settings(service, ports, protocols, link)
            sidecar = self._proxy(servers, f"{service.id}/sidecar", "sidecar", service.name, service.id, settings)
            self.instances.append(Instance(service, ports, sidecar, self._app(service, ports)))

    def _app(self, service: Service, ports: Ports) -> Child:
        own = {**service.environment, "PORT": str(ports.app)}
        words = [expanded(word, {**self.environment, **own}) for word in service.command]
        marked = {**own, APP: str(self.folder)}
        return Child(service.id, words, Path(service.folder), marked, self.console, restarts=self.restarts)

    def _proxy(
        self, servers: Servers, name: str, word: str, service: str, identifier: str, settings: Mapping[str, Any]
    ) -> Child:
        file = self.folder / f"{name.replace('/', '-')}.yaml"
        write_secret(file, yaml.safe_dump(dict(settings), sort_keys=False))
        command = [sys.executable, "-m", "lictor", word, "--config", str(file)]
        return Child(
            name,
            command,
            self.folder,
            {**python_path(), PROXY: str(self.folder)},
            self.console,
            prepare=servers.credentials(service, identifier),
            last_signal=15,  # it leaves the catalog by itself; `guard` sees to it that it ends
            without=servers.without,
        )

    async def _start(self, instance: Instance) -> None:
        sidecar, app, admin = instance.sidecar, instance.app, instance.ports.admin
        sidecar.start()
        await until_ready(sidecar, lambda: self._answers(_page(admin, "ready")))
        await self._until_known(sidecar, admin, self._called(instance))
        app.start()
        if self.restarts or instance.service.health != NO_CHECK:  # else it is a job: it may end as soon as it likes
            await until_ready(app, lambda: self._healthy(instance), self.seconds)
            await until_ready(app, lambda: self._passing(instance.service.id), self.seconds)
        instance.ready.set()
        self.console.ready(instance.service.id, ways_to(self.file, instance.service, instance.ports))

    async def _until_known(self, proxy: Child, admin: int, called: Sequence[Instance]) -> None:
        """Wait until these are ready and a proxy sends its calls to them."""
        for one in called:
            await one.ready.wait()
        await until_ready(proxy, lambda: self._knows(admin, called))

    def _called(self, instance: Instance) -> Sequence[Instance]:
        return [one for one in self.instances if one.service.name in instance.service.upstreams]

    async def _start_gateway(self, servers: Servers) -> None:
        if self.file.gateway is None:
            return
        name = self.file.gateway.name
        settings = gateway_settings(self.file, self._admin_of_gateway, servers.link(name, GATEWAY))
        gateway = self.gateway = self._proxy(servers, GATEWAY, "gateway", name, GATEWAY, settings)
        gateway.start()
        await until_ready(gateway, lambda: self._answers(_page(self._admin_of_gateway, "ready")))
        hosts = self.file.gateway.hosts
        await self._until_known(
            gateway, self._admin_of_gateway, [one for one in self.instances if one.service.name in hosts]
        )
        self.console.ready(GATEWAY, f"http://127.0.0.1:{self.file.gateway.port}")

    # --- readiness ---

    async def _answers(self, url: str) -> str:
        assert self._session is not None  # noqa: S101 - set by `start`
        return await http_probe(self._session, url)

    async def _healthy(self, instance: Instance) -> str:
        if instance.service.health == NO_CHECK:
            return ""
        if instance.service.health:
            return await self._answers(f"http://127.0.0.1:{instance.ports.app}{instance.service.health}")
        return await port_probe(instance.ports.app)

    async def _passing(self, identifier: str) -> str:
        """Return "" when Consul's own check passes: from then on callers are sent there."""
        assert self._catalog is not None  # noqa: S101 - set by `start`
        with contextlib.suppress(CatalogError):
            checks = await self._catalog.ask("GET", ("agent", "checks"), {})
            own = [check for check in checks.values() if check["ServiceID"] == identifier]
            return next((check["Output"] or "not checked yet" for check in own if check["Status"] != "passing"), "")
        return "Consul does not answer"

    async def _knows(self, admin: int, called: Sequence[Instance]) -> str:
        """Return "" when a proxy's table holds these instances."""
        assert self._session is not None  # noqa: S101 - set by `start`
        if not called:
            return ""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with self._session.get(_page(admin, "config_dump")) as answer:
                table = json.dumps((await answer.json())["table"])
            unknown = [one.service.id for one in called if str(one.ports.side) not in table]
            return f"it has not heard of {', '.join(unknown)} yet" if unknown else ""
        return "its admin endpoint does not answer"

    # --- stop ---

    async def stop(self) -> None:
        """End everything in order, callers first. Nothing is left."""
        if self.gateway is not None:
            await self.gateway.stop()
        for wave in reversed(in_order(self.file.services)):
            await asyncio.gather(*(self._stop(one) for one in self.instances if one.service in wave))
        if self._written is not None and self.file.links:
            await self._written.take_back()
        await self._close()

    async def _stop(self, instance: Instance) -> None:
        await self._drain(instance)
        await instance.app.stop()
        await instance.sidecar.stop()

    async def _drain(self, instance: Instance) -> None:
        """Let a sidecar leave the catalog and finish what comes in; what goes out goes on until its app has ended."""
        if not instance.sidecar.pid or self._session is None:
            return
        url = f"http://127.0.0.1:{instance.ports.admin}/drain?hold=true&wait=true"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(url, timeout=aiohttp.ClientTimeout(total=DRAIN_SECONDS)) as answer:
                await answer.read()

    async def kill(self) -> None:
        """End everything at once. What a Consul that goes on was told is taken back as well as it can be."""
        children = [child for one in self.instances for child in (one.app, one.sidecar)]
        await asyncio.gather(*(child.kill() for child in (*children, *([self.gateway] if self.gateway else []))))
        if self.file.links and self._catalog is not None:
            with contextlib.suppress(CatalogError, TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS / 4):
                    await self._forget(self._catalog)
        await self._close()

    async def _forget(self, catalog: Catalog) -> None:
        for one in self.instances:
            await catalog.deregister(f"{one.service.id}-sidecar-proxy")
            await catalog.deregister(one.service.id)
        if self.file.gateway is not None:
            await catalog.deregister(self.file.gateway.name)
        if self._written is not None:
            await self._written.take_back()

    async def _close(self) -> None:
        if self._catalog is not None:
            await self._catalog.close()
        if self._session is not None:
            await self._session.close()
        for child in self.servers.children() if self.servers is not None else []:
            await child.stop()
        if self.guard is not None:
            await self.guard.stop()


def _page(admin: int, page: str) -> str:
    return f"http://127.0.0.1:{admin}/{page}"


@contextlib.asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Open a group of tasks of which the first failure is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
