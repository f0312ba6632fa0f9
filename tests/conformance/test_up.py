"""`lictor up`: the examples run, whoever is killed comes back, and Ctrl-C leaves nothing."""

from __future__ import annotations

import collections
import os
import re
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from harness.servers import REPOSITORY, Program, consul_server, free_ports

EXAMPLES = REPOSITORY / "examples"


def until(check: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.05)


def get(port: int, host: str = "localhost") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError as error:
        return f"error: {error}"


def say_line(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.settimeout(5)
        try:
            sock.sendall(b"hello\n")
            return sock.recv(100)
        except OSError:
            return b""


def children(pid: int) -> dict[int, str]:
    """The processes right below, with their command lines."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


class Up:
    """`lictor up` on a copy of an example whose gateway listens on a free port."""

    def __init__(self, example: str, folder: Path) -> None:
        shutil.copytree(EXAMPLES / example, folder / example)
        self.file = folder / example / "mesh.yaml"
        (self.port,) = free_ports(1)
        text = re.sub(r"port: 808\d", f"port: {self.port}", self.file.read_text())
        self.calls = {}
        for name in re.findall(r"92\d\d|91\d\d", text):
            if name not in self.calls:
                (self.calls[name],) = free_ports(1)
        for name, port in self.calls.items():
            text = text.replace(name, str(port))
        self.file.write_text(text)
        self.program = Program(
            "up",
            [sys.executable, "-m", "lictor", "up", str(self.file)],
            folder,
            {"PYTHONPATH": str(REPOSITORY), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )

    def __enter__(self) -> Self:
        self.program.start()
        self.program.wait_until(lambda: "the mesh is up" in self.program.log, 60)
        return self

    def __exit__(self, *_: object) -> None:
        below = children(self.program.pid) if self.program.running() else {}
        assert self.program.stop(signal.SIGINT) == 0, self.program.log
        assert not [pid for pid in below if Path(f"/proc/{pid}").exists()], self.program.log


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[Up]:
    with Up("hello", tmp_path) as running:
        yield running


def test_hello(hello: Up) -> None:
    assert "Hello from the mesh" in get(hello.port)
    assert f"curl http://localhost:{hello.port}/" in hello.program.log


def test_canary_sends_a_tenth_to_the_new_version(tmp_path: Path) -> None:
    with Up("canary", tmp_path) as up:
        counted = collections.Counter(get(up.port).strip() for _ in range(300))
    assert set(counted) == {"web -> api-v1", "web -> api-v2"}
    assert 8 <= counted["web -> api-v2"] <= 60


def test_database_lets_the_shop_in_and_nobody_else(tmp_path: Path) -> None:
    with Up("database", tmp_path) as up:
        assert say_line(up.calls["9201"]) == b"store: hello\n"
        assert say_line(up.calls["9202"]) == b""


@pytest.mark.parametrize("victim", ["http.server", "lictor sidecar", "lictor gateway", "lictor dev"])
def test_whoever_is_killed_comes_back_and_the_others_go_on(hello: Up, victim: str) -> None:
    before = children(hello.program.pid)
    (pid,) = [pid for pid, line in before.items() if victim in line]
    os.kill(pid, signal.SIGKILL)
    until(lambda: any(victim in line for one, line in children(hello.program.pid).items() if one != pid))
    until(lambda: "Hello from the mesh" in get(hello.port))
    after = children(hello.program.pid)
    assert {one for one in before if one != pid} <= set(after), "the others went on"
    assert "SIGKILL" in hello.program.log


def test_nothing_outlives_a_killed_lictor_up(tmp_path: Path) -> None:
    up = Up("hello", tmp_path)
    up.program.start()
    try:
        up.program.wait_until(lambda: "the mesh is up" in up.program.log, 60)
        below = children(up.program.pid)
        assert len(below) == 5
    finally:
        up.program.kill()
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()], 5)


def test_a_wrong_file_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file.write_text(
            f"services:\n  web: {{command: no-such-program, prot: 1, port: {port}, upstreams: {{nobody: 9191}}}}\n"
            "  a: {command: sleep 1, upstreams: {b: 9192}}\n  b: {command: sleep 1, upstreams: {a: 9193}}\n"
        )
        program = Program(
            "up", [sys.executable, "-m", "lictor", "up", str(file)], tmp_path, {"PYTHONPATH": str(REPOSITORY)}
        )
        program.start()
        assert program.process is not None
        assert program.process.wait(20) == 2
    for told in (
        f"{file}:2: services.web.command: no-such-program is not found",
        f"{file}:2: services.web.prot: is not a known field; did you mean `port`?",
        "services.web.upstreams.nobody: is no service of this file; there are a, b, web",
        "call each other in a circle: a -> b -> a",
        f"services.web.port: port {port} cannot be had: address already in use",
    ):
        assert told in program.log
    assert "starting" not in program.log


def test_run_puts_one_process_into_a_mesh_that_exists(tmp_path: Path) -> None:
    port, way = free_ports(2)
    with consul_server() as consul:
        words = ["run", "--name", "alone", "--port", str(port), "--http-addr", f"127.0.0.1:{consul.http_port}"]
        words += [
            "--upstream",
            f"alone2:{way}",
            "--",
            sys.executable,
            "-m",
            "http.server",
            str(port),
            "--bind",
            "127.0.0.1",
        ]
        program = Program("run", [sys.executable, "-m", "lictor", *words], tmp_path, {"PYTHONPATH": str(REPOSITORY)})
        program.start()
        try:
            program.wait_until(lambda: "is in the mesh" in program.log, 60)
            until(
                lambda: (
                    [row["Service"]["ID"] for row in consul.api("health/connect/alone?passing")]
                    == ["alone-sidecar-proxy"]
                )
            )
        finally:
            assert program.stop(signal.SIGINT) == 0, program.log
        assert consul.api("agent/services") == {}
