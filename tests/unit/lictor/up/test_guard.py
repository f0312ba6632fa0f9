from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lictor.up import guard


def start(variable: str, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words or ("sleep", "60"), env={**os.environ, variable: str(folder)}, start_new_session=True)


def until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def blocked(pid: int) -> int:
    """Return the mask of the signals that wait for a process to ask for them, see proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)


def test_who_carries_a_mark_is_found_by_the_whole_of_it(tmp_path: Path) -> None:
    own, other = start(guard.APP, tmp_path), start(guard.APP, tmp_path / "other")
    try:
        until(lambda: guard.marked(guard.APP, str(tmp_path)) == [own.pid])
        assert guard.marked(guard.PROXY, str(tmp_path)) == []
    finally:
        for process in (own, other):
            process.kill()
            process.wait()


def test_apps_are_killed_at_once_and_proxies_after_a_while(tmp_path: Path) -> None:
    app, proxy = start(guard.APP, tmp_path), start(guard.PROXY, tmp_path)
    until(lambda: guard.marked(guard.APP, str(tmp_path)) and guard.marked(guard.PROXY, str(tmp_path)))
    begun = time.monotonic()
    guard.sweep(str(tmp_path), 0.3)
    assert time.monotonic() - begun >= 0.3
    assert (app.wait(), proxy.wait()) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_proxy_that_ends_by_itself_is_not_waited_for(tmp_path: Path) -> None:
    proxy = start(guard.PROXY, tmp_path, "true")
    proxy.wait()
    begun = time.monotonic()
    guard.sweep(str(tmp_path), 30)
    assert time.monotonic() - begun < 5


def test_it_sweeps_when_told_and_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "secret").touch()
    app = start(guard.APP, folder)
    running = subprocess.Popen([sys.executable, "-I", "-S", str(guard.__file__), str(folder), str(os.getpid())])
    until(lambda: blocked(running.pid) >> (signal.SIGINT - 1) & 1)  # with SIGTERM, which would have ended it before
    assert running.poll() is None
    running.terminate()
    assert running.wait(20) == 0
    assert app.wait(5) == -signal.SIGKILL
    assert not folder.exists()


def test_it_sweeps_at_once_when_its_parent_is_gone_already(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    words = [sys.executable, "-I", "-S", str(guard.__file__), str(folder), "1" if os.getpid() != 1 else "2"]
    assert subprocess.run(words, check=False, timeout=20).returncode == 0
    assert not folder.exists()
