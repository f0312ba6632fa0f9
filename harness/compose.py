"""docker compose as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.servers import REPOSITORY

HEALTHY_SECONDS = 180


@dataclass
class Compose:
    """The project that is up."""

    project: str
    environment: Mapping[str, str]

    def __call__(self, *words: str, check: bool = True, stdin: str = "") -> str:
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        done = subprocess.run(
            [*program, "-p", self.project, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env=self.environment,
            timeout=HEALTHY_SECONDS + 60,
            input=stdin,
        )
        if check and done.returncode:
            message = f"compose {' '.join(words)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            raise AssertionError(message)
        return done.stdout

    def up(self) -> None:
        self("up", "-d", "--no-build")
        self.wait_healthy()

    def wait_healthy(self) -> None:
        deadline = time.monotonic() + HEALTHY_SECONDS
        while (waiting := self.unhealthy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        if waiting:
            message = f"not healthy: {waiting}\n{self('logs', '--tail=25', check=False)[-8000:]}"
            raise AssertionError(message)

    def unhealthy(self) -> dict[str, str]:
        """Return the state of every container that is neither healthy nor, being a one-shot, done."""
        found = {}
        for name, state in self.states().items():
            health = (state.get("Health") or {}).get("Status", "none")
            once = name.endswith("-init")
            done = state["Status"] == "exited" and state["ExitCode"] == 0
            if not (done if once else state["Status"] == "running" and health == "healthy"):
                found[name] = f"{state['Status']} {health}"
        return found

    def states(self) -> dict[str, Any]:
        return {service: row["State"] for service, row in self.containers().items()}

    def containers(self) -> dict[str, Any]:
        """Return every container, the one-shots too, by service."""
        rows = inspect(self("ps", "-q", "-a").split())
        return {row["Config"]["Labels"]["com.docker.compose.service"]: row for row in rows}

    def container(self, service: str) -> Any:
        (row,) = inspect(self("ps", "-q", service).split())
        return row

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['GATEWAY_PORT']}/"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self.environment['GATEWAY_TLS_PORT']}/"

    def consul(self, *words: str, stdin: str = "") -> str:
        """Run the stock command line as the operator."""
        return self("run", "--rm", "-T", "operator", *words, stdin=stdin)


def inspect(ids: list[str]) -> list[Any]:
    done = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(done.stdout)
    return found


def curl(url: str, host: str, *more: str, count: int = 1) -> list[str]:
    """Return `status body` of each answer; one connection."""
    arguments = ["-s", "-m", "20", "-H", f"Host: {host}", "-w", "\n%{http_code}\n", *more]
    done = subprocess.run(["curl", *arguments, *[url] * count], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line]
    return [f"{code} {body}" for body, code in zip(lines[::2], lines[1::2], strict=True)]


def counted(url: str, host: str, count: int) -> Counter[str]:
    return Counter(curl(url, host, count=count))


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(0.1)
