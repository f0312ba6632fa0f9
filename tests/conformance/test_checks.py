"""Checks really run, and say what Consul's say: the real agent and the embedded one look at the same little app."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from harness.servers import ConsulServer, eventually
from lictor.up.ports import free_ports


@dataclass(slots=True)
class App:
    """An app whose health is told by its path."""

    port: int
    fails: bool = False

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def app() -> AsyncIterator[App]:
    found = App(0)

    async def answer(request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        headers = {"Location": "/status/200"} if 300 <= status < 400 else {}
        return web.Response(status=status, text=f"said {status}", headers=headers)

    async def echo(request: web.Request) -> web.Response:
        text = await request.text()
        return web.Response(text=f"{request.method} {request.headers.get('X-Probe')} {text}")

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def flapping(_: web.Request) -> web.Response:
        return web.Response(status=500 if found.fails else 200, text="f")

    async def large(_: web.Request) -> web.Response:
        return web.Response(text="x" * 9000)

    application = web.Application()
    application.router.add_route("*", "/status/{status}", answer)
    application.router.add_route("*", "/echo", echo)
    application.router.add_get("/slow", slow)
    application.router.add_get("/flapping", flapping)
    application.router.add_get("/large", large)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


Api = Callable[..., Awaitable[Any]]


@pytest.fixture
async def api(consul: ConsulServer) -> AsyncIterator[Api]:
    """Ask in a thread; what a test registered is gone after it."""
    registered: list[str] = []

    async def ask(path: str, method: str = "GET", body: object = None) -> Any:
        if path == "agent/service/register" and isinstance(body, dict):
            registered.append(body["Name"])
        return await asyncio.to_thread(consul.api, path, method, body)

    yield ask
    held = await ask("agent/services")
    for name in registered:
        if name in held:
            await ask(f"agent/service/deregister/{name}", "PUT")


async def checked(api: Api, name: str, **check: object) -> None:
    given = {"CheckID": name, "Name": "look", "Interval": "1s", "Timeout": "1s", **check}
    await api("agent/service/register", "PUT", {"Name": name, "Port": 1, "Check": given})


async def result(api: Api, name: str, status: str) -> str:
    """Return the output once the check has this status and an output."""

    async def look() -> str:
        row = (await api("agent/checks"))[name]
        return str(row["Output"]) if row["Status"] == status and row["Output"] else ""

    return str(await eventually(look, 20, 0.1))


@pytest.mark.parametrize(
    ("path", "more", "status", "output"),
    [
        ("/status/200", {}, "passing", "HTTP GET {url}: 200 OK Output: said 200"),
        ("/status/204", {}, "passing", "HTTP GET {url}: 204 No Content Output: "),
        ("/status/429", {}, "warning", "HTTP GET {url}: 429 Too Many Requests Output: said 429"),
        ("/status/404", {}, "critical", "HTTP GET {url}: 404 Not Found Output: said 404"),
        ("/status/503", {}, "critical", "HTTP GET {url}: 503 Service Unavailable Output: said 503"),
        ("/status/302", {}, "passing", "HTTP GET {url}: 200 OK Output: said 200"),
        ("/status/302", {"DisableRedirects": True}, "critical", "HTTP GET {url}: 302 Found Output: said 302"),
        ("/echo", {"Method": "PUT", "Body": "hi"}, "passing", "HTTP PUT {url}: 200 OK Output: PUT None hi"),
        ("/echo", {"Header": {"x-probe": ["yes"]}}, "passing", "HTTP GET {url}: 200 OK Output: GET yes "),
        ("/status/200", {"Method": "HEAD"}, "passing", "HTTP HEAD {url}: 200 OK Output: "),
        (
            "/slow",
            {"Timeout": "300ms"},
            "critical",
            'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        ),
    ],
    ids=str,
)
async def test_an_http_check_tells_what_it_saw(
    api: Api, app: App, path: str, more: dict[str, Any], status: str, output: str
) -> None:
    await checked(api, "http", HTTP=app.url(path), **more)
    assert await result(api, "http", status) == output.format(url=app.url(path))

    async def told() -> bool:
        return [(row["Status"], row["Type"]) for row in await api("health/checks/http")] == [(status, "http")]

    await eventually(told)


async def test_an_output_is_kept_to_its_largest_size(api: Api, app: App) -> None:
    await checked(api, "large", HTTP=app.url("/large"), OutputMaxSize=100)
    output = await result(api, "large", "passing")
    assert output.partition("Output: ")[2] == "x" * 100


async def test_an_http_check_of_nobody(api: Api) -> None:
    (port,) = free_ports(1)
    await checked(api, "nobody", HTTP=f"http://127.0.0.1:{port}/x")
    told = f'Get "http://127.0.0.1:{port}/x": dial tcp 127.0.0.1:{port}: connect: connection refused'
    assert await result(api, "nobody", "critical") == told


async def test_a_tcp_check_passes_while_somebody_listens(api: Api) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        await checked(api, "tcp", TCP=f"127.0.0.1:{port}")
        assert await result(api, "tcp", "passing") == f"TCP connect 127.0.0.1:{port}: Success"
    told = await result(api, "tcp", "critical")
    assert told == f"dial tcp 127.0.0.1:{port}: connect: connection refused"


async def test_a_change_needs_as_many_results_as_the_check_says(api: Api, app: App) -> None:
    times = {"FailuresBeforeWarning": 1, "FailuresBeforeCritical": 2, "Interval": "2s"}  # the warning lasts for as long
    await checked(api, "count", HTTP=app.url("/flapping"), **times)
    await result(api, "count", "passing")
    app.fails = True
    await result(api, "count", "warning")
    await result(api, "count", "critical")


async def test_a_ttl_check_expires_with_its_last_output(api: Api) -> None:
    given = {"CheckID": "ttl", "Name": "beat", "TTL": "400ms"}
    await api("agent/service/register", "PUT", {"Name": "ttl", "Port": 1, "Check": given})
    assert await result(api, "ttl", "critical") == "TTL expired"
    await api("agent/check/pass/ttl?note=here", "PUT")
    told = await result(api, "ttl", "critical")
    assert told == "TTL expired (last output before timeout follows): here"


async def test_the_checks_of_a_derived_sidecar(api: Api) -> None:
    await api("agent/service/register", "PUT", {"Name": "own", "Port": 1, "Connect": {"SidecarService": {}}})
    port = (await api("agent/services"))["own-sidecar-proxy"]["Port"]
    assert 21000 <= port <= 21255
    rows = {row["Name"]: row for row in (await api("agent/checks")).values() if row["ServiceID"] == "own-sidecar-proxy"}
    assert {(name, row["Type"], row["Interval"]) for name, row in rows.items()} == {
        ("Connect Sidecar Listening", "tcp", "10s"),
        ("Connect Sidecar Aliasing own", "alias", ""),
    }


async def test_ports_of_sidecars_run_out(api: Api, consul: ConsulServer) -> None:
    """The range is 21000 to 21255. A sidecar that goes gives its port to the next one."""

    def sidecar(name: str) -> dict[str, Any]:
        check = {"Name": "c", "TTL": "10m", "Status": "passing"}
        return {"Name": name, "Port": 1, "Connect": {"SidecarService": {"Checks": [check]}}}

    def fill() -> list[int]:
        for number in range(256):
            consul.api("agent/service/register", "PUT", sidecar(f"full{number}"))
        services = consul.api("agent/services")
        return sorted(row["Port"] for name, row in services.items() if name.startswith("full") and "sidecar" in name)

    try:
        assert await asyncio.to_thread(fill) == list(range(21000, 21256))
        with pytest.raises(Exception, match="none left in the configured range \\[21000, 21255\\]"):
            await api("agent/service/register", "PUT", sidecar("more"))
        await api("agent/service/deregister/full7", "PUT")
        await api("agent/service/register", "PUT", sidecar("next"))
        assert (await api("agent/services"))["next-sidecar-proxy"]["Port"] == 21007
    finally:
        for number in range(256):
            if number != 7:
                await api(f"agent/service/deregister/full{number}", "PUT")
