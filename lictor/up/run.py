"""Run a mesh: servers, then wave by wave of services, each sidecar before its app; on stop the other way round.

start   servers ready ─▶ entries ─▶ sidecar: leaf, listeners, registered ─▶ app ─▶ healthy ─▶ ready ─▶ gateway
stop    gateway drains ─▶ sidecars: deregistered, inbound drained ─▶ apps end ─▶ sidecars end ─▶ servers end
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from lictor.dev.mesh import Preparation, PreparationFailed, write_secret
from lictor.dev.server import ROOT_TOKEN
from lictor.up.child import Child
from lictor.up.console import Console
from lictor.up.file import MeshFile, Service
from lictor.up.plan import Ports, curl_of, entries_of, gateway_settings, in_order, sidecar_settings
from policies.errors import MeshError

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
LEAF_TTL = "1h"
DRAIN_SECONDS = 8.0
SERVERS, GATEWAY = "servers", "gateway"


class NotReady(MeshError):
    """Something did not get ready in time."""


@dataclass(slots=True)
class Instance:
    """A service that runs: its app and its sidecar."""

    service: Service
    ports: Ports
    sidecar: Child
    app: Child


@dataclass(slots=True)
class Mesh:
    """A running mesh. Use `running`."""

    file: MeshFile
    console: Console
    folder: Path
    instances: list[Instance] = field(default_factory=list)
    gateway: Child | None = None
    gateway_admin: int = 0
    servers: Child | None = None
    consul: str = ""
    vault: str = ""
    writes: bool = True
    _session: aiohttp.ClientSession | None = None

    # --- start ---

    async def start(self) -> None:
        """Start everything. Raise MeshError when something does not get ready."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0), trust_env=False)
        names = [service.id for service in self.file.services]
        self.console.introduce(*names, *(f"{name}/sidecar" for name in names), GATEWAY, SERVERS)
        if not self.file.consul:
            await self._start_servers()
        if self.writes:
            await self._write_entries()
        self._plan()
        for wave in in_order(self.file.services):
            await asyncio.gather(*(self._start(one) for one in self.instances if one.service in wave))
        await self._start_gateway()

    async def _start_servers(self) -> None:
        self.console.progress("starting the embedded Consul and Vault")
        http, vault = _free_ports(2)
        self.consul, self.vault = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{vault}"
        words = [sys.executable, "-m", "lictor", "dev", "--http-port", str(http), "--vault-port", str(vault)]
        words += ["--state", str(self.folder / "state.json"), "--default-intention-policy", "deny"]
        self.servers = Child(SERVERS, words, self.folder, _python_path(), _Quiet(self.console))
        await self.servers.start()
        await self._until(SERVERS, lambda: self._answers(f"{self.consul}/v1/status/leader"), self.servers)
        names = {service.name for service in self.file.services}
        names |= {self.file.gateway.name} if self.file.gateway else set()
        async with self._preparation() as preparation:
            await preparation.authority(sorted(names), LEAF_TTL)

    def _preparation(self) -> Preparation:
        return Preparation(self.consul or str(self.file.consul["address"]), self.vault, ROOT_TOKEN, self._token())

    def _token(self) -> str:
        file = self.file.consul.get("token_file")
        return Path(str(file)).read_text().strip() if file else ""

    async def _write_entries(self) -> None:
        entries = entries_of(self.file)
        self.console.progress(f"writing {len(entries)} config entries")
        async with self._preparation() as preparation:
            for entry in entries:
                await preparation.write(entry)

    def _plan(self) -> None:
        protocols = {service.name: service.protocol for service in self.file.services}
        for service in self.file.services:
            app, side, admin = _free_ports(3)
            ports = Ports(service.port or app, side, admin)
            settings = sidecar_settings(service, ports, protocols, self._shared(service.id))
            sidecar = self._proxy(f"{service.id}/sidecar", "sidecar", service.name, service.id, settings)
            environment = {"PORT": str(ports.app), **service.environment}
            command = [os.path.expandvars(word) if word != "$PORT" else "$PORT" for word in service.command]
            command = [word.replace("${PORT}", str(ports.app)).replace("$PORT", str(ports.app)) for word in command]
            app_child = Child(service.id, command, service.folder, environment, self.console)
            self.instances.append(Instance(service, ports, sidecar, app_child))

    def _shared(self, name: str) -> dict[str, Any]:
        """Return what every proxy's file says about Consul and the issuer of its leaf."""
        if self.file.consul:
            vault = {"issuer": "vault", "vault": dict(self.file.vault)} if self.file.vault else {"issuer": "consul"}
            return {"consul": dict(self.file.consul), **vault}
        credentials = self.folder / "credentials" / name
        login = {"method": "approle", "role_id_file": str(credentials / "role-id")}
        login["secret_id_file"] = str(credentials / "wrapped-secret-id")
        return {"consul": {"address": self.consul}, "issuer": "vault", "vault": {"address": self.vault, "auth": login}}

    def _proxy(self, name: str, word: str, service: str, identifier: str, settings: Mapping[str, Any]) -> Child:
        file = self.folder / f"{identifier}.yaml"
        write_secret(file, yaml.safe_dump(dict(settings), sort_keys=False))
        command = [sys.executable, "-m", "lictor", word, "--config", str(file)]
        return Child(name, command, self.folder, _python_path(), self.console, self._credentials(service, identifier))

    def _credentials(self, service: str, identifier: str) -> Callable[[], Awaitable[None]] | None:
        """Return what hands a proxy a fresh secret-id before each start; it may use it once."""
        if self.file.consul:
            return None

        async def issue() -> None:
            for _ in range(100):
                with contextlib.suppress(PreparationFailed):
                    async with self._preparation() as preparation:
                        await preparation.credentials(service, self.folder / "credentials" / identifier)
                    return
                await asyncio.sleep(0.1)

        return issue

    async def _start(self, instance: Instance) -> None:
        name, ports = instance.service.id, instance.ports
        await instance.sidecar.start()
        await self._until(
            f"{name}/sidecar", lambda: self._answers(f"http://127.0.0.1:{ports.admin}/ready"), instance.sidecar
        )
        await instance.app.start()
        await self._until(name, lambda: self._healthy(instance), instance.app)
        self.console.ready(name, curl_of(self.file, instance.service, ports))

    async def _start_gateway(self) -> None:
        if self.file.gateway is None:
            return
        (self.gateway_admin,) = _free_ports(1)
        name = self.file.gateway.name
        settings = gateway_settings(self.file, self.gateway_admin, self._shared("gateway"))
        self.gateway = self._proxy(GATEWAY, "gateway", name, "gateway", settings)
        await self.gateway.start()
        await self._until(GATEWAY, lambda: self._answers(f"http://127.0.0.1:{self.gateway_admin}/ready"), self.gateway)
        self.console.ready(GATEWAY, f"http://127.0.0.1:{self.file.gateway.port}")

    # --- readiness ---

    async def _until(self, name: str, check: Callable[[], Awaitable[bool]], child: Child) -> None:
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not await check():
            if asyncio.get_running_loop().time() > deadline:
                message = (
                    f"{name} was not ready after {READY_SECONDS:g} s ({child.starts} starts); its own lines say why"
                )
                raise NotReady(message)
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self, url: str) -> bool:
        assert self._session is not None  # noqa: S101 - set by `start`
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(url) as answer:
                return answer.status < 300  # noqa: PLR2004 - a success
        return False

    async def _healthy(self, instance: Instance) -> bool:
        if instance.service.health:
            return await self._answers(f"http://127.0.0.1:{instance.ports.app}{instance.service.health}")
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", instance.ports.app)
            writer.close()
            return True
        return False

    # --- stop ---

    async def stop(self) -> None:
        """End everything in order. Nothing is left."""
        self.console.progress("stopping")
        if self.gateway is not None:
            await self.gateway.stop()
        await asyncio.gather(*(self._drain(one) for one in self.instances))
        for wave in reversed(in_order(self.file.services)):
            await asyncio.gather(*(one.app.stop() for one in self.instances if one.service in wave))
        await asyncio.gather(*(one.sidecar.stop() for one in self.instances))
        if self.servers is not None:
            await self.servers.stop()
        if self._session is not None:
            await self._session.close()

    async def _drain(self, instance: Instance) -> None:
        """Let a sidecar leave the catalog and finish what comes in; what goes out goes on until its app has ended."""
        if instance.sidecar.process is None or instance.sidecar.process.returncode is not None or self._session is None:
            return
        url = f"http://127.0.0.1:{instance.ports.admin}/drain?hold=true&wait=true"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(url, timeout=aiohttp.ClientTimeout(total=DRAIN_SECONDS)) as answer:
                await answer.read()


class _Quiet(Console):
    """Of the servers only warnings are told: what they print at their start is for who runs them alone."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def line(self, name: str, text: str) -> None:
        if "Traceback" in text or "error" in text.lower():
            self._console.line(name, text)

    def warn(self, name: str, text: str) -> None:
        self._console.warn(name, text)


def _python_path() -> dict[str, str]:
    """Return what lets a child import what we are made of, installed or not."""
    return {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


@contextlib.asynccontextmanager
async def running(file: MeshFile, console: Console, *, write_entries: bool = True) -> AsyncIterator[Mesh]:
    """Run a mesh for the time of the block. Without `write_entries` what Consul holds is left as it is."""
    with tempfile.TemporaryDirectory(prefix="lictor-up-") as name:
        mesh = Mesh(file, console, Path(name), consul=str(file.consul.get("address", "")), writes=write_entries)
        try:
            await mesh.start()
            yield mesh
        finally:
            await mesh.stop()
