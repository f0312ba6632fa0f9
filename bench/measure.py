"""One round: a load from one core on proxies of another, and what it took."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender
from harness.peers import cpu_seconds

CONNECTIONS = 32
PROXY_CORE, LOAD_CORE = 0, 1
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Round:
    """CPU microseconds of the proxies per request (or handshake), requests a second, latency in milliseconds.

    `failed`: the share of requests that the caller saw fail.
    """

    cpu_us: float
    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failed: float = 0.0


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024 / 1e6


def requests(contender: Contender, path: str, seconds: int, *, script: str = "", may_fail: bool = False) -> Round:
    """Load a contender over kept connections, with GETs that are all alike or as a script of wrk's says."""
    url = f"http://127.0.0.1:{contender.port}{path}"
    _wrk(url, 1, script)
    before = _cpu(contender)
    text = _wrk(url, seconds, script)
    took = _cpu(contender) - before
    count = int(_found(r"(\d+) requests in", text))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if re.search(r"Socket errors: ", text) or (failed is not None and not may_fail):
        message = f"{contender.name}: {text}"
        raise RuntimeError(message)
    return Round(
        took * 1e6 / count,
        float(_found(r"Requests/sec:\s+([\d.]+)", text)),
        _latency("50%", text),
        _latency("99%", text),
        int(failed[1]) / count if failed is not None else 0.0,
    )


def _wrk(url: str, seconds: int, script: str = "") -> str:
    words = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            words += ["-s", file.name]
        return subprocess.run([*words, url], capture_output=True, text=True, check=True).stdout


def idle(contender: Contender, count: int) -> dict[str, list[float]]:
    """Return the resident MB of each proxy before, and while so many connections are open that were used once each."""
    before = [round(resident_mb(program.pid), 1) for program in contender.processes]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=30)
            stack.callback(connection.close)
            connection.request("GET", "/")
            connection.getresponse().read()
        return {"before": before, "open": [round(resident_mb(program.pid), 1) for program in contender.processes]}


def handshakes(contender: Contender, seconds: int) -> Round:
    """Make one new mTLS connection after the other to the called end, without resumption."""
    before = _cpu(contender)
    words = ["taskset", "-c", str(LOAD_CORE), "openssl", "s_time", "-new", "-time", str(seconds)]
    words += ["-connect", f"127.0.0.1:{contender.mtls_port}", "-cert", contender.client, "-key", contender.client]
    text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    took = _cpu(contender) - before
    count = int(_found(r"(\d+) connections in \d+ real seconds", text))
    return Round(took * 1e6 / count, count / (seconds + 1))


def _cpu(contender: Contender) -> float:
    return sum(cpu_seconds(program.pid) for program in contender.processes)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        message = f"not understood: {text}"
        raise RuntimeError(message)
    return found[1]


def _latency(share: str, text: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def summary(rounds: Sequence[Round]) -> Round:
    """Return the median of each figure."""
    return Round(
        statistics.median(one.cpu_us for one in rounds),
        statistics.median(one.per_second for one in rounds),
        statistics.median(one.p50_ms for one in rounds),
        statistics.median(one.p99_ms for one in rounds),
        statistics.median(one.failed for one in rounds),
    )
