"""The Consul and the Vault below a mesh: embedded ones that are started with it, or those that exist.

Both tell how to speak to the agent, what a proxy's file says about it, and hand out credentials.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from controlplane.consul.catalog import Catalog
from controlplane.consul.settings import ConsulSettings
from lictor.dev.mesh import Preparation, PreparationFailed, write_secret
from lictor.up.child import Child
from lictor.up.console import Console
from lictor.up.guard import PROXY
from lictor.up.links import OPERATOR, agent_settings
from lictor.up.plan import MeshFile
from lictor.up.readiness import http_probe, until_ready
from policies.errors import CatalogError, ConfigError, MeshError, Problem

LEAF_TTL = "1h"
SERVERS = "servers"
OUTSIDE = ("CONSUL_", "VAULT_", "LICTOR_VAULT_")  # variables that name other servers than the embedded ones
Prepare = Callable[[], Awaitable[None]]


class Servers(Protocol):
    """What a mesh stands on."""

    without: tuple[str, ...]  # prefixes of variables that its proxies must not see

    @property
    def agent(self) -> ConsulSettings:
        """Return how to speak to the agent."""

    def start(self) -> None:
        """Start what has to be started."""

    async def ready(self) -> None:
        """Return when the mesh can be started. Raise MeshError."""

    def link(self, service: str, identifier: str) -> Mapping[str, Any]:
        """Return what the file of a proxy of this instance says about Consul, the issuer and Vault."""

    def credentials(self, service: str, identifier: str) -> Prepare | None:
        """Return what hands a proxy its credentials before each start, if somebody has to."""

    def children(self) -> list[Child]:
        """Return the processes that were started."""

    def told(self) -> str:
        """Return where they are, for people."""


@dataclass(slots=True)
class Embedded:
    """`lictor dev` as a child, with a state file: killed, it comes back as it was."""

    mesh: MeshFile
    folder: Path
    child: Child
    session: aiohttp.ClientSession
    http_port: int
    vault_port: int
    root_token: str = field(repr=False)
    without: tuple[str, ...] = OUTSIDE

    @classmethod
    def on(
        cls, mesh: MeshFile, folder: Path, console: Console, session: aiohttp.ClientSession, ports: tuple[int, int]
    ) -> Embedded:
        """Return servers that will listen on these ports."""
        words = [sys.executable, "-m", "lictor", "dev", "--http-port", str(ports[0]), "--vault-port", str(ports[1])]
        words += ["--state", str(folder / "state.json"), "--default-intention-policy", "deny"]
        words += ["--root-token-file", str(folder / "root-token")]
        root_token = secrets.token_hex(16)
        write_secret(folder / "root-token", root_token)
        environment = {**python_path(), PROXY: str(folder)}
        child = Child(SERVERS, words, folder, environment, OnlyTrouble(console), without=OUTSIDE)
        return cls(mesh, folder, child, session, *ports, root_token)

    @property
    def consul(self) -> str:
        """Return Consul's URL."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def vault(self) -> str:
        """Return Vault's URL."""
        return f"http://127.0.0.1:{self.vault_port}"

    @property
    def agent(self) -> ConsulSettings:
        """Return how to speak to the agent."""
        return ConsulSettings(address=self.consul)

    def start(self) -> None:
        """Start them."""
        self.child.start()

    async def ready(self) -> None:
        """Wait for them; then let Vault sign for everybody."""
        await until_ready(self.child, lambda: http_probe(self.session, f"{self.consul}/v1/status/leader"))
        names = {service.name for service in self.mesh.services}
        names |= {self.mesh.gateway.name} if self.mesh.gateway else set()
        async with self._preparation() as preparation:
            await preparation.authority(sorted(names), LEAF_TTL)

    def _preparation(self) -> Preparation:
        return Preparation(self.consul, self.vault, self.root_token)

    def link(self, service: str, identifier: str) -> Mapping[str, Any]:
        """Return the blocks of a proxy's file. Each instance has a folder with credentials of its own."""
        del service
        folder = self.folder / "credentials" / identifier
        login = {"method": "approle", "role_id_file": str(folder / "role-id")}
        login["secret_id_file"] = str(folder / "wrapped-secret-id")
        return {
            "consul": {"address": self.consul},
            "issuer": "vault",
            "vault": {"address": self.vault, "auth": login},
        }

    def credentials(self, service: str, identifier: str) -> Prepare | None:
        """Return what gives a proxy a fresh secret-id, good for one login."""

        async def issue() -> None:
            while True:
                try:
                    async with self._preparation() as preparation:
                        await preparation.credentials(service, self.folder / "credentials" / identifier)
                except PreparationFailed:  # the servers are being started again
                    await asyncio.sleep(0.1)
                else:
                    return

        return issue

    def children(self) -> list[Child]:
        """Return the one process."""
        return [self.child]

    def told(self) -> str:
        """Return what a shell needs."""
        return f"export CONSUL_HTTP_ADDR={self.consul}   # then: lictor config, lictor intention, lictor services"


@dataclass(slots=True)
class Existing:
    """A Consul, and perhaps a Vault, that somebody else runs."""

    mesh: MeshFile
    environment: Mapping[str, str]
    without: tuple[str, ...] = ()

    @property
    def agent(self) -> ConsulSettings:
        """Return how to speak to the agent."""
        return agent_settings(self.mesh.links[OPERATOR], self.environment)

    def start(self) -> None:
        """Start nothing."""

    async def ready(self) -> None:
        """Ask the agent once. Raise MeshError that says what to do when it does not answer."""
        async with Catalog(self.agent) as catalog:
            try:
                leader = await catalog.ask("GET", ("status", "leader"), {})
            except CatalogError as error:
                fix = "start an agent (`lictor dev` is one), or give its address"
                raise ConfigError(
                    (Problem(self.agent.base_url, f"no Consul agent answers: {error.detail}", fix),)
                ) from error
        if not leader:
            message = f"the Consul at {self.agent.base_url} has no leader"
            raise MeshError(message)

    def link(self, service: str, identifier: str) -> Mapping[str, Any]:
        """Return the blocks of the file."""
        del identifier
        return self.mesh.links[service]

    def credentials(self, service: str, identifier: str) -> Prepare | None:
        """Return nothing: they are where the file says."""
        del service, identifier
        return None

    def children(self) -> list[Child]:
        """Return none."""
        return []

    def told(self) -> str:
        """Return what a shell needs."""
        return f"Consul is {self.agent.base_url}"


class OnlyTrouble(Console):
    """Of the servers only trouble is told: what they print at their start is for who runs them alone."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def progress(self, text: str) -> None:
        """Pass it on."""
        self._console.progress(text)

    def line(self, name: str, text: str) -> None:
        """Pass on what looks like trouble."""
        if "Traceback" in text or "rror" in text:
            self._console.line(name, text)

    def warn(self, name: str, text: str) -> None:
        """Pass it on."""
        self._console.warn(name, text)


def python_path() -> dict[str, str]:
    """Return what lets a child import what we are made of, installed or not."""
    return {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
