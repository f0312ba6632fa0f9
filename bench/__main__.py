"""Run everything, print the tables, write bench/results.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.contenders import CONNECT, CONSUL_ENVOY, HAPROXY, LICTOR, STATIC_ENVOY, Contender, Field
from bench.measure import LOAD_CORE, PROXY_CORE, Round, handshakes, pin, requests, resident_mb, summary
from harness.peers import envoy_program, peers
from harness.servers import REPOSITORY, Program, consul_program, consul_server
from lictor.up.ports import free_ports

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of one round")
    parser.add_argument("--python", default=sys.executable, help="what Lictor runs on; it needs requirements.txt alone")
    arguments = parser.parse_args()
    python = str(Path(arguments.python).absolute())
    with (
        tempfile.TemporaryDirectory(prefix="lictor-bench-") as name,
        consul_server(settings={"default_intention_policy": "deny"}) as consul,
        peers(consul, Path(name), python) as running,
    ):
        folder = Path(name)
        (app_port,) = free_ports(1)
        app = Program(
            "app", [sys.executable, "-m", "bench.app", str(app_port)], folder, {"PYTHONPATH": str(REPOSITORY)}
        )
        field = Field(consul, running, folder, app_port)
        app.start()
        try:
            results = measure(field, app, arguments.rounds, arguments.seconds)
            results["machine"]["python"] = version(python, "-VV")
        finally:
            field.stop()
            app.stop()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables(results)
    return 0


def measure(field: Field, app: Program, rounds: int, seconds: int) -> dict[str, Any]:
    """Start the contenders and let them take turns."""
    pin(app.pid, LOAD_CORE)
    say("starting the pairs")
    pairs = [field.in_consul(LICTOR), field.in_consul(CONSUL_ENVOY), field.static_envoy(), field.haproxy()]
    pairs.append(field.in_consul(CONNECT))
    hops = field.hops()
    for contender in (*pairs, *hops):
        for program in contender.processes:
            pin(program.pid, PROXY_CORE)
    found: dict[str, Any] = {"machine": machine(), "rounds": rounds, "seconds": seconds, "pinned_core": PROXY_CORE}
    found["pair, 1 KB"] = turns("pair, 1 KB", pairs, rounds, lambda one: requests(one, "/", seconds))
    found["rss_mb"] = {one.name: [round(resident_mb(program.pid), 1) for program in one.processes] for one in pairs}
    found["pair, 1 MB"] = turns("pair, 1 MB", pairs, max(2, rounds // 2), lambda one: requests(one, "/1m", seconds))
    found["full handshakes"] = turns(
        "full handshakes", pairs, max(2, rounds // 2), lambda one: handshakes(one, max(2, seconds // 2))
    )
    found["plain hop, 1 KB"] = turns("plain hop, 1 KB", hops, rounds, lambda one: requests(one, "/", seconds))
    ours = found["pair, 1 KB"][LICTOR]["cpu_us"]
    found["ratio"] = {
        name: round(ours / found["pair, 1 KB"][name]["cpu_us"], 3)
        for name in (CONSUL_ENVOY, STATIC_ENVOY, HAPROXY, CONNECT)
    }
    return found


def turns(
    title: str, field: Sequence[Contender], rounds: int, measured: Callable[[Contender], Round]
) -> dict[str, Any]:
    """Let everybody have a round, then the next round."""
    kept: dict[str, list[Round]] = {one.name: [] for one in field}
    for number in range(rounds):
        say(f"{title}: round {number + 1} of {rounds}")
        for contender in field:
            kept[contender.name].append(measured(contender))
    return {
        name: {**asdict(summary(done)), "cpu_us_of_rounds": [round(one.cpu_us, 1) for one in done]}
        for name, done in kept.items()
    }


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "consul": version(str(consul_program()), "version"),
        "envoy": version(str(envoy_program()), "--version"),
        "haproxy": version("haproxy", "-v"),
    }


def version(*words: str) -> str:
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return lines[0].strip().rpartition("version: ")[2] if lines else "unknown"


def tables(results: dict[str, Any]) -> None:
    """Print what was measured."""
    for title in ("pair, 1 KB", "pair, 1 MB", "full handshakes", "plain hop, 1 KB"):
        print(f"\n{title}")
        print(f"{'':24}{'CPU us':>10}{'a second':>12}{'p50 ms':>9}{'p99 ms':>9}{'RSS MB':>16}")
        for name, row in results[title].items():
            memory = "+".join(f"{one:.0f}" for one in results["rss_mb"].get(name, ())) if title == "pair, 1 KB" else ""
            print(
                f"{name:24}{row['cpu_us']:>10.1f}{row['per_second']:>12.0f}{row['p50_ms']:>9.2f}"
                f"{row['p99_ms']:>9.2f}{memory:>16}"
            )
    print("\nCPU of Lictor's pair over that of:")
    for name, ratio in results["ratio"].items():
        print(f"{name:24}{ratio:>10.2f}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
