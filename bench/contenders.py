"""Who is measured. Each contender is a running pair (or a single hop) with its processes and its ports."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rules import DENIED, PLAIN, Rules
from bench.static import Files, envoy, envoy_pair, haproxy_pair, haproxy_plain
from harness.peers import Peers
from harness.servers import REPOSITORY, ConsulServer, Program
from lictor.up.ports import free_ports

LICTOR, CONSUL_ENVOY, STATIC_ENVOY = "lictor", "envoy by consul", "envoy by hand"
HAPROXY, CONNECT = "haproxy", "consul connect proxy"


@dataclass(frozen=True, slots=True)
class Contender:
    """`port` takes plain HTTP; `mtls_port` is the called end; `client` a PEM with leaf and key that may connect there."""

    name: str
    port: int
    processes: Sequence[Program]
    mtls_port: int = 0
    client: str = ""


def entries(prefix: str, protocol: str, rules: Rules) -> list[dict[str, object]]:
    """Return the config entries of one pair: the same for everybody, up to the names."""
    api, web = f"{prefix}-api", f"{prefix}-web"
    permissions = [
        {"Action": "deny", "HTTP": {"PathPrefix": DENIED}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET", "POST"]}},
    ]
    allowed: dict[str, object] = {"Permissions": permissions} if protocol == "http" else {"Action": "allow"}
    sources = [{"Name": name, **allowed} for name in (*rules.other_callers, web)]
    found: list[dict[str, object]] = [
        {"Kind": "service-defaults", "Name": web, "Protocol": protocol},
        {"Kind": "service-defaults", "Name": api, "Protocol": protocol},
        {"Kind": "service-intentions", "Name": api, "Sources": sources},
    ]
    retries = {"NumRetries": rules.retries, "RetryOnStatusCodes": [503]} if rules.retries else {}
    routes = [
        {"Match": {"HTTP": {"PathPrefix": prefix}}, "Destination": {"Service": api, **retries}}
        for prefix in rules.prefixes
    ]
    return [*found, {"Kind": "service-router", "Name": api, "Routes": routes}] if routes else found


class Field:
    """Starts contenders around one app and one Consul."""

    def __init__(self, consul: ConsulServer, peers: Peers, folder: Path, app_port: int) -> None:
        self._consul = consul
        self._peers = peers
        self._folder = folder
        self._app = app_port
        self._files = Files(folder)
        self._pairs = itertools.count(1)
        self.programs: list[Program] = []

    def in_consul(self, name: str, rules: Rules = PLAIN) -> Contender:
        """Start a pair that follows Consul: Lictor, Envoy or Consul's own proxy."""
        prefix = f"{name.replace(' ', '-')}-{next(self._pairs)}"
        protocol = "tcp" if name == CONNECT else "http"
        self._consul.write(*entries(prefix, protocol, rules))
        (port,) = free_ports(1)
        side = self._peers.register(f"{prefix}-api", self._app)
        self._peers.register(f"{prefix}-web", 1, upstreams={f"{prefix}-api": port})
        if name == LICTOR:
            programs = [self._peers.lictor_sidecar(f"{prefix}-{end}-1") for end in ("api", "web")]
        elif name == CONSUL_ENVOY:
            programs = [self._peers.envoy_sidecar(f"{prefix}-{end}-1") for end in ("api", "web")]
        else:
            programs = [
                self._peers.connect_proxy(f"{prefix}-api-1", side),
                self._peers.connect_proxy(f"{prefix}-web-1", port),
            ]
        return Contender(name, port, programs, side, self._client_of(f"{prefix}-web"))

    def _client_of(self, service: str) -> str:
        leaf = self._consul.api(f"agent/connect/ca/leaf/{service}")
        file = self._folder / f"{service}-client.pem"
        file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        return str(file)

    def static_envoy(self, rules: Rules = PLAIN) -> Contender:
        """Start the Envoy pair that was configured by hand."""
        port, side, *admins = free_ports(4)
        caller, called = envoy_pair(self._files, (port, side, self._app), (admins[0], admins[1]), rules)
        programs = [
            self._peers.envoy("static-api", called, admins[1]),
            self._peers.envoy("static-web", caller, admins[0]),
        ]
        return Contender(STATIC_ENVOY, port, programs, side, self._files.path("web.pem"))

    def haproxy(self, rules: Rules = PLAIN) -> Contender:
        """Start the HAProxy pair."""
        port, side = free_ports(2)
        caller, called = haproxy_pair(self._files, (port, side, self._app), rules)
        number = next(self._pairs)
        programs = [self._haproxy(f"api-{number}", called, side), self._haproxy(f"web-{number}", caller, port)]
        return Contender(HAPROXY, port, programs, side, self._files.path("web.pem"))

    def hops(self) -> list[Contender]:
        """Start one plain hop of each kind."""
        ours, theirs, other, admin = free_ports(4)
        hop = self._start("hop", [self._peers.python, "-m", "bench.hop", str(ours), str(self._app)], ours)
        bootstrap = envoy(theirs, self._app, admin, None, None)
        return [
            Contender(LICTOR, ours, [hop]),
            Contender("envoy", theirs, [self._peers.envoy("hop", bootstrap, admin)]),
            Contender(HAPROXY, other, [self._haproxy("hop", haproxy_plain(other, self._app), other)]),
        ]

    def _haproxy(self, name: str, text: str, port: int) -> Program:
        file = self._folder / f"haproxy-{name}.cfg"
        file.write_text(text)
        return self._start(f"haproxy-{name}", ["haproxy", "-db", "-f", str(file)], port)

    def _start(self, name: str, arguments: list[str], port: int) -> Program:
        program = Program(name, arguments, self._folder, {"PYTHONPATH": str(REPOSITORY)})
        program.start()
        self.programs.append(program)
        program.wait_until(lambda: _open(port), 20)
        return program

    def stop(self) -> None:
        """End what was started so far."""
        self._peers.stop()
        for program in self.programs:
            program.stop()
        self.programs.clear()


def _open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
