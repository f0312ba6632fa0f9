"""What every test may use: real servers, started once a worker, and a watch for what a test leaves behind."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.certificates import Authority
from harness.leftovers import MARK, after, below, marked
from harness.servers import STRICT_LOGS, ConsulServer, Program, VaultServer, consul_server, dev_server, vault_server

# Here and in every program that tests start: asyncio's debug mode, and every warning is in the log, where it counts.
os.environ |= {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default", STRICT_LOGS: "1"}
SUITE = os.environ[MARK] = str(os.getpid())  # every worker its own
SHARED: pytest.StashKey[list[str]] = pytest.StashKey()  # command lines of servers that live as long as the worker

# The same examples in every run of the same tests; N=10000 by hand looks at as many others.
settings.register_profile(
    "lictor", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="N" not in os.environ
)
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


def share(request: pytest.FixtureRequest, program: Program) -> None:
    """Say that a server lives as long as the worker."""
    request.session.stash[SHARED].append(" ".join(map(str, program.arguments)))


@pytest.fixture(scope="session", params=BOTH)
def consul(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    """A Consul without ACLs, the real one and ours, shared by a worker: tests use names of their own."""
    with consul_server() if request.param == "real" else dev_server() as server:
        share(request, server.program)
        yield server


@pytest.fixture(scope="session", params=BOTH)
def consul_with_acls(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    """A Consul whose ACLs deny by default."""
    with consul_server(acl=True) if request.param == "real" else dev_server(acl=True) as server:
        share(request, server.program)
        yield server


@pytest.fixture(scope="session", params=BOTH)
def vault(request: pytest.FixtureRequest) -> Iterator[VaultServer]:
    """An unsealed server with Vault's API: the real one and ours."""
    if request.param == "real":
        with vault_server() as server:
            share(request, server.program)
            yield server
    else:
        with dev_server() as servers:
            share(request, servers.program)
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
    deadline = asyncio.get_running_loop().time() + 10.0
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
    """Fail when a test ends with a child process that it started and did not end. One may start again as it was."""
    before = Counter(below(os.getpid()).values())
    yield
    left = after(lambda: Counter(below(os.getpid()).values()) - before)
    assert not left, f"child processes left: {left}"


@pytest.fixture(scope="module", autouse=True)
def no_process_outlives_its_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when a module ends with a process of its fixtures, or of its tests' processes: orphans too."""
    before = Counter(marked(SUITE).values())
    yield
    shared: list[str] = request.session.stash[SHARED]
    left = after(lambda: Counter(marked(SUITE).values()) - before - Counter(shared))
    assert not left, f"processes left: {left}"


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when the run ends with any process of it left."""
    request.session.stash[SHARED] = []
    yield
    left = after(lambda: marked(SUITE).values())
    assert not left, f"processes left: {left}"
