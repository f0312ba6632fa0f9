"""A small app to put behind a sidecar: says who it is, what it was asked, and calls others when told to.

python -m harness.app --name web --version v1 --port 9090 --call api=http://127.0.0.1:9191

/            who answered; with --call, also what each of these answered
/status/503  that status        /bytes/1000  that many bytes        /delay/100  after that many milliseconds
/echo        the request's body, as it was framed                   anything else: method, path and headers as JSON
"""

from __future__ import annotations

import argparse
import asyncio
import json

from aiohttp import ClientSession, ClientTimeout, web


def make_app(name: str, version: str, calls: dict[str, str]) -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        said = f"{name} {version}"
        for called, url in calls.items():
            answer = await _get(request.app["session"], url)
            said += f" -> {called}: {answer}"
        return web.Response(text=said + "\n", headers={"x-served-by": f"{name}-{version}"})

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]))

    async def size(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.match_info["count"]))

    async def delay(request: web.Request) -> web.Response:
        await asyncio.sleep(int(request.match_info["ms"]) / 1000)
        return web.Response(text="late\n")

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.content_length is not None:
            response.content_length = request.content_length
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response

    async def tell(request: web.Request) -> web.Response:
        told = {
            "name": name,
            "version": version,
            "method": request.method,
            "path": request.raw_path,
            "headers": [[key.lower(), value] for key, value in request.headers.items()],
        }
        return web.json_response(told, headers={"x-served-by": f"{name}-{version}"}, dumps=json.dumps)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/", hello)
    app.router.add_route("*", "/status/{code:\\d+}", status)
    app.router.add_get("/bytes/{count:\\d+}", size)
    app.router.add_get("/delay/{ms:\\d+}", delay)
    app.router.add_route("*", "/echo", echo)
    app.router.add_route("*", "/{rest:.*}", tell)

    async def session(running: web.Application):  # type: ignore[no-untyped-def]  # noqa: ANN202
        running["session"] = ClientSession(timeout=ClientTimeout(total=5))
        yield
        await running["session"].close()

    app.cleanup_ctx.append(session)
    return app


async def _get(session: ClientSession, url: str) -> str:
    try:
        async with session.get(url) as answer:
            text = (await answer.text()).strip()
            return text if answer.status == 200 else f"{answer.status} {text}"
    except (OSError, TimeoutError) as error:
        return f"failed: {error}"


async def serve_tcp(name: str, port: int) -> None:
    """Answer every line with the name and the line."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(f"{name}: ".encode() + line)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--call", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.tcp:
        asyncio.run(serve_tcp(arguments.name, arguments.port))
        return
    calls = dict(call.split("=", 1) for call in arguments.call)
    web.run_app(
        make_app(arguments.name, arguments.version, calls),
        host=arguments.host,
        port=arguments.port,
        print=None,
        access_log=None,
    )


if __name__ == "__main__":
    main()
