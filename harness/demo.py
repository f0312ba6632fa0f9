"""`make demo`: the mesh on this machine, and what one does with it, with its real output.

On the embedded servers, with nothing but Python; with REAL=1 on a real Consul and a real Vault API: the same story.
Stays up until Ctrl-C. With ONCE=1 it checks everything that it shows and ends by itself, with exit code 0 if all of it
is as it must be.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.servers import consul_program
from harness.world import GATEWAY, World, world
from lictor.up.ports import free_ports

BOLD, DIM, RED, PLAIN = ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
SPLIT_REQUESTS = 500


class Story:
    """Tells what is done and keeps what went wrong."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.wrong: list[str] = []

    def progress(self, text: str) -> None:
        print(f"{DIM}[{time.monotonic() - self.begun:5.1f} s]{PLAIN} {text}", flush=True)

    def step(self, title: str) -> None:
        print(f"\n{BOLD}{title}{PLAIN}", flush=True)

    def show(self, command: str, output: str) -> None:
        print(f"  $ {command}")
        for line in output.rstrip().splitlines():
            print(f"    {line}")
        sys.stdout.flush()

    def expect(self, what: str, good: bool) -> None:
        if not good:
            self.wrong.append(what)
            print(f"    {RED}this is not as it must be: {what}{PLAIN}", flush=True)


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "5", *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout


def answers(url: str, *headers: str, count: int) -> collections.Counter[str]:
    """Return how often each body was answered; one connection, many requests."""
    urls = [url] * count
    done = subprocess.run(["curl", "--silent", *headers, *urls], capture_output=True, text=True, check=False)
    return collections.Counter(line for line in done.stdout.splitlines() if line)


def until(check: Callable[[], bool], seconds: float) -> float | None:
    """Return how long it took, or None."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if check():
            return time.monotonic() - begun
        time.sleep(0.01)
    return None


def tell(story: Story, mesh: World) -> None:
    web, api = ["-H", "Host: web.example.com"], ["-H", "Host: api.example.com"]
    url = mesh.url

    story.step("1. Allowed: through the gateway to web, which calls api through its sidecar")
    said = curl(*web, f"{url}/")
    story.show(f"curl -H 'Host: web.example.com' {url}/", said)
    story.expect("web answers through the gateway", said.startswith("web v1 -> api: api v"))

    story.step("2. Denied: the gateway may only read api (an intention with HTTP permissions)")
    said = curl("-i", "-X", "POST", *api, f"{url}/orders")
    kept = [line for line in said.replace("\r", "").splitlines() if line.startswith(("HTTP", "x-lictor", "RBAC"))]
    story.show(f"curl -i -X POST -H 'Host: api.example.com' {url}/orders", "\n".join(kept))
    story.expect("POST is denied", "403" in said and "RBAC: access denied" in said)

    story.step("3. An intention on the command line: web may not call db any more, and again")
    story.show(_ask_db_command(mesh), _ask_db(mesh))
    story.expect("db answers", _ask_db(mesh) == "db: hello")
    _consul(story, mesh, "intention", "delete", "web", "db")
    took = until(lambda: _ask_db(mesh) != "db: hello", 3)
    story.show(
        _ask_db_command(mesh), f"(closed without a byte{f', {took * 1000:.0f} ms later' if took is not None else ''})"
    )
    story.expect("the tcp connection is closed", took is not None)
    _consul(story, mesh, "intention", "create", "-allow", "web", "db")
    story.expect("db answers again", until(lambda: _ask_db(mesh) == "db: hello", 3) is not None)
    story.show(_ask_db_command(mesh), _ask_db(mesh))

    story.step(f"4. The split: 80/20, then 50/50 by `{_operator(mesh)} config write`")
    counted = answers(f"{url}/", *api, count=SPLIT_REQUESTS)
    story.show(f"{SPLIT_REQUESTS} x curl -H 'Host: api.example.com' {url}/", _shares(counted))
    story.expect("the split is 80/20", 0.72 < counted["api v1"] / SPLIT_REQUESTS < 0.88)
    split = mesh.folder / "split.hcl"
    split.write_text(
        'Kind = "service-splitter"\nName = "api"\n'
        'Splits = [ { Weight = 50, ServiceSubset = "v1" }, { Weight = 50, ServiceSubset = "v2" } ]\n'
    )
    story.show(f"cat {split}", split.read_text())
    _consul(story, mesh, "config", "write", str(split))
    time.sleep(0.5)
    counted = answers(f"{url}/", *api, count=SPLIT_REQUESTS)
    story.show(f"{SPLIT_REQUESTS} x curl -H 'Host: api.example.com' {url}/", _shares(counted))
    story.expect("the split is 50/50", 0.42 < counted["api v1"] / SPLIT_REQUESTS < 0.58)
    story.expect("no request failed", sum(counted[f"api v{number}"] for number in (1, 2)) == SPLIT_REQUESTS)

    story.step("5. TLS at the edge: the gateway's certificate comes from Vault, too")
    secure = ["--cacert", str(mesh.edge_ca)]
    said = curl(*secure, f"{mesh.tls_url}/")
    story.show(f"curl --cacert {mesh.edge_ca} {mesh.tls_url}/", said)
    story.expect("web answers over TLS", said.startswith("web v1 -> api: api v"))

    story.step("6. Out of the mesh: web may read a partner's offers; TLS begins at the terminating gateway")
    outside = f"http://127.0.0.1:{mesh.ports['web-to-partner']}"
    offers = until(lambda: curl(f"{outside}/offers").startswith("partner: /offers"), 10)
    story.show(f"curl {outside}/offers   # as web calls it", curl(f"{outside}/offers"))
    story.expect("the partner answers", offers is not None)
    said = curl("-w", "%{http_code}", f"{outside}/orders")
    story.show(f"curl {outside}/orders", said.removesuffix("403"))
    story.expect("anything else is denied", said == "RBAC: access denied403")
    _consul(story, mesh, "config", "delete", "-kind", "service-intentions", "-name", "partner")
    shut = until(lambda: curl(f"{outside}/offers") == "RBAC: access denied", 3)
    story.show(f"curl {outside}/offers", curl(f"{outside}/offers"))
    story.expect("nobody reaches the outside without an intention", shut is not None)

    story.step("7. Leaves rotate: this demo's live for 30 seconds")
    before = _serial(mesh)
    story.show(_serial_command(mesh), before)
    story.progress("waiting for the next leaf (between a half and two thirds of its life)")
    rotated = until(lambda: _serial(mesh) != before, 40)
    story.show(_serial_command(mesh), _serial(mesh))
    story.expect("the leaf was renewed", rotated is not None)
    said = curl(*web, f"{url}/")
    story.show(f"curl -H 'Host: web.example.com' {url}/", said)
    story.expect("traffic goes on", said.startswith("web v1 -> api: api v"))


def _consul(story: Story, mesh: World, *arguments: str) -> None:
    done = mesh.consul_cli(*arguments)
    story.show(f"{_operator(mesh)} {shlex.join(arguments)}", done.stdout + done.stderr)


def _operator(mesh: World) -> str:
    """Return the name of the command line: `consul`, or `lictor`, which has the same words."""
    return "lictor" if mesh.embedded else "consul"


def _ask_db(mesh: World) -> str:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", mesh.ports["web-to-db"]), 2) as sock:
        sock.settimeout(2)
        sock.sendall(b"hello\n")
        return sock.recv(100).decode().strip()
    return ""


def _ask_db_command(mesh: World) -> str:
    return f"echo hello | nc -q 1 127.0.0.1 {mesh.ports['web-to-db']}"


def _shares(counted: collections.Counter[str]) -> str:
    return "   ".join(f"{answer}: {count}" for answer, count in sorted(counted.items()))


def _serial(mesh: World) -> str:
    page = mesh.proxies["web"].admin("certs")
    leaf = page["leaf"]  # type: ignore[index]  # a JSON object
    return f"{leaf['spiffe_id']}\nserial {leaf['serial']}, ends {leaf['not_after']}"


def _serial_command(mesh: World) -> str:
    return f"curl http://127.0.0.1:{mesh.proxies['web'].admin_port}/certs   # the leaf in force"


def manual(mesh: World) -> None:
    print(f"\n{BOLD}The mesh stays up until Ctrl-C.{PLAIN} In another terminal:\n")
    folder = Path(sys.executable).parent if mesh.embedded else consul_program().parent
    print(f"  export PATH={folder}:$PATH")
    print(f"  export CONSUL_HTTP_ADDR={mesh.consul.http_addr}")
    print(f"  export CONSUL_HTTP_TOKEN_FILE={mesh.token_file('operator')}")
    operator = _operator(mesh)
    print(f"  {operator} intention delete web db && {operator} intention create -deny web db")
    print(f"  {_ask_db_command(mesh)}")
    print(f"  curl -H 'Host: web.example.com' {mesh.url}/")
    print(f"  curl --cacert {mesh.edge_ca} {mesh.tls_url}/")
    print(f"\n  gateway     {mesh.url}, {mesh.tls_url}")
    if not mesh.embedded:
        print(f"  Consul UI   {mesh.consul.http_addr}/ui   (token: {mesh.token_file('operator')})")
    for name, proxy in mesh.proxies.items():
        print(f"  {name:<11} http://127.0.0.1:{proxy.admin_port}/ready /metrics /config_dump /certs")
    sys.stdout.flush()


def _gateway_port() -> int:
    """Return 8080 as in the config entry, or a free port when somebody has it."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 8080))
        except OSError:
            return free_ports(1)[0]
    return 8080


def main() -> int:
    if shutil.which("curl") is None:
        print("the demo asks with curl, which is not on this machine: install it and come back", file=sys.stderr)
        return 2
    story = Story()
    once, embedded = os.environ.get("ONCE") == "1", os.environ.get("REAL") != "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with world(story.progress, "30s", gateway_port=_gateway_port(), embedded=embedded) as mesh:
            until(lambda: curl("-H", "Host: web.example.com", f"{mesh.url}/").startswith("web v1 -> api: api v"), 15)
            story.progress(f"the mesh is up: {GATEWAY} -> web -> api v1, v2")
            tell(story, mesh)
            if not once:
                manual(mesh)
                with contextlib.suppress(KeyboardInterrupt):
                    while all(proxy.program.running() for proxy in mesh.proxies.values()):
                        time.sleep(0.5)
            story.progress("stopping")
    except KeyboardInterrupt:
        return 130
    if story.wrong:
        print(f"\n{RED}{len(story.wrong)} things were not as they must be{PLAIN}: {'; '.join(story.wrong)}")
        return 1
    story.progress("done; nothing is left running")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
