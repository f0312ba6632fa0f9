"""A whole mesh: Consul with ACLs, its CA in Vault, sidecars with leaves from Vault, an ingress gateway.

On real servers it is prepared by the very scripts in consul/ and vault/ that an operator runs; on the embedded ones by
their twin in `lictor/dev/mesh.py`, without a binary but Python. Used by the demo and by tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness.servers import (
    REPOSITORY,
    ConsulServer,
    DevServers,
    Program,
    VaultServer,
    consul_program,
    consul_server,
    dev_server,
    http_json,
    vault_server,
)
from lictor.definitions import read_definitions
from lictor.dev.mesh import Preparation
from lictor.documents import read_file
from lictor.up.ports import free_ports

SIDECARS = ("web", "api", "db")
GATEWAY = "edge"
EGRESS = "egress"
PARTNER = "partner"  # the service outside, behind the terminating gateway
EDGE_NAMES = ("web.example.com", "api.example.com", "localhost")
EDGE_DOMAINS = "example.com,localhost"
Say = Callable[[str], None]


@dataclass(slots=True)
class Proxy:
    """A running sidecar or gateway."""

    program: Program
    admin_port: int

    def admin(self, page: str) -> object:
        """Return a page of its admin endpoint."""
        return http_json(f"http://127.0.0.1:{self.admin_port}/{page}", timeout=20)

    def wait_ready(self) -> None:
        """Wait until it says so."""
        self.program.wait_until(lambda: self.admin("ready"))


@dataclass(slots=True)
class World:
    """The running mesh."""

    folder: Path
    consul: ConsulServer
    vault: VaultServer
    trust_domain: str
    gateway_port: int
    ports: Mapping[str, int]
    embedded: bool = False
    proxies: dict[str, Proxy] = field(default_factory=dict)
    apps: dict[str, Program] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the gateway's URL."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def tls_url(self) -> str:
        """Return the gateway's URL over TLS; `edge_ca` has its CA."""
        return f"https://localhost:{self.ports['edge-tls']}"

    @property
    def edge_ca(self) -> Path:
        """Return the file with the CA that signs for the outside."""
        return self.folder / "edge-ca.pem"

    def token_file(self, name: str) -> Path:
        """Return the file with the Consul token of a service, or of `operator`."""
        return self.folder / "tokens" / name

    @property
    def command_line(self) -> list[str]:
        """Return the operator's command line: the stock one, or ours where only Python is needed."""
        return [sys.executable, "-m", "lictor"] if self.embedded else [str(consul_program())]

    def consul_cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line as the operator."""
        return subprocess.run(
            [*self.command_line, *arguments],
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
            env={
                **_plain_environment(),
                "PYTHONPATH": str(REPOSITORY),
                "CONSUL_HTTP_ADDR": self.consul.http_addr,
                "CONSUL_HTTP_TOKEN_FILE": str(self.token_file("operator")),
            },
        )

    def start_proxy(
        self, name: str, word: str, settings: Mapping[str, object], service: str, role: str = "mesh"
    ) -> Proxy:
        """Start a proxy of a service with settings; Consul, Vault (whose `role` signs) and admin are added."""
        credentials = self.folder / "vault" / name
        self.issue_secret_id(service, credentials)
        (admin,) = free_ports(1)
        whole = {
            **settings,
            "consul": {"address": self.consul.http_addr, "token_file": str(self.token_file(service))},
            "issuer": "vault",
            "vault": {
                "address": self.vault.address,
                "role": role,
                "auth": {
                    "method": "approle",
                    "role_id_file": str(credentials / "role-id"),
                    "secret_id_file": str(credentials / "wrapped-secret-id"),
                },
            },
            "admin": f"127.0.0.1:{admin}",
            "drain": "5s",
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(whole, sort_keys=False))
        program = Program(
            name,
            [sys.executable, "-m", "lictor", word, "--config", str(file)],
            self.folder,
            {"PYTHONPATH": str(REPOSITORY)},
        )
        program.start()
        proxy = self.proxies[name] = Proxy(program, admin)
        return proxy

    def relieve_proxy(self, name: str, service: str) -> Program:
        """Start a second process of a proxy, on the same file, and wait until it serves; return the first one."""
        first = self.proxies[name]
        self.issue_secret_id(service, self.folder / "vault" / name)
        second = Program(first.program.name, first.program.arguments, self.folder, first.program.environment)
        second.start()
        self.proxies[name] = Proxy(second, first.admin_port)
        try:
            second.wait_until(lambda: self.proxies[name].admin("ready")["pid"] == second.pid)  # type: ignore[index]  # a JSON object
        except RuntimeError:
            first.program.stop()
            raise
        return first.program

    def issue_secret_id(self, service: str, credentials: Path) -> None:
        """Put a role-id and a wrapped secret-id into a folder, as an orchestrator does."""
        if self.embedded:
            asyncio.run(_issue(self, service, credentials))
            return
        run_script(
            ["vault/issue-secret-id.sh", service, str(credentials)], {**self.vault.environment, "WRAP_TTL": "120s"}
        )

    def start_app(self, name: str, *arguments: str, of: Sequence[str] = ("-m", "harness.app")) -> None:
        """Start a test app, or another program of Python's."""
        program = Program(
            f"app-{name}",
            [sys.executable, *of, *arguments],
            self.folder,
            {"PYTHONPATH": str(REPOSITORY)},
        )
        program.start()
        self.apps[name] = program


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("CONSUL_", "VAULT_", "BAO_"))}


def run_script(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Run a script of the repository; its output is in the error when it fails."""
    done = subprocess.run(
        ["sh", str(REPOSITORY / arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**_plain_environment(), "CONSUL_BIN": str(consul_program()), **environment},
    )
    if done.returncode:
        message = f"{arguments[0]} failed:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return done.stderr


@contextlib.contextmanager
def world(
    say: Say = lambda _: None, leaf_ttl: str = "1h", *, gateway_port: int = 0, embedded: bool = False
) -> Iterator[World]:
    """Run the demo's mesh: edge (gateway), web, api v1, api v2, db (tcp), and egress, the way to a partner outside."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lictor-world-")))
        if embedded:
            say("starting the embedded Consul (ACLs on, default deny) and Vault")
            servers = stack.enter_context(dev_server(acl=True, default_intention_policy="deny"))
            made = _prepare_embedded(say, folder, servers, leaf_ttl, gateway_port or free_ports(1)[0])
            stack.callback(_stop, made)
            _start(say, made)
            yield made
            return
        say("starting Consul (ACLs on, default deny) and Vault")
        settings = {"acl": {"tokens": {}}, "default_intention_policy": "deny", "ui_config": {"enabled": True}}
        consul = stack.enter_context(consul_server(acl=True, settings={**settings, "acl": _acl()}))
        vault = stack.enter_context(vault_server())
        made = _prepare(say, folder, consul, vault, leaf_ttl, gateway_port or free_ports(1)[0])
        stack.callback(_stop, made)
        _start(say, made)
        yield made


def _acl() -> Mapping[str, object]:
    return {"enabled": True, "default_policy": "deny"}


def _prepare(
    say: Say, folder: Path, consul: ConsulServer, vault: VaultServer, leaf_ttl: str, gateway_port: int
) -> World:
    tokens = folder / "tokens"
    say("preparing them: vault/bootstrap.sh, consul/bootstrap.sh")
    run_script(["vault/bootstrap.sh", "ca", str(folder)], vault.environment)
    ports = _ports()
    entries = _entries(folder, gateway_port, ports)
    run_script(
        ["consul/bootstrap.sh", str(tokens), " ".join(SIDECARS), GATEWAY, f"{EGRESS}={PARTNER}"],
        {
            **consul.environment,
            "VAULT_ADDR": vault.address,
            "VAULT_CA_TOKEN_FILE": str(folder / "consul-ca-token"),
            "CONSUL_ENTRIES": str(entries),
            "CONSUL_EXTERNAL": str(folder / "external"),
        },
    )
    trust_domain = consul.api("connect/ca/roots")["TrustDomain"]
    run_script(
        ["vault/bootstrap.sh", "mesh", trust_domain, "dc1", " ".join((*SIDECARS, GATEWAY, EGRESS))],
        {**vault.environment, "LEAF_TTL": leaf_ttl},
    )
    run_script(
        ["vault/bootstrap.sh", "egress", trust_domain, "dc1", EGRESS, PARTNER],
        {**vault.environment, "LEAF_TTL": leaf_ttl},
    )
    run_script(["vault/bootstrap.sh", "edge", GATEWAY, EDGE_DOMAINS], vault.environment)
    made = World(folder, consul, vault, trust_domain, gateway_port, ports)
    with urllib.request.urlopen(f"{vault.address}/v1/pki_edge/ca/pem", timeout=5) as answer:
        made.edge_ca.write_bytes(answer.read())
    return made


def _entries(folder: Path, gateway_port: int, ports: Mapping[str, int]) -> Path:
    """Return a copy of the demo's entries, and of its services outside, with the ports and files of this machine."""
    for name in ("config", "external"):
        shutil.copytree(REPOSITORY / "consul" / name, folder / name)
    changes: dict[str, dict[str, object]] = {
        "config/50-edge-ingress.hcl": {"8080": gateway_port, "8443": ports["edge-tls"]},
        "config/55-egress-terminating.hcl": {"/run/partner/ca.pem": folder / "partner-ca.pem"},
        "external/partner.hcl": {'"partner"\n  port': '"127.0.0.1"\n  port', "8443": ports["partner"]},
    }
    for name, words in changes.items():
        text = (folder / name).read_text()
        for old, new in words.items():
            assert old in text
            text = text.replace(old, str(new))
        (folder / name).write_text(text)
    return folder / "config"


def _prepare_embedded(say: Say, folder: Path, servers: DevServers, leaf_ttl: str, gateway_port: int) -> World:
    say("preparing them: mesh CA in Vault, tokens, config entries")
    made = World(folder, servers, servers.vault, "", gateway_port, _ports(), embedded=True)
    made.trust_domain = asyncio.run(_prepare_by_api(made, servers, leaf_ttl))
    return made


async def _prepare_by_api(made: World, servers: DevServers, leaf_ttl: str) -> str:
    folder = made.folder
    async with Preparation(servers.http_addr, servers.vault.address, servers.vault.token, servers.token) as preparation:
        await preparation.authority((*SIDECARS, GATEWAY, EGRESS), leaf_ttl)
        await preparation.egress(EGRESS, (PARTNER,), leaf_ttl)
        made.edge_ca.write_text(await preparation.edge(GATEWAY, EDGE_DOMAINS))
        await preparation.tokens(folder / "tokens", SIDECARS, (GATEWAY,), {EGRESS: (PARTNER,)})
        for file in sorted(_entries(folder, made.gateway_port, made.ports).glob("*.hcl")):
            await preparation.write(read_file(str(file)).data)
        for file in sorted((folder / "external").glob("*.hcl")):
            for service in read_definitions(read_file(str(file))).services:
                await preparation.register(service)
        return preparation.trust_domain


async def _issue(world: World, service: str, credentials: Path) -> None:
    async with Preparation(world.consul.http_addr, world.vault.address, world.vault.token) as preparation:
        await preparation.credentials(service, credentials)


def _ports() -> dict[str, int]:
    names = (
        "web",
        "api-v1",
        "api-v2",
        "db",
        "web-side",
        "api-v1-side",
        "api-v2-side",
        "db-side",
        "web-to-api",
        "web-to-db",
        "web-to-partner",
        "partner",
        "egress",
        "edge-tls",
    )
    return dict(zip(names, free_ports(len(names)), strict=True))


def _start(say: Say, world: World) -> None:
    ports = world.ports
    say("starting the apps web, api v1, api v2, db")
    call = f"api=http://127.0.0.1:{ports['web-to-api']}/"
    world.start_app("web", "--name", "web", "--port", str(ports["web"]), "--call", call)
    for version in ("v1", "v2"):
        world.start_app(f"api-{version}", "--name", "api", "--version", version, "--port", str(ports[f"api-{version}"]))
    world.start_app("db", "--name", "db", "--port", str(ports["db"]), "--tcp")
    say("starting partner, which is outside of the mesh and speaks TLS")
    partner = ("--host", "127.0.0.1", "--port", str(ports["partner"]), "--ca", str(world.folder / "partner-ca.pem"))
    world.start_app("partner", *partner, of=(str(REPOSITORY / "examples/compose/partner.py"),))
    say("starting a sidecar beside each, and the gateways; their leaves come from Vault")
    upstreams = [
        {"destination_name": "api", "local_bind_port": ports["web-to-api"]},
        {"destination_name": "db", "local_bind_port": ports["web-to-db"], "config": {"protocol": "tcp"}},
        {"destination_name": PARTNER, "local_bind_port": ports["web-to-partner"]},
    ]
    world.start_proxy(
        "web", "sidecar", sidecar_settings("web", "web-1", ports["web"], ports["web-side"], upstreams), "web"
    )
    for version in ("v1", "v2"):
        settings = sidecar_settings(
            "api", f"api-{version}", ports[f"api-{version}"], ports[f"api-{version}-side"], [], {"version": version}
        )
        world.start_proxy(f"api-{version}", "sidecar", settings, "api")
    world.start_proxy("db", "sidecar", sidecar_settings("db", "db-1", ports["db"], ports["db-side"], []), "db")
    gateway = {"kind": "ingress", "service": GATEWAY, "id": "edge-1", "address": f"127.0.0.1:{world.gateway_port}"}
    tls = {"certificates": [{"vault_role": "edge", "names": list(EDGE_NAMES)}]}
    world.start_proxy(GATEWAY, "gateway", {"gateway": gateway, "tls": tls}, GATEWAY)
    egress = {"kind": "terminating", "service": EGRESS, "id": "egress-1", "address": f"127.0.0.1:{ports['egress']}"}
    world.start_proxy(EGRESS, "gateway", {"gateway": egress}, EGRESS, role=f"egress-{EGRESS}")
    for name, proxy in world.proxies.items():
        proxy.wait_ready()
        say(f"  {name} is ready")


def sidecar_settings(
    name: str,
    service_id: str,
    port: int,
    side: int,
    upstreams: list[dict[str, object]],
    meta: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return the `service` block of a sidecar's file."""
    return {
        "service": {
            "name": name,
            "id": service_id,
            "port": port,
            "address": "127.0.0.1",
            "meta": dict(meta or {}),
            "check": {"name": "alive", "tcp": f"127.0.0.1:{port}", "interval": "2s", "status": "passing"},
            "connect": {"sidecar_service": {"port": side, "proxy": {"upstreams": upstreams}}},
        }
    }


def _stop(world: World) -> None:
    for proxy in world.proxies.values():
        if proxy.program.running():
            proxy.program.process.terminate()  # type: ignore[union-attr]  # it runs
    with contextlib.ExitStack() as everybody:  # also when one has something to complain about
        for app in world.apps.values():
            everybody.callback(app.stop)
        for proxy in world.proxies.values():
            everybody.callback(proxy.program.stop)
