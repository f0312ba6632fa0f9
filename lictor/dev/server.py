"""Both dev servers in one process, on loopback: `lictor dev`.

DevServer ─┬─ consul app (:8500) ── Consul
           └─ vault app  (:8200) ── Vault          both behind the same faults
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from lictor.dev.consul.server import Consul, Settings, consul_app
from lictor.dev.faults import Faults, suffering
from lictor.dev.vault import Vault, vault_app
from lictor.dev.vault.listing import Listing
from policies.errors import ConfigError, Problem

HOST = "127.0.0.1"
CONSUL_PORT, VAULT_PORT, ROOT_TOKEN = 8500, 8200, "root"
KEEP_SECONDS = 0.5  # after a change it is in the state file
KEEP_PART = 20  # and writing it takes at most this part of the time


@dataclass(frozen=True, slots=True)
class DevSettings:
    """Ports 0 are chosen by the system. `acl`: ACLs on, with a default policy. `state`: a file that is kept."""

    http_port: int = CONSUL_PORT
    vault_port: int = VAULT_PORT
    root_token: str = field(default=ROOT_TOKEN, repr=False)
    acl: bool = False
    default_policy: str = "allow"
    default_intention_policy: str = ""
    management_token: str = field(default="", repr=False)
    state: Path | None = None
    faults: Mapping[str, Any] = field(default_factory=dict)


class DevServer:
    """`async with` it: it listens. Raise ConfigError for a port in use, bad faults, or a state file that is none."""

    def __init__(self, settings: DevSettings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.faults.take(settings.faults, "--fault")
        self.consul = Consul(
            Settings(
                http_port=settings.http_port,
                acl=settings.acl,
                default_policy=settings.default_policy,
                default_intention_policy=settings.default_intention_policy,
                management_token=settings.management_token,
            )
        )
        self.vault = Vault(settings.root_token)
        self._lost: dict[str, Any] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self.http_port = self.vault_port = 0

    async def __aenter__(self) -> Self:
        """Listen on both ports."""
        try:
            if self.settings.state is not None and self.settings.state.exists():
                self._read(self.settings.state)
            self._apply()
            self.http_port = await self._listen(
                self._with_dev(consul_app(self.consul)), self.settings.http_port, "--http-port"
            )
            self.vault_port = await self._listen(
                self._with_dev(vault_app(self.vault)), self.settings.vault_port, "--vault-port"
            )
            if self.settings.state is not None:
                self._keeper = asyncio.get_running_loop().create_task(self._keep(self.settings.state), name="state")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Keep the state, stop listening, end the checks."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self.settings.state is not None:
            self._write(self.settings.state)
        await self.close()

    async def _keep(self, file: Path) -> None:
        """Write the state soon after it has changed: a killed server comes back with it.

        A large state is written less often, so that keeping it takes a small part of the server's time.
        """
        written, spent = (-1, -1), 0.0
        while True:
            now = (self.consul.state.index, self.vault.changes)
            if now != written:
                begun = time.thread_time()
                self._write(file)
                written, spent = now, time.thread_time() - begun
            await asyncio.sleep(max(KEEP_SECONDS, spent * KEEP_PART))

    async def close(self) -> None:
        """Stop listening and end the checks."""
        self.faults.clear()
        self._apply()
        await self.consul.agent.stop()
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()

    @property
    def http_addr(self) -> str:
        """Return Consul's address as a URL."""
        return f"http://{HOST}:{self.http_port}"

    @property
    def vault_addr(self) -> str:
        """Return Vault's address as a URL."""
        return f"http://{HOST}:{self.vault_port}"

    def _with_dev(self, app: web.Application) -> web.Application:
        app.middlewares.insert(0, suffering(self.faults, self._apply))
        app.router.add_post("/dev/wipe", self._wipe)
        app.router.add_post("/dev/restore", self._restore)
        app.router.add_post("/dev/revoke", self._revoke)
        return app

    async def _listen(self, app: web.Application, port: int, flag: str) -> int:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        handlers = runner.server
        assert handlers is not None  # noqa: S101 - set up above
        try:
            server = await asyncio.get_running_loop().create_server(lambda: Listing(handlers()), HOST, port)
        except OSError as error:
            text, fix = (
                f"cannot listen on {HOST}:{port}: {error.strerror}",
                "stop who listens there, or give another port",
            )
            raise ConfigError((Problem(flag, text, fix),)) from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    # --- faults ---

    def _apply(self) -> None:
        """Give the faults to those who play them."""
        state = self.consul.state
        changed = (state.leaderless, state.shift) != (self.faults.leaderless, self.faults.index_back)
        state.leaderless, state.shift = self.faults.leaderless, self.faults.index_back
        if self.vault.sealed != self.faults.sealed:
            self.vault.sealed = self.faults.sealed
        self.vault.signing_delay = self.faults.slow_signing
        if changed:
            state.wake_all()

    async def _wipe(self, _: web.Request) -> web.Response:
        self.wipe()
        return web.Response(text="Consul has forgotten everything; POST /dev/restore brings it back\n")

    def wipe(self) -> None:
        """Let Consul lose its data; `restore` brings them back."""
        self._lost = json.loads(json.dumps(self.consul.dump()))
        self.consul.wipe()

    async def _restore(self, _: web.Request) -> web.Response:
        if self._lost is None:
            return web.Response(status=400, text="nothing was wiped\n")
        self.restore()
        return web.Response(text="Consul is as it was before the wipe\n")

    def restore(self) -> None:
        """Give Consul back what `wipe` took."""
        if self._lost is not None:
            self.consul.agent.forget_all()
            self.consul.load(self._lost)
            self._lost = None

    async def _revoke(self, request: web.Request) -> web.Response:
        try:
            token = str(json.loads(await request.read())["token"])
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400, text='write {"token": "..."}\n')
        self.vault.revoke(token)
        return web.Response(text="revoked\n")

    # --- the state file ---

    def _read(self, file: Path) -> None:
        try:
            kept = json.loads(file.read_text())
            self.consul.load(kept["consul"])
            self.vault = Vault.load(kept["vault"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            problem = Problem(
                f"--state {file}", f"is not a state of the dev server: {error}", "remove it, or name another file"
            )
            raise ConfigError((problem,)) from error

    def _write(self, file: Path) -> None:
        """Replace the file as a whole; it holds the CA's key and tokens, so only its owner may read it."""
        new = file.with_name(f".{file.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(os.fdopen(descriptor, "w"))
            output.write(json.dumps({"consul": self.consul.dump(), "vault": self.vault.dump()}))
        new.replace(file)
