"""Run everything, print the tables, write bench/results.json. `--only ROW` runs one row and writes nothing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.contenders import CONNECT, CONSUL_ENVOY, HAPROXY, LICTOR, STATIC_ENVOY, Contender, Field
from bench.measure import LOAD_CORE, PROXY_CORE, Round, handshakes, idle, pin, requests, resident_mb, summary
from bench.rules import PLAIN, Rules, tenant
from harness.peers import envoy_program, peers
from harness.servers import REPOSITORY, Program, consul_program, consul_server
from lictor.up.ports import free_ports

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=4, help="of one round")
    names = [*ROWS, IDLE]
    rows = "; ".join(names).replace("%", "%%")  # argparse fills in
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one of: {rows}")
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
            results = measure(field, app, arguments.only or names, arguments.rounds, arguments.seconds)
            results["machine"]["python"] = version(python, "-VV")
        finally:
            field.stop()
            app.stop()
    if not arguments.only:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables(results)
    return 0


# --- the rows ------------------------------------------------------------------------------------------------------


def _pairs(field: Field) -> list[Contender]:
    return [*_http_pairs(field, PLAIN), field.in_consul(CONNECT)]


def _http_pairs(field: Field, rules: Rules) -> list[Contender]:
    """Start the pairs that know HTTP; Consul's own proxy has no routes, permissions or retries."""
    following = [field.in_consul(name, rules) for name in (LICTOR, CONSUL_ENVOY)]
    return [*following, field.static_envoy(rules), field.haproxy(rules)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of figures: who takes part, what a round is. `share` of the rounds that were asked for."""

    start: Callable[[Field], list[Contender]]
    measured: Callable[[Contender, int], Round]
    share: float = 0.5


IDLE = "1,000 idle connections"
_POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 65536)\n'
_ANOTHER = """
local number = 0
request = function()
    number = number + 1
    return wrk.format(nil, "/?number=" .. number)
end
"""
ROWS = {
    "pair, 1 KB": Row(_pairs, lambda one, seconds: requests(one, "/", seconds), share=1),
    "pair, 1 KB, every head another": Row(
        _pairs, lambda one, seconds: requests(one, "/", seconds, script=_ANOTHER), share=1
    ),
    "pair, 64 KB both ways": Row(_pairs, lambda one, seconds: requests(one, "/64k", seconds, script=_POST)),
    "pair, 1 MB": Row(_pairs, lambda one, seconds: requests(one, "/1m", seconds)),
    "full handshakes": Row(_pairs, lambda one, seconds: handshakes(one, max(2, seconds // 2))),
    "2,000 routes": Row(
        lambda field: _http_pairs(field, Rules(routes=2000)),
        lambda one, seconds: requests(one, tenant(1999), seconds),
    ),
    "100 intentions": Row(
        lambda field: _http_pairs(field, Rules(callers=100)), lambda one, seconds: requests(one, "/", seconds)
    ),
    "10 % errors, retried": Row(
        lambda field: _http_pairs(field, Rules(retries=3)),
        lambda one, seconds: requests(one, "/flaky", seconds, may_fail=True),
    ),
    "plain hop, 1 KB": Row(Field.hops, lambda one, seconds: requests(one, "/", seconds), share=1),
}


def measure(field: Field, app: Program, only: Sequence[str], rounds: int, seconds: int) -> dict[str, Any]:
    """Start the contenders of a row and let them take turns; rows with the same contenders go on with them."""
    pin(app.pid, LOAD_CORE)
    found: dict[str, Any] = {"machine": machine(), "rounds": rounds, "seconds": seconds, "pinned_core": PROXY_CORE}
    started: tuple[object, list[Contender]] = (None, [])
    for title, row in ROWS.items():
        if title not in only:
            continue
        if started[0] is not row.start:
            field.stop()
            say(f"{title}: starting")
            started = row.start, row.start(field)
            for program in (program for one in started[1] for program in one.processes):
                pin(program.pid, PROXY_CORE)
        times = max(min(2, rounds), round(rounds * row.share))
        found[title] = turns(title, started[1], times, lambda one, row=row: row.measured(one, seconds))  # type: ignore[misc]
        for one in started[1]:
            found[title][one.name]["rss_mb"] = [round(resident_mb(program.pid), 1) for program in one.processes]
    if IDLE in only:
        field.stop()
        say(f"{IDLE}: starting")
        found[IDLE] = {one.name: idle(one, 1000) for one in _pairs(field)}
    if "pair, 1 KB" in found:
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
    """Print what was measured, as tables of Markdown."""
    for title in ROWS:
        if title not in results:
            continue
        print(f"\n**{title}**\n\n| | CPU us | a second | p50 ms | p99 ms | failed | RSS MB |\n|---|" + "---:|" * 6)
        for name, row in results[title].items():
            memory = " + ".join(f"{one:.0f}" for one in row["rss_mb"])
            print(
                f"| {name} | {row['cpu_us']:,.1f} | {row['per_second']:,.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
                f"| {row['failed']:.2%} | {memory} |"
            )
    if IDLE in results:
        print(f"\n**{IDLE}**\n\n| | RSS MB before | with them |\n|---|---:|---:|")
        for name, row in results[IDLE].items():
            print(f"| {name} | " + " | ".join(" + ".join(f"{one:.0f}" for one in row[k]) for k in row) + " |")
    if "ratio" in results:
        print("\nCPU of Lictor's pair over that of: ", end="")
        print(", ".join(f"{name} {ratio:.2f}" for name, ratio in results["ratio"].items()))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
