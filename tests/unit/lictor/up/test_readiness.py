from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from lictor.up.child import Child
from lictor.up.console import Console
from lictor.up.ports import free_ports
from lictor.up.readiness import NotReady, http_probe, port_probe, until_ready


@pytest.fixture(autouse=True)
async def _nothing_left(nothing_left_behind: None) -> AsyncIterator[None]:
    del nothing_left_behind
    yield


def child(folder: Path, script: str, output: io.StringIO, **named: object) -> Child:
    return Child("one", ["sh", "-c", script], folder, {}, Console(output, {}), **named)  # type: ignore[arg-type]


async def well() -> str:
    return ""


async def ill() -> str:
    return "it coughs"


async def test_ready_is_a_living_child_that_the_probe_finds_well(tmp_path: Path) -> None:
    one = child(tmp_path, "sleep 60", io.StringIO())
    one.start()
    await until_ready(one, well)
    await one.stop()


async def test_a_child_that_dies_too_often_was_never_ready(tmp_path: Path) -> None:
    one = child(tmp_path, "echo $((1 + 1)); exit 4", io.StringIO(), draw=lambda: 0.0)
    one.start()
    with pytest.raises(NotReady) as raised:
        await until_ready(one, ill)
    expected = "one ended with exit code 4, 3 times, and was never ready; its last lines:\n    2\n    2\n    2"
    assert str(raised.value) == expected
    assert raised.value.code == 1
    await one.stop()


async def test_a_command_that_is_over_tells_its_exit_code(tmp_path: Path) -> None:
    one = child(tmp_path, "exit 4", io.StringIO(), restarts=False)
    one.start()
    with pytest.raises(NotReady, match="one ended with exit code 4 before it was ready; it has said nothing") as raised:
        await until_ready(one, ill)
    assert raised.value.code == 4
    await one.stop()


async def test_time_is_over_with_what_was_seen_and_it_is_told_meanwhile(tmp_path: Path) -> None:
    output = io.StringIO()
    one = child(tmp_path, "sleep 60", output)
    one.start()
    while not one.pid:  # noqa: ASYNC110 - a process sets no event
        await asyncio.sleep(0.01)
    times = iter([0.0, 1.0, 1.0, 6.0, 6.0, 6.0, 7.0, 7.0, 61.0])
    with pytest.raises(NotReady, match="one is not ready after 60 s: it coughs; it has said nothing"):
        await until_ready(one, ill, 60.0, lambda: next(times))
    assert output.getvalue().count("one is not ready yet: it coughs") == 1
    await one.stop()


async def test_what_http_answers() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]))

    app = web.Application()
    app.router.add_get("/{status}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    (port, nobody) = free_ports(2)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        url = f"http://127.0.0.1:{port}"
        assert await http_probe(session, f"{url}/204") == ""
        assert await http_probe(session, f"{url}/302") == f"{url}/302 answers 302"
        assert await http_probe(session, f"{url}/503") == f"{url}/503 answers 503"
        assert await http_probe(session, f"http://127.0.0.1:{nobody}/") == f"http://127.0.0.1:{nobody}/: nobody listens"
    assert await port_probe(port) == ""
    assert await port_probe(nobody) == f"port {nobody}: nobody listens ($PORT says where to)"
    await runner.cleanup()


async def test_a_server_that_says_nothing_is_no_answer_in_time() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session:
        url = f"http://127.0.0.1:{port}/"
        assert await http_probe(session, url) == f"{url} does not answer in time"
    server.close()
    await asyncio.sleep(0.4)
