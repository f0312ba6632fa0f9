"""`lictor up`: the examples run, whoever is killed comes back, and Ctrl-C leaves nothing."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from harness.servers import REPOSITORY, ConsulServer, Program
from harness.world import World
from lictor.up.ports import free_ports

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
    """The processes right below, with their command lines; not one that ends while we look."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


class Up:
    """`lictor up` on a copy of an example whose gateway listens on a free port."""

    def __init__(self, example: str, folder: Path) -> None:
        shutil.copytree(EXAMPLES / example, folder / example)
        self.file = folder / example / "mesh.yaml"
        (self.port,) = free_ports(1)
        text = self.file.read_text()
        names = dict.fromkeys(re.findall(r"\b9[12]\d\d\b", text))
        self.calls = dict(zip(names, free_ports(len(names)), strict=True))
        text = re.sub(r"\b9[12]\d\d\b", lambda found: str(self.calls[found[0]]), text)
        text = re.sub(r"port: 808\d", f"port: {self.port}", text)
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
    until(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()], 15)


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


# --- a mesh of the test's own --------------------------------------------------------------------------------------

APP = """
import http.server, json, os, signal, subprocess, sys, time, urllib.request
words = sys.argv[1:]
log = open(os.environ["LOG"], "a", buffering=1)
consul, me = os.environ.get("CONSUL", ""), os.environ.get("ME", "")
call = os.environ.get("CALL", "")
def get(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except OSError as error:
        return f"error: {error}"
def seen():
    rows = json.loads(get(f"{consul}/v1/agent/services")) if consul else {}
    return {"services": sorted(rows), "called": get(call) if call else ""}
def end(*_):
    log.write(json.dumps(["end", me, seen()]) + "\\n")
    if "stubborn" not in words:
        os._exit(0)
signal.signal(signal.SIGTERM, end)
log.write(json.dumps(["start", me, seen()]) + "\\n")
if "fork" in words:
    kept = subprocess.Popen(["sleep", "600"]), subprocess.Popen(["sleep", "601"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            log.write(json.dumps(["slow", me, {}]) + "\\n")
            time.sleep(1.5)
        text = (me + (" -> " + get(call) if call and self.path != "/health" else "")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Own:
    """`lictor` with words of a test, in a folder of its own that holds `app.py`. Everything it starts is marked."""

    def __init__(self, folder: Path, *words: object, **environment: str) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        (folder / "app.py").write_text(APP)
        given = {"PYTHONPATH": str(REPOSITORY), "LOG": str(folder / "told"), "TEST_MARK": self.mark, **environment}
        given["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        arguments = [sys.executable, "-m", "lictor", *map(str, words)]
        self.program = Program("up", arguments, folder, given)

    def __enter__(self) -> Self:
        self.program.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()

    @property
    def log(self) -> str:
        return self.program.log

    def until(self, text: str) -> None:
        self.program.wait_until(lambda: text in self.log, 60)

    def ended(self, seconds: float = 40) -> int:
        assert self.program.process is not None
        return self.program.process.wait(seconds)

    def send(self, number: int) -> None:
        os.kill(self.program.pid, number)

    def told(self) -> list[tuple[str, str, dict[str, object]]]:
        file = self.folder / "told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def left(self) -> list[str]:
        """Whoever carries the mark still."""
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and self.mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


def written(folder: Path, text: str) -> Path:
    (folder / "mesh.yaml").write_text(text)
    return folder / "mesh.yaml"


ONE = "services: {{one: {{command: python3 app.py {words}, environment: {{ME: one}}}}}}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_of_an_app_that_forks(tmp_path: Path, number: int) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="fork"))) as up:
        up.until("the mesh is up")
        assert len([line for line in up.left() if line.startswith("sleep 60")]) == 2
        up.send(number)
        assert up.ended() == 0, up.log
        assert up.left() == []
        assert [event for event, _, _ in up.told()] == ["start", "end"]


@pytest.mark.parametrize("told", ["starting Consul", "starting one"])
def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path, told: str) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="fork"))) as up:
        up.until(told)
        up.send(signal.SIGINT)
        assert up.ended() == 130, up.log
        assert up.left() == []
        assert "Traceback" not in up.log


def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="stubborn fork"))) as up:
        up.until("the mesh is up")
        up.send(signal.SIGINT)
        until(lambda: len(up.told()) == 2)
        up.send(signal.SIGINT)
        assert up.ended(5) == 0, up.log
        assert "ending everything at once" in up.log
        assert up.left() == []


def test_an_app_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="stubborn"))) as up:
        up.until("the mesh is up")
        up.send(signal.SIGINT)
        assert up.ended() == 0, up.log
        assert "did not end within 10 s of SIGTERM: killed" in up.log
        assert up.left() == []


def test_a_killed_lictor_up_leaves_nothing_that_an_app_has_started(tmp_path: Path) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="fork"))) as up:
        up.until("the mesh is up")
        folder = next(
            word for line in up.left() for word in line.split() if "lictor-up-" in word and "guard" not in word
        )
        up.program.kill()
        until(lambda: not up.left(), 15)
        until(lambda: not Path(folder).parent.exists() or not Path(folder).exists())


def test_an_app_whose_child_holds_its_pipe_comes_back_when_killed(tmp_path: Path) -> None:
    with Own(tmp_path, "up", written(tmp_path, ONE.format(words="fork"))) as up:
        up.until("the mesh is up")
        (pid,) = [pid for pid, line in children(up.program.pid).items() if line.startswith("python3 app.py")]
        os.kill(pid, signal.SIGKILL)
        until(lambda: len([event for event, _, _ in up.told() if event == "start"]) == 2)
        assert "one         | ended by SIGKILL; again in" in up.log
        up.send(signal.SIGINT)
        assert up.ended() == 0
        assert up.left() == []


def test_an_app_that_crashes_at_once_is_told_with_its_last_lines(tmp_path: Path) -> None:
    command = """services: {one: {command: 'sh -c "echo no such database; exit 3"'}}\n"""
    with Own(tmp_path, "up", written(tmp_path, command)) as up:
        assert up.ended() == 1
        assert "lictor: one ended with exit code 3, 3 times, and was never ready; its last lines:" in up.log
        assert up.log.endswith("its last lines:\n" + "    no such database\n" * 3), "the reason is told last"
        assert up.left() == []


def test_an_app_that_never_gets_ready_is_told_with_what_was_seen(tmp_path: Path) -> None:
    with Own(tmp_path, "up", "--wait", 2, written(tmp_path, "services: {one: {command: sleep 60}}\n")) as up:
        assert up.ended() == 1
        assert "lictor: one is not ready after 2 s: port " in up.log
        assert "nobody listens ($PORT says where to); it has said nothing" in up.log
        assert up.left() == []


def test_a_request_under_way_is_answered_when_the_mesh_ends(tmp_path: Path) -> None:
    gate, way = free_ports(2)
    text = f"""
services:
  web: {{command: python3 app.py, environment: {{ME: web, CALL: "http://127.0.0.1:{way}/"}}, upstreams: {{api: {way}}}}}
  api: {{command: python3 app.py, environment: {{ME: api}}}}
gateway: {{port: {gate}, hosts: {{web: localhost}}}}
"""
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        up.until("the mesh is up")
        answers: list[str] = []

        def ask() -> None:
            request = urllib.request.Request(f"http://127.0.0.1:{gate}/slow", headers={"Host": "localhost"})
            answers.append(urllib.request.urlopen(request, timeout=10).read().decode())

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: any(event == "slow" for event, _, _ in up.told()))
        up.send(signal.SIGINT)
        asking.join()
        assert answers == ["web -> api"]
        assert up.ended() == 0


def test_others_are_served_while_somebody_is_dead(tmp_path: Path) -> None:
    gate, gone, served = *free_ports(1), "gone", "served"
    one = "command: python3 app.py, environment: {ME: %s}"
    text = f"services: {{gone: {{{one % gone}}}, served: {{{one % served}}}}}\n"
    text += f"gateway: {{port: {gate}, hosts: {{gone: [gone.test], served: [served.test]}}}}\n"
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        up.until("the mesh is up")
        below = children(up.program.pid)
        victims = [pid for pid, line in below.items() if "gone-sidecar" in line or "lictor dev" in line]
        victims += [
            pid for pid, line in below.items() if (Path(f"/proc/{pid}/environ").read_bytes().find(b"ME=gone")) > 0
        ]
        assert len(victims) == 3
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            answers = {get(gate, "served.test") for _ in range(100)}
            assert answers == {"served"}
        until(lambda: get(gate, "gone.test") == "gone")
        assert get(gate, "served.test") == "served"


# --- a Consul and a Vault that exist -------------------------------------------------------------------------------


def test_the_order_as_an_app_sees_it(consul: ConsulServer, tmp_path: Path) -> None:
    """Start: its sidecar is registered and calls for it. End: it has left the catalog, and its calls still go out."""
    names = [f"{word}-{uuid.uuid4().hex[:6]}" for word in ("web", "api")]
    web, api = names
    (way,) = free_ports(1)
    text = f"""
services:
  {web}:
    command: python3 app.py
    environment: {{ME: web, CONSUL: "{consul.http_addr}", CALL: "http://127.0.0.1:{way}/"}}
    upstreams: {{{api}: {way}}}
  {api}: {{command: python3 app.py, environment: {{ME: api, CONSUL: "{consul.http_addr}"}}}}
config:
  - {{Kind: service-router, Name: {api}, Routes: []}}
consul: {{address: "{consul.http_addr}"}}
"""
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        up.until("the mesh is up")
        kinds = ("service-defaults", "service-intentions", "service-router")
        held = {kind: {row.get("Name") for row in consul.api(f"config/{kind}")} & set(names) for kind in kinds}
        assert held == {"service-defaults": {web, api}, "service-intentions": {api}, "service-router": {api}}
        up.send(signal.SIGINT)
        assert up.ended() == 0, up.log
        told = {(event, who): seen for event, who, seen in up.told()}
        assert list(told) == [("start", "api"), ("start", "web"), ("end", "web"), ("end", "api")]
        assert f"{web}-sidecar-proxy" in told["start", "web"]["services"]  # type: ignore[operator]
        assert told["start", "web"]["called"] == "api", "its sidecar has a leaf and an endpoint before it starts"
        ended = {name for name in told["end", "web"]["services"] if name.startswith(web)}  # type: ignore[attr-defined]
        assert ended == set(), "it has left the catalog"
        assert told["end", "web"]["called"] == "api", "what it calls goes on until it has ended"
        assert not [name for name in consul.api("agent/services") if name.startswith(tuple(names))]
        held = {kind: {row.get("Name") for row in consul.api(f"config/{kind}")} & set(names) for kind in kinds}
        assert set().union(*held.values()) == set(), "its entries are taken back"


def test_entries_that_are_there_are_kept_or_replaced_and_those_changed_meanwhile_stay(
    consul: ConsulServer, tmp_path: Path
) -> None:
    name = f"kept-{uuid.uuid4().hex[:6]}"
    consul.write({"Kind": "service-defaults", "Name": name, "Protocol": "http2"})
    text = f"services: {{{name}: {{command: python3 app.py}}}}\nconsul: {{address: '{consul.http_addr}'}}\n"
    text += f"config: [{{kind: service-resolver, name: {name}, connect_timeout: 3s}}]\n"
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        up.until("the mesh is up")
        assert f"service-defaults/{name} is there already and stays as it is" in up.log
        consul.write({"Kind": "service-resolver", "Name": name, "ConnectTimeout": "4s"})
        up.send(signal.SIGTERM)
        assert up.ended() == 0, up.log
    assert f"service-resolver/{name} stays in Consul: somebody has changed it meanwhile" in up.log
    assert consul.api(f"config/service-defaults/{name}")["Protocol"] == "http2"
    assert consul.api(f"config/service-resolver/{name}")["ConnectTimeout"] == "4s"


def test_tokens_and_approles_by_file(mesh: World, tmp_path: Path) -> None:
    """The demo's Consul with ACLs, its token files, its Vault: another `db`, put beside the one that runs."""
    credentials = tmp_path / "vault" / "db"
    mesh.issue_secret_id("db", credentials)
    shutil.copytree(mesh.folder / "tokens", tmp_path / "tokens")
    text = f"""
services: {{db-9: {{service: db, command: python3 app.py, protocol: tcp}}}}
consul: {{address: "{mesh.consul.http_addr}", token_file: tokens/$SERVICE}}
vault:
  address: "{mesh.vault.address}"
  auth:
    method: approle
    role_id_file: vault/$SERVICE/role-id
    secret_id_file: vault/$SERVICE/wrapped-secret-id
"""
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        up.until("the mesh is up")
        rows = mesh.consul.api("health/connect/db?passing")
        assert "db-9-sidecar-proxy" in {row["Service"]["ID"] for row in rows}
        up.send(signal.SIGINT)
        assert up.ended() == 0, up.log
        assert up.left() == []
    assert "db-9" not in mesh.consul.api("agent/services")


def test_a_token_that_may_not_write_entries_is_told(consul_with_acls: ConsulServer, tmp_path: Path) -> None:
    text = f"services: {{one: {{command: python3 app.py}}}}\nconsul: {{address: '{consul_with_acls.http_addr}'}}\n"
    with Own(tmp_path, "up", written(tmp_path, text)) as up:
        assert up.ended() == 1
        assert "lictor: Consul does not take service-defaults/one: " in up.log
        assert "Permission denied" in up.log
        assert "Traceback" not in up.log


@pytest.mark.parametrize("words", [("up", "mesh.yaml"), ("run", "--name", "one", "--", "python3", "app.py")])
def test_a_consul_that_does_not_answer_is_told_at_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    (port,) = free_ports(1)
    written(tmp_path, f"services: {{one: {{command: python3 app.py}}}}\nconsul: {{address: '127.0.0.1:{port}'}}\n")
    begun = time.monotonic()
    with Own(tmp_path, *words, CONSUL_HTTP_ADDR=f"127.0.0.1:{port}") as up:
        assert up.ended(20) == 1
        assert time.monotonic() - begun < 10
        assert f"lictor: http://127.0.0.1:{port}: no Consul agent answers" in up.log
        assert "start an agent (`lictor dev` is one), or give its address" in up.log
        assert up.left() == []


# --- lictor run, lictor init ---------------------------------------------------------------------------------------


def test_run_puts_one_process_into_a_mesh_that_exists(consul: ConsulServer, tmp_path: Path) -> None:
    name = f"alone-{uuid.uuid4().hex[:6]}"
    port, way = free_ports(2)
    words = ["run", "--name", name, "--port", port, "--http-addr", f"127.0.0.1:{consul.http_port}"]
    words += ["--upstream", f"other:{way}", "--meta", "version=v1", "--", "python3", "app.py"]
    with Own(tmp_path, *words) as run:
        run.until("is in the mesh")
        (row,) = consul.api(f"health/connect/{name}?passing")
        assert row["Service"]["ID"] == f"{name}-sidecar-proxy"
        assert consul.api(f"agent/service/{name}")["Meta"] == {"version": "v1"}
        run.send(signal.SIGINT)
        assert run.ended() == 0, run.log
        assert run.left() == []
    assert not [key for key in consul.api("agent/services") if key.startswith(name)]


@pytest.mark.parametrize(("command", "code"), [("sleep 1; exit 7", 7), ("true", 0), ("sleep 1; kill -9 $$", 137)])
def test_run_ends_with_the_exit_code_of_its_command(
    consul: ConsulServer, tmp_path: Path, command: str, code: int
) -> None:
    name = f"job-{uuid.uuid4().hex[:6]}"
    words = ["run", "--name", name, "--health", "none", "--http-addr", consul.http_addr, "--", "sh", "-c", command]
    with Own(tmp_path, *words) as run:
        assert run.ended() == code, run.log
        assert run.left() == []
    assert not [key for key in consul.api("agent/services") if key.startswith(name)]


def test_run_with_a_token_from_a_file(consul_with_acls: ConsulServer, tmp_path: Path) -> None:
    name = f"known-{uuid.uuid4().hex[:6]}"
    (tmp_path / "token").write_text(consul_with_acls.token)
    words = ["run", "--name", name, "--http-addr", consul_with_acls.http_addr, "--token-file", "token"]
    with Own(tmp_path, *words, "--", "python3", "app.py") as run:
        run.until("is in the mesh")
        run.send(signal.SIGTERM)
        assert run.ended() == 0, run.log
    assert not [key for key in consul_with_acls.api("agent/services") if key.startswith(name)]


def test_run_tells_all_wrong_flags_at_once(tmp_path: Path) -> None:
    words = ["run", "--name", "a b", "--port", "70000", "--upstream", "api", "--upstream", "db:x", "--meta", "v1"]
    words += ["--health", "up", "--token-file", "nowhere", "--http-addr", "http://", "--", "no-such-program"]
    with Own(tmp_path, *words) as run:
        assert run.ended() == 2
        for told in (
            "--name a b: 'a b' cannot name a service",
            "--port 70000: '70000' is not a port; give a number from 1 to 65535",
            "--upstream api: is not name:value; write --upstream api:9191",
            "--upstream db:x: 'x' is not a port",
            "--meta v1: is not name=value; write --meta version=v1",
            "--health up: is no path; write --health /health, or --health none",
            "nowhere is not there",
            "'http://' is not an address",
            "the command: no-such-program is not found",
        ):
            assert told in run.log, run.log


def test_what_init_writes_runs_as_it_is(tmp_path: Path) -> None:
    with Own(tmp_path, "init") as init:
        assert init.ended() == 0
        assert "lictor up mesh.yaml" in init.log
    with Own(tmp_path, "init") as again:
        assert again.ended() == 1
        assert "mesh.yaml is there already; nothing was changed" in again.log
    (port,) = free_ports(1)
    file = tmp_path / "mesh.yaml"
    file.write_text(file.read_text().replace("8080", str(port)))  # another test may have that one
    with Own(tmp_path, "up") as up:
        up.until("the mesh is up")
        assert "Directory listing" in get(port)
        up.send(signal.SIGINT)
        assert up.ended() == 0, up.log
