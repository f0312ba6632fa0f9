"""The embedded servers as servers: blocking queries, size, state over a restart, faults on command, stock clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import hvac
import pytest

from harness.load import load
from harness.servers import REPOSITORY, DevServers, Program, consul_program, dev_server, eventually, http_json
from harness.world import World, world
from lictor.up.ports import free_ports

HOST = "web.example.com"


@pytest.fixture(scope="module")
def dev() -> Iterator[DevServers]:
    with dev_server() as servers:
        yield servers


def index_of(dev: DevServers, path: str) -> int:
    import urllib.request

    with urllib.request.urlopen(f"{dev.http_addr}/v1/{path}", timeout=5) as answer:
        return int(answer.headers["X-Consul-Index"])


def entry(name: str, protocol: str = "http") -> dict[str, Any]:
    return {"Kind": "service-defaults", "Name": name, "Protocol": protocol}


# --- size ----------------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return what a process has spent: time on the clock means nothing on a shared machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def many(dev: DevServers) -> AsyncIterator[Asking]:
    """Ask with as many connections as are needed."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Asking(session, dev)


@dataclass(slots=True)
class Asking:
    """Requests to one dev server, and what they cost it."""

    session: aiohttp.ClientSession
    dev: DevServers

    async def read(self, path: str, index: int = 0) -> tuple[int, Any]:
        """Return the index and the JSON of an answer."""
        params = {"index": str(index), "wait": "120s"} if index else {}
        async with self.session.get(f"{self.dev.http_addr}/v1/{path}", params=params) as answer:
            assert answer.status == 200, await answer.text()
            return int(answer.headers.get("X-Consul-Index") or 0), await answer.json()

    async def write(self, path: str, body: object = None) -> None:
        """Write, and insist that it was taken."""
        async with self.session.put(f"{self.dev.http_addr}/v1/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def cost(self, awaited: Awaitable[object]) -> float:
        """Return the CPU seconds that the server spends while this runs."""
        before = cpu_seconds(self.dev.program.pid)
        await awaited
        return cpu_seconds(self.dev.program.pid) - before

    async def register(self, count: int) -> None:
        """Register instances: of a hundred services, on five hundred nodes, each with a check."""

        async def some(start: int) -> None:
            for number in range(start, count, 20):
                service = {"ID": f"i{number}", "Service": f"s{number % 100}", "Port": 80}
                check = {"CheckID": f"c{number}", "Name": "c", "Status": "passing", "ServiceID": f"i{number}"}
                given = {"Node": f"n{number % 500}", "Address": "10.0.0.1", "Service": service, "Check": check}
                await self.write("catalog/register", given)

        async with asyncio.TaskGroup() as group:
            for start in range(20):
                group.create_task(some(start))

    async def settled(self) -> None:
        """Wait until the server does nothing any more, its state file included."""
        while await self.cost(asyncio.sleep(0.7)) > 0.03:
            pass


async def test_a_thousand_waiting_queries_cost_next_to_nothing_and_one_write_wakes_those_it_concerns() -> None:
    with dev_server() as dev:
        async with many(dev) as asking, asyncio.TaskGroup() as group:
            await asking.register(1000)
            index, _ = await asking.read("catalog/nodes")
            tasks = [group.create_task(asking.read(f"health/service/s{n % 100}", index + 9999)) for n in range(1000)]
            await asyncio.sleep(1)
            await asking.settled()
            idle = await asking.cost(asyncio.sleep(5)) / 5
            assert not [task for task in tasks if task.done()]
            one = await asking.cost(_wakes(asking, {n for n in range(1000) if n % 100 == 7}, tasks))
            for task in tasks:
                task.cancel()
    assert idle < 0.01, f"{idle:.1%} of a core"  # 0.0 % as a rule
    assert one < 0.5, f"{one:.2f} s of CPU for one write that ten watches wait for"  # 0.01 to 0.05 s


async def _wakes(asking: Asking, concerned: set[int], tasks: list[asyncio.Task[tuple[int, Any]]]) -> None:
    """Write about one service: those who wait for it are woken, nobody else."""
    await asking.write(
        "catalog/register", {"Node": "n7", "Address": "10.0.0.1", "Service": {"ID": "i7", "Service": "s7"}}
    )
    await asyncio.wait([tasks[number] for number in concerned], timeout=20)
    await asyncio.sleep(0.3)
    assert {number for number, task in enumerate(tasks) if task.done()} == concerned


async def test_ten_thousand_instances_stay_usable() -> None:
    with dev_server() as dev:
        async with many(dev) as asking:
            spent = await asking.cost(asking.register(10_000))
            assert spent < 20, f"{spent:.1f} s of CPU to register"  # 3.4 s
            await asking.settled()
            _, rows = await asking.read("health/service/s7")
            assert len(rows) == 100
            most = {
                "health/service/s7": 0.05,
                "health/checks/s7": 0.05,
                "catalog/service/s7": 0.05,
                "catalog/node/n7": 0.03,
                "health/connect/s7": 0.03,
                "discovery-chain/s7": 0.03,
                "catalog/nodes": 0.1,
                "catalog/services": 0.3,
                "health/state/any": 1.0,
            }  # a fifth of it, or less, is what they take
            costs = {path: await asking.cost(_five(asking, path)) / 5 for path in most}
            assert {path: cost for path, cost in costs.items() if cost > most[path]} == {}
            write = {"Node": "n7", "Address": "10.0.0.1", "Service": {"ID": "i7", "Service": "s7", "Port": 81}}
            assert await asking.cost(asking.write("catalog/register", write)) < 0.1


async def _five(asking: Asking, path: str) -> None:
    for _ in range(5):
        await asking.read(path)


async def test_an_agent_with_a_thousand_sidecars_stays_usable() -> None:
    with dev_server() as dev:
        async with many(dev) as asking:

            async def register() -> None:
                for number in range(1000):
                    sidecar = {"Port": 30000 + number, "Checks": [{"Name": "a", "AliasService": f"a{number}"}]}
                    given = {"Name": "a", "ID": f"a{number}", "Port": 80, "Connect": {"SidecarService": sidecar}}
                    given["Check"] = {"TTL": "10m", "Status": "passing"}
                    await asking.write("agent/service/register", given)

            async def beat() -> None:
                for number in range(100):
                    await asking.write(f"agent/check/fail/service:a{number}?note=x")

            spent = await asking.cost(register())
            assert spent < 8, f"{spent:.1f} s of CPU to register"  # 0.9 s
            await asking.settled()
            spent = await asking.cost(beat()) / 100
            assert spent < 0.01, f"{spent:.4f} s of CPU for a heartbeat"  # 0.0005 s
            _, rows = await asking.read("health/connect/a")
            failing = [row for row in rows if any(check["Status"] == "critical" for check in row["Checks"])]
            assert (len(rows), len(failing)) == (1000, 100)


# --- state ---------------------------------------------------------------------------------------------------------


def test_the_state_outlives_a_kill_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with dev_server() as dev:
        dev.api("config", "PUT", entry("kept"))
        dev.api("agent/service/register", "PUT", {"Name": "kept", "Port": 7})
        dev.api("kv/kept", "PUT", "value")
        before = dev.api("connect/ca/roots")
        index = index_of(dev, "config/service-defaults/kept")
        file = dev.program.folder / "state.json"
        dev.program.wait_until(lambda: "kept" in json.loads(file.read_text())["consul"]["state"]["keys"])
        assert file.stat().st_mode & 0o077 == 0
        dev.program.kill()
        dev.restart()
        assert dev.api("config/service-defaults/kept")["Protocol"] == "http"
        assert dev.api("agent/services")["kept"]["Port"] == 7
        assert base64.b64decode(dev.api("kv/kept")[0]["Value"]) == b'"value"'
        assert dev.api("connect/ca/roots")["ActiveRootID"] == before["ActiveRootID"]
        assert index_of(dev, "config/service-defaults/kept") == index


@pytest.mark.parametrize("text", ["", "{", '{"consul": 1}', "[]"])
def test_a_state_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)
    words = [sys.executable, "-m", "lictor", "dev", "--http-port", "0", "--vault-port", "0", "--state", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20, cwd=REPOSITORY)
    assert done.returncode == 2
    assert f"--state {file}: is not a state of the dev server" in done.stderr
    assert file.read_text() == text


def test_a_port_in_use_and_a_fault_that_is_none_are_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for more, told in (
            (["--http-port", port, "--vault-port", "0"], f"--http-port: cannot listen on 127.0.0.1:{port}"),
            (["--fault", "latncy=1", "--fault", "status=x"], "--fault: latncy: is no fault; there are latency, status"),
        ):
            words = [sys.executable, "-m", "lictor", "dev", *more]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20, cwd=REPOSITORY)
            assert done.returncode == 2
            assert told in done.stderr


def test_it_listens_on_loopback_alone_and_says_what_it_is(dev: DevServers) -> None:
    assert "not for production" in dev.program.log
    tables = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in tables if line.split()[3] == "0A"]
    ports = {f"{port:04X}" for port in (dev.http_port, dev.vault_port)}
    mine = [address for address in listening if address.rpartition(":")[2] in ports]
    assert len(mine) == 2
    assert all(address.startswith("0100007F") for address in mine)


# --- what it does not do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "query",
        "peerings",
        "snapshot",
        "acl/roles/x",
        "event/list",
        "operator/raft/configuration",
        "agent/metrics",
        "agent/monitor",
        "coordinate/nodes",
        "internal/ui/services",
        "exported-services",
    ],
)
def test_what_consul_has_and_we_have_not_is_named(dev: DevServers, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        dev.api(path)
    assert caught.value.code in {404, 405}
    if path != "acl/roles/x":
        assert f"GET /v1/{path}: the dev server of Lictor does not do this" in caught.value.msg


def test_what_vault_has_and_we_have_not_is_named(dev: DevServers) -> None:
    for method, path in (
        ("POST", "sys/mounts/kv"),
        ("GET", "sys/metrics"),
        ("POST", "sys/auth/jwt"),
        ("GET", "secret/x"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            dev.vault.api(path, method, {"type": path.rpartition("/")[2]})
        assert "dev server" in caught.value.msg or "no handler for route" in caught.value.msg


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(dev: DevServers) -> Iterator[DevServers]:
    yield dev
    dev.fault()


def test_latency(faulty: DevServers) -> None:
    faulty.fault(latency=0.5)
    begun = time.monotonic()
    faulty.api("catalog/nodes")
    assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize("status", [500, 429, 503])
def test_error_statuses(faulty: DevServers, status: int) -> None:
    faulty.fault(status=status, only="/v1/health")
    with pytest.raises(urllib.error.HTTPError) as caught:
        faulty.api("health/service/a")
    assert caught.value.code == status
    assert faulty.api("catalog/nodes"), "other paths are well"


def test_a_stalled_answer_comes_when_the_fault_ends(faulty: DevServers) -> None:
    faulty.fault(stall=True)
    with pytest.raises(TimeoutError):
        http_json(f"{faulty.http_addr}/v1/catalog/nodes", timeout=0.5)
    faulty.fault()
    assert faulty.api("catalog/nodes")


def test_truncated_bodies_and_garbage(faulty: DevServers) -> None:
    faulty.fault(truncate=True)
    with pytest.raises(Exception, match="IncompleteRead"):
        faulty.api("catalog/nodes")
    faulty.fault()
    faulty.fault(garbage=True)
    assert "no answer" in faulty.api("catalog/nodes")


def test_an_index_that_goes_back(faulty: DevServers) -> None:
    for number in range(5):
        faulty.api("config", "PUT", entry(f"back{number}"))
    before = index_of(faulty, "config/service-defaults")
    faulty.fault(index_back=3)
    assert index_of(faulty, "config/service-defaults") == before - 3


def test_no_leader(faulty: DevServers) -> None:
    faulty.fault(leaderless=True)
    assert faulty.api("status/leader") == ""
    with pytest.raises(urllib.error.HTTPError) as caught:
        faulty.api("catalog/nodes")
    assert "No cluster leader" in caught.value.msg


def test_wiped_and_restored(faulty: DevServers) -> None:
    faulty.api("config", "PUT", entry("wiped"))
    http_json(f"{faulty.http_addr}/dev/wipe", "POST")
    assert faulty.api("config/service-defaults") == []
    http_json(f"{faulty.http_addr}/dev/restore", "POST")
    assert "wiped" in [row["Name"] for row in faulty.api("config/service-defaults")]


def test_sealed_revoked_and_slow(faulty: DevServers) -> None:
    vault = faulty.vault
    faulty.fault(sealed=True)
    with pytest.raises(urllib.error.HTTPError) as caught:
        vault.api("auth/token/lookup-self")
    assert caught.value.code == 503
    faulty.fault()
    token = vault.api("auth/token/create", "POST", {"ttl": "1h"})["auth"]["client_token"]
    assert vault.api("auth/token/lookup-self", token=token)["data"]["policies"] == ["root"]
    http_json(f"{faulty.http_addr}/dev/revoke", "POST", {"token": token})
    with pytest.raises(urllib.error.HTTPError) as caught:
        vault.api("auth/token/lookup-self", token=token)
    assert caught.value.code == 403
    vault.api("sys/mounts/slow", "POST", {"type": "pki"})
    faulty.fault(slow_signing=0.5)
    begun = time.monotonic()
    vault.api("slow/root/generate/internal", "POST", {"common_name": "x", "key_type": "ec"})
    assert time.monotonic() - begun >= 0.5


def test_a_fault_that_is_none_is_refused_and_changes_nothing(faulty: DevServers) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        faulty.fault(latency=1, nonsense=True)
    assert "nonsense: is no fault" in caught.value.msg
    assert http_json(f"{faulty.http_addr}/dev/faults")["latency"] == 0


@pytest.fixture(scope="module")
def whole() -> Iterator[World]:
    with world(embedded=True, leaf_ttl="20s") as running:
        yield running


@pytest.mark.parametrize(
    "fault",
    [
        {"latency": 1.0},
        {"status": 500},
        {"status": 429},
        {"stall": True},
        {"truncate": True},
        {"garbage": True},
        {"index_back": 30},
        {"leaderless": True},
        {"sealed": True},
        {"slow_signing": 2.0},
    ],
    ids=str,
)
async def test_the_mesh_carries_traffic_through_every_fault(whole: World, fault: dict[str, Any]) -> None:
    servers = whole.consul
    assert isinstance(servers, DevServers)
    async with load(whole.gateway_port, HOST, rate=100) as running:
        await eventually(lambda: running.sent > 20)
        await asyncio.to_thread(servers.fault, **fault)
        try:
            await asyncio.sleep(2.5)
        finally:
            await asyncio.to_thread(servers.fault)
        done = running.sent
        await eventually(lambda: running.sent > done + 50)
    assert running.failures == []


async def test_the_mesh_carries_traffic_through_a_wipe_and_a_restore(whole: World) -> None:
    """Endpoints that are gone from a wiped catalog are kept as the last good ones: an empty answer is no outage."""
    address = whole.consul.http_addr
    async with load(whole.gateway_port, HOST, rate=100) as running:
        await eventually(lambda: running.sent > 20)
        await asyncio.to_thread(http_json, f"{address}/dev/wipe", "POST")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(http_json, f"{address}/dev/restore", "POST")
        await asyncio.sleep(2)
        running.statuses.clear()
        running.failures.clear()
        await eventually(lambda: running.statuses.total() > 100)
    assert running.failures == []


# --- stock clients -------------------------------------------------------------------------------------------------


def test_the_stock_command_line(dev: DevServers, tmp_path: Path) -> None:
    def consul(*words: str) -> str:
        return dev.cli(*words).stdout

    file = tmp_path / "web.hcl"
    file.write_text('service {\n  name = "cli"\n  port = 9\n  connect { sidecar_service { port = 21250 } }\n}\n')
    assert consul("services", "register", str(file)) == "Registered service: cli\n"
    assert "cli-sidecar-proxy" in consul("catalog", "services")
    assert "n1" in consul("catalog", "nodes", "-service=cli")
    assert "dc1" in consul("catalog", "datacenters")
    assert consul("services", "deregister", str(file)) == "Deregistered service: cli\n"
    assert consul("kv", "put", "cli/a", "1") == "Success! Data written to: cli/a\n"
    assert consul("kv", "get", "cli/a") == "1\n"
    assert consul("kv", "get", "-keys", "cli/") == "cli/a\n"
    assert consul("kv", "delete", "cli/a") == "Success! Deleted key: cli/a\n"
    assert "alive" in consul("members")
    assert consul("intention", "create", "cli", "other") == "Created: cli => other (allow)\n"
    assert consul("intention", "check", "cli", "other") == "Allowed\n"
    assert consul("intention", "match", "other") == "cli => other (allow)\n"
    assert "cli" in consul("intention", "list")
    assert consul("intention", "delete", "cli", "other") == "Intention deleted.\n"
    split = tmp_path / "defaults.hcl"
    split.write_text('Kind = "service-defaults"\nName = "cli"\nProtocol = "http"\n')
    assert consul("config", "write", str(split)) == "Config entry written: service-defaults/cli\n"
    assert json.loads(consul("config", "read", "-kind", "service-defaults", "-name", "cli"))["Protocol"] == "http"
    assert "cli" in consul("config", "list", "-kind", "service-defaults").split()
    assert (
        consul("config", "delete", "-kind", "service-defaults", "-name", "cli")
        == "Config entry deleted: service-defaults/cli\n"
    )
    assert '"Provider": "consul"' in consul("connect", "ca", "get-config")


def test_hvac(dev: DevServers) -> None:
    with contextlib.closing(hvac.Client(url=dev.vault.address, token=dev.vault.token).adapter) as adapter:
        _use(hvac.Client(adapter=lambda **_: adapter))


def _use(client: hvac.Client) -> None:
    assert client.is_authenticated()
    assert client.sys.read_health_status(method="GET")["initialized"] is True
    client.sys.enable_secrets_engine("pki", path="hv")
    client.sys.tune_mount_configuration("hv", max_lease_ttl="87600h")
    root = {"key_type": "ec", "key_bits": 256, "ttl": "87600h"}  # Longer than a leaf's own, which is the mount's 768 h.
    client.secrets.pki.generate_root("internal", "hvac root", root, mount_point="hv")
    client.secrets.pki.create_or_update_role(
        "r", {"allow_any_name": True, "key_type": "ec", "key_bits": 256}, mount_point="hv"
    )
    made = client.secrets.pki.generate_certificate("r", "x.example.com", mount_point="hv")["data"]
    assert "BEGIN CERTIFICATE" in made["certificate"]
    assert client.secrets.pki.list_roles(mount_point="hv")["data"]["keys"] == ["r"]
    client.sys.enable_auth_method("approle", path="hv-approle")
    client.sys.create_or_update_policy("hv", 'path "hv/issue/r" { capabilities = ["update"] }')
    client.auth.approle.create_or_update_approle("app", token_policies=["hv"], mount_point="hv-approle")
    role = client.auth.approle.read_role_id("app", mount_point="hv-approle")["data"]["role_id"]
    secret = client.auth.approle.generate_secret_id("app", mount_point="hv-approle")["data"]["secret_id"]
    login = client.auth.approle.login(role, secret, mount_point="hv-approle")
    assert login["auth"]["policies"] == ["default", "hv"]
    assert client.secrets.pki.generate_certificate("r", "y.example.com", mount_point="hv")["data"]["serial_number"]
    with pytest.raises(hvac.exceptions.Forbidden):
        client.sys.list_auth_methods()


def test_consuls_own_proxy_carries_a_connection(dev: DevServers, tmp_path: Path) -> None:
    app, side, way = free_ports(3)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", app)))
        proxy = {"DestinationServiceName": "cp", "DestinationServiceID": "cp", "LocalServicePort": app}
        proxy["LocalServiceAddress"] = "127.0.0.1"
        dev.api("agent/service/register", "PUT", {"Name": "cp", "Port": app})
        given = {
            "Name": "cp-proxy",
            "ID": "cp-proxy",
            "Kind": "connect-proxy",
            "Address": "127.0.0.1",
            "Port": side,
            "Proxy": proxy,
        }
        dev.api("agent/service/register", "PUT", given)
        dev.api("agent/service/register", "PUT", {"Name": "caller", "Port": 1})
        ups = [{"DestinationName": "cp", "LocalBindPort": way}]
        mine = {"DestinationServiceName": "caller", "DestinationServiceID": "caller", "Upstreams": ups}
        (port,) = free_ports(1)
        given = {"Name": "caller-proxy", "ID": "caller-proxy", "Kind": "connect-proxy", "Port": port, "Proxy": mine}
        dev.api("agent/service/register", "PUT", given)
        environment = {"CONSUL_HTTP_ADDR": dev.http_addr}
        for name in ("cp-proxy", "caller-proxy"):
            words = [str(consul_program()), "connect", "proxy", "-proxy-id", name]
            program = Program(name, words, tmp_path, environment)
            program.start()
            stack.callback(program.stop)

        def through() -> bool:
            with contextlib.suppress(OSError, ssl.SSLError), socket.create_connection(("127.0.0.1", way), 2) as sock:
                sock.sendall(b"ping")
                listener.settimeout(1)
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(2)
                    if accepted.recv(10) == b"ping":
                        accepted.sendall(b"pong")
                        sock.settimeout(2)
                        return sock.recv(10) == b"pong"
            return False

        deadline = time.monotonic() + 20
        while not through():
            assert time.monotonic() < deadline
            time.sleep(0.2)


# --- its start -----------------------------------------------------------------------------------------------------


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)):
        return True


def test_it_is_up_after_less_than_a_second_of_work(tmp_path: Path) -> None:
    """The least of three starts, in CPU time until it listens: what a start takes where nothing else runs."""
    spent = []
    for _ in range(3):
        (port,) = free_ports(1)
        words = [sys.executable, "-m", "lictor", "dev", "--http-port", str(port), "--vault-port", "0"]
        program = Program("up", words, tmp_path, {"PYTHONPATH": str(REPOSITORY)})
        program.start()
        try:
            program.wait_until(lambda port=port: _listens(port))
            spent.append(cpu_seconds(program.pid))
        finally:
            program.stop()
    assert min(spent) < 1, spent  # 0.6 s


def test_the_root_token_is_the_one_that_is_given(tmp_path: Path) -> None:
    with dev_server(arguments=["--root-token", "mine"]) as dev:
        found = dev.vault.api("auth/token/lookup-self", token="mine")
        assert found["data"]["policies"] == ["root"]
        assert "mine" not in dev.program.log
        with pytest.raises(urllib.error.HTTPError):
            dev.vault.api("auth/token/lookup-self", token="root")
    file = tmp_path / "token"
    file.write_text("other\n")
    with dev_server(arguments=["-root-token-file", str(file)]) as dev:
        assert dev.vault.api("auth/token/lookup-self", token="other")["data"]["policies"] == ["root"]
    words = [sys.executable, "-m", "lictor", "dev", "--root-token", "a", "--root-token-file", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20, cwd=REPOSITORY)
    assert done.returncode == 2
    assert "--root-token: is given twice" in done.stderr
