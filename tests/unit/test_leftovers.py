"""What is started carries a mark, and who carries it is found, however far it has gone from its parents."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from harness.leftovers import after, below, command_line, main, marked

DAEMON = "import subprocess; subprocess.Popen(['sleep', '61.5'], start_new_session=True)"


def test_a_command_that_leaves_nothing_has_its_own_exit_code() -> None:
    assert main(["true"]) == 0
    assert main(["sh", "-c", "exit 7"]) == 7


def test_a_daemon_that_is_left_is_named_ended_and_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([sys.executable, "-c", DAEMON]) == 1
    assert "sleep 61.5" in capfd.readouterr().err


def test_children_of_children_are_seen_and_who_has_ended_is_not() -> None:
    def lines(pid: int) -> Sequence[str]:
        return list(below(pid).values())

    with subprocess.Popen(["sh", "-c", "sleep 61.6; :"]) as shell:
        try:
            while "sleep 61.6" not in lines(os.getpid()):
                assert shell.poll() is None
            assert "sleep 61.6" in marked(str(os.getpid())).values(), "tests carry the mark of their worker"
        finally:
            for pid in [*below(shell.pid), shell.pid]:
                os.kill(pid, 9)
    assert after(lambda: [line for line in lines(os.getpid()) if "61.6" in line]) == []
    assert command_line(shell.pid) == ""
