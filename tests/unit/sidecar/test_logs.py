"""What a process says goes to stderr, one JSON object a line, and holds no secret."""

import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import asyncio, logging, structlog, sys
from sidecar import logs

secret, told = sys.argv[1:]  # not in the text of this program: since 3.13 a traceback shows its lines

logs.configure("info", as_json=JSON)

async def fails(token: str) -> None:
    raise RuntimeError(told)

async def main() -> None:
    forgotten = asyncio.create_task(fails(secret))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del forgotten

asyncio.run(main())
logging.getLogger("aiohttp.client").warning("%d left open", 3)
logging.getLogger("aiohttp.client").info("of no interest")
try:
    asyncio.run(fails(secret))
except RuntimeError as error:
    structlog.get_logger().error("connection_failed", exc_info=error)
"""


def _said(*, as_json: bool) -> str:
    program = _PROGRAM.replace("JSON", str(as_json))
    words = [sys.executable, "-c", program, "s.3cret", "it failed"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stderr


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _said(as_json=True).splitlines()]


def test_what_loops_and_libraries_say_is_a_line_like_any_other(lines: list[dict[str, Any]]) -> None:
    loops, libraries, ours = lines
    assert loops["logger"] == "asyncio"
    assert loops["level"] == "error"
    assert loops["event"].startswith("Task exception was never retrieved")
    assert loops["exception"][0]["exc_value"] == "it failed"
    assert {key: libraries[key] for key in ("logger", "level", "event")} == {
        "logger": "aiohttp.client",
        "level": "warning",
        "event": "3 left open",
    }
    assert ours["event"] == "connection_failed"


def test_a_traceback_tells_where_and_no_secret(lines: list[dict[str, Any]]) -> None:
    frames = [frame for line in lines for told in line.get("exception", ()) for frame in told["frames"]]
    assert [frame["name"] for frame in frames].count("fails") == 2
    assert "s.3cret" not in json.dumps(lines)


def test_nor_is_one_in_what_people_read() -> None:
    said = _said(as_json=False)
    assert said.count("it failed") == 3  # the name of the task, and two tracebacks
    assert "s.3cret" not in said
