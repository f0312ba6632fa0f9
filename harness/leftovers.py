"""Who is still there of what was started: a test, a demo or a benchmark leaves no process behind, not even an orphan.

Whoever is asked about carries a mark in its environment, and so does what it starts in turn, as a daemon too.

    python -m harness.leftovers COMMAND ...     run a command; fail when it fails, or when a process of it is left
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

MARK = "LICTOR_STARTED_BY"
_POLL_SECONDS = 0.05


def marked(mark: str) -> dict[int, str]:
    """Return the command line of every process that carries a mark, but not of this one."""
    wanted = f"\0{MARK}={mark}\0".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                if wanted in b"\0" + (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = command_line(int(folder.name))
    return found


def below(pid: int) -> dict[int, str]:
    """Return the command line of every process that this one started, and those in turn; without who has ended.

    By the parent of every process: the kernel's own list of children leaves some out while one of them ends.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state_and_parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            children.setdefault(int(state_and_parent[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = children.get(pid, [])
    while waiting:
        child = waiting.pop()
        waiting += children.get(child, [])
        if line := command_line(child):
            found[child] = line
    return found


def command_line(pid: int) -> str:
    """Return the words of a process; "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def after(look: Callable[[], Collection[str]], seconds: float = 15.0) -> list[str]:
    """Return what is still seen after a while: who was told to end may take a moment."""
    deadline = time.monotonic() + seconds
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return sorted(left)


def main(command: list[str]) -> int:
    mark = secrets.token_hex(8)
    code = subprocess.run(command, env={**os.environ, MARK: mark}, check=False).returncode
    left = after(lambda: marked(mark).values(), 5.0)
    for pid, line in marked(mark).items():
        print(f"left behind, and ended now: {pid} {line}", file=sys.stderr)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return code or (1 if left else 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
