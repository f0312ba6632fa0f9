"""What every test may use: real servers, started once a worker, and a watch for what a test leaves behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.certificates import Authority
from harness.servers import ConsulServer, VaultServer, consul_server, dev_server, vault_server

os.environ["PYTHONASYNCIODEBUG"] = "1"  # read whenever a loop is made

settings.register_profile("lictor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lictor")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the golden files should hold")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def stranger() -> Authority:
    return Authority("another root")


BOTH = ["real", "embedded"]


@pytest.fixture(scope="session", params=BOTH)
def consul(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    """A Consul without ACLs, the real one and ours, shared by a worker: tests use names of their own."""
    with consul_server() if request.param == "real" else dev_server() as server:
        yield server


@pytest.fixture(scope="session", params=BOTH)
def consul_with_acls(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    """A Consul whose ACLs deny by default."""
    with consul_server(acl=True) if request.param == "real" else dev_server(acl=True) as server:
        yield server


@pytest.fixture(scope="session", params=BOTH)
def vault(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    """An unsealed server with Vault's API: the real one and ours."""
    if request.param == "real":
        with vault_server() as server:
            yield server
    else:
        with dev_server() as servers:
            yield servers.vault


def _sockets() -> set[str]:
    """Return the tcp sockets that this process holds: a loop's own pipes are none."""
    tables = [Path(f"/proc/self/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.is_file() for line in table.read_text().splitlines()[1:]]
    tcp = {f"socket:[{row[9]}]" for row in rows}
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target in tcp:
            found.add(target)
    return found


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail when a test ends with a task that still runs or a socket that is still open."""
    before = _sockets()
    yield
    deadline = asyncio.get_running_loop().time() + 2.0
    while True:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        sockets = _sockets() - before
        if not tasks and not sockets:
            return
        if asyncio.get_running_loop().time() > deadline:
            message = f"left behind: tasks {tasks}, sockets {sockets}"
            raise AssertionError(message)
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fail when a test ends with a child process that it started and did not end."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    yield
    left = {child for child in set(children.read_text().split()) - before if not _is_shared_server(child)}
    assert not left, f"child processes left: {left}"


def _is_shared_server(pid: str) -> bool:
    """Return whether it is one of the servers above: they live as long as the worker."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return True  # ended meanwhile
    embedded = [b"-m", b"lictor", b"dev"]
    return words[1:4] == embedded or any(word.endswith((b"/consul", b"/bao", b"/vault")) for word in words[:1])
