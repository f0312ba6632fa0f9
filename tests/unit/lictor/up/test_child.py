from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lictor.up.child import Child, ending, next_pause
from lictor.up.console import Console


@pytest.fixture(autouse=True)
async def _nothing_left(nothing_left_behind: None) -> AsyncIterator[None]:
    del nothing_left_behind
    yield


class Said:
    """A console that is read."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self.console = Console(self.output, {})

    def lines(self) -> list[str]:
        return self.output.getvalue().splitlines()


def child(said: Said, folder: Path, script: str, **named: object) -> Child:
    return Child("one", ["sh", "-c", script], folder, {"A": "own"}, said.console, **named)  # type: ignore[arg-type]


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("deaths", "draw", "pause"),
    [(1, 1.0, 0.4), (1, 0.0, 0.2), (2, 1.0, 0.8), (5, 0.5, 4.8), (6, 1.0, 10.0), (99, 0.0, 5.0)],
)
def test_pauses_double_up_to_a_longest(deaths: int, draw: float, pause: float) -> None:
    assert next_pause(deaths, draw) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "ended by SIGKILL"),
        (-40, "ended by signal 40"),
    ],
)
def test_how_it_ended(code: int, text: str) -> None:
    assert ending(code) == text


async def test_lines_come_with_its_name_and_the_last_are_kept(tmp_path: Path) -> None:
    said = Said()
    one = child(said, tmp_path, 'echo $A; pwd; echo bad >&2; printf "\\377no end"', restarts=False)
    one.start()
    await one.over.wait()
    expected = ["own", str(tmp_path), "bad", "\ufffdno end"]
    assert said.lines() == [f"one | {line}" for line in expected]
    assert list(one.said) == expected
    assert (one.code, one.ending, one.deaths, one.pid) == (0, "ended with exit code 0", 1, 0)
    await one.stop()


async def test_a_line_without_end_is_cut_and_a_long_one_is_told(tmp_path: Path) -> None:
    said = Said()
    one = Child(
        "one", [sys.executable, "-c", "print('x' * 200000, end='')"], tmp_path, {}, said.console, restarts=False
    )
    one.start()
    await one.over.wait()
    assert sum(line.count("x") for line in said.lines()) == 200000
    await one.stop()


async def test_it_is_started_again_and_the_pause_grows_while_it_dies_young(tmp_path: Path) -> None:
    said = Said()
    prepared: list[int] = []

    async def prepare() -> None:
        prepared.append(1)

    one = child(said, tmp_path, "exit 3", prepare=prepare, draw=lambda: 0.0)
    one.start()
    await until(lambda: one.deaths == 3)
    await one.stop()
    warned = [line for line in said.lines() if "again in" in line]
    assert warned == [f"one | ended with exit code 3; again in {pause} s" for pause in ("0.2", "0.4", "0.8")]
    assert len(prepared) == 3


async def test_who_has_lived_long_begins_with_the_shortest_pause(tmp_path: Path) -> None:
    said = Said()
    times = iter([0.0, 1.0, 1.0, 12.0, 12.0, 13.0])
    one = child(said, tmp_path, "exit 3", draw=lambda: 0.0, now=lambda: next(times))
    one.start()
    await until(lambda: one.deaths == 2)
    await one.stop()
    assert [line.split("again in ")[1] for line in said.lines()] == ["0.2 s", "0.1 s"]


async def test_what_cannot_be_executed_is_told_and_tried_again(tmp_path: Path) -> None:
    said = Said()
    (tmp_path / "bad").write_bytes(b"\0\0\0")
    (tmp_path / "bad").chmod(0o700)
    one = Child("one", [str(tmp_path / "bad")], tmp_path, {}, said.console)
    one.start()
    await until(lambda: one.deaths == 1)
    assert one.ending == "could not be started: Exec format error"
    assert one.code == 126
    await one.stop()


async def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    said = Said()
    one = child(said, tmp_path, "sleep 60 & echo $!; wait")
    one.start()
    await until(lambda: one.said)
    below = int(one.said[0])
    os.kill(one.pid, signal.SIGKILL)
    await until(lambda: one.deaths == 1)
    await until(lambda: _gone(below))
    await one.stop()


async def test_who_ignores_the_signal_is_killed_after_a_while(tmp_path: Path) -> None:
    said = Said()
    one = child(said, tmp_path, "trap '' TERM; echo ready; while :; do sleep 1; done")
    one.start()
    await until(lambda: one.said)
    await one.stop(0.2)
    assert one.ending == "ended by SIGKILL"
    assert "did not end within 0.2 s of SIGTERM: killed" in said.lines()[-1]


async def test_stop_and_kill_before_it_lives_and_while_it_pauses(tmp_path: Path) -> None:
    said = Said()
    never = child(said, tmp_path, "exit 1")
    await never.stop()
    await never.kill()

    async def forever() -> None:
        await asyncio.Event().wait()

    preparing = child(said, tmp_path, "exit 1", prepare=forever)
    preparing.start()
    await asyncio.sleep(0)
    await preparing.stop()
    assert preparing.over.is_set()
    pausing = child(said, tmp_path, "exit 1", draw=lambda: 1.0)
    pausing.start()
    await until(lambda: pausing.deaths == 1)
    await pausing.kill()
    assert pausing.deaths == 1
    assert preparing.deaths == never.deaths == 0


async def test_some_variables_are_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    monkeypatch.setenv("OTHER", "kept")
    said = Said()
    one = child(said, tmp_path, "echo $CONSUL_HTTP_TOKEN-$OTHER", restarts=False, without=("CONSUL_",))
    one.start()
    await one.over.wait()
    assert list(one.said) == ["-kept"]
    await one.stop()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
