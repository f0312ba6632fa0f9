"""The command line as a process: output, errors, exit codes, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from harness.command_lines import FILES, Ran, stock
from harness.servers import REPOSITORY, ConsulServer


def lictor(server: ConsulServer, words: str, stdin: str = "") -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "lictor", *shlex.split(words)],
        capture_output=True,
        input=stdin.encode(),
        env={**os.environ, **server.environment, "PYTHONPATH": str(REPOSITORY), "PYTHONASYNCIODEBUG": ""},
        check=False,
        timeout=60,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_process_writes_its_answers_apart_from_its_errors_and_ends_with_its_code(server: ConsulServer) -> None:
    text = FILES["b.hcl"]
    assert lictor(server, "config write -", text) == stock(server, "config write -", text)
    assert lictor(server, "config delete -kind=service-defaults -name=cmd-b") == Ran(
        0, "Config entry deleted: service-defaults/cmd-b\n", ""
    )
    wrong = lictor(server, "config write -", FILES["wrong.hcl"])
    assert (wrong.code, wrong.out) == (1, "")
    assert "the standard input:3: " in wrong.err
    assert lictor(server, "intention check -bogus").code == 2
    assert lictor(server, "intention frobnicate").code == 1
    assert lictor(server, "frobnicate").code == 2


def test_bash_completes_the_names_of_entries_by_asking_consul(server: ConsulServer) -> None:
    script = "source <(lictor completion bash); COMP_WORDS=(lictor config read -kind = service-defaults -name cmd-w)"
    script += '; COMP_CWORD=7; _lictor; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **server.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("cmd-web\n", "")
