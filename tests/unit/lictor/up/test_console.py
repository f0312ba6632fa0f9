from __future__ import annotations

import io
import json

import pytest

from lictor.up.console import Console, told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def written(output: io.StringIO, **environment: str) -> str:
    times = iter([10.0, 11.25, 12.5])
    console = Console(output, environment, lambda: next(times))
    console.introduce("web", "web/sidecar", "api")
    console.progress("starting")
    console.line("web", "hello")
    console.ready("api", "curl")
    console.warn("web/sidecar", "ended")
    console.note("export X")
    return output.getvalue()


def test_plain_lines() -> None:
    assert written(io.StringIO()).splitlines() == [
        "  1.2 s  starting",
        "web         | hello",
        "  2.5 s  api         ready  curl",
        "web/sidecar | ended",
        "         export X",
    ]


def test_a_terminal_has_colours_and_a_sidecar_those_of_its_service() -> None:
    lines = written(Terminal()).splitlines()
    assert lines[1] == "\033[36mweb        \033[0m | hello"
    assert lines[3] == "\033[36mweb/sidecar\033[0m | \033[31mended\033[0m"
    assert "\033[33mapi" in lines[2]


@pytest.mark.parametrize(
    ("output", "environment", "coloured"),
    [
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
    ],
)
def test_the_environment_decides_about_colours(
    output: io.StringIO,
    environment: dict[str, str],
    coloured: bool,  # noqa: FBT001
) -> None:
    assert ("\033[" in written(output, **environment)) is coloured


def test_a_terminal_that_is_gone_stops_nobody() -> None:
    assert written(Gone()) == ""


FRAMES = [{"filename": "a.py", "lineno": 3}, {"filename": "b.py", "lineno": 7}]
RAISED = {"exc_type": "OSError", "exc_value": "no", "frames": FRAMES}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain", "plain"),
        ("{not json", "{not json"),
        ('{"a": 1}', '{"a": 1}'),
        (
            '{"event": "leaf_unusable", "level": "error", "timestamp": "t", "error": "no"}',
            "error: leaf unusable error=no",
        ),
        ('{"event": "x"}', "x"),
        (
            json.dumps(
                {"event": "Task of read_all failed", "level": "error", "logger": "asyncio", "exception": [RAISED]}
            ),
            "error: Task of read_all failed raised=OSError: no (b.py:7)",
        ),
        ('{"event": "x", "level": "info", "exception": []}', "info: x"),
        ('{"event": "x", "level": "info", "exception": "none"}', "info: x"),
    ],
)
def test_a_proxys_json_is_told_in_words(line: str, text: str) -> None:
    assert told(line) == text
