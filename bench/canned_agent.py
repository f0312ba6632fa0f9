"""A Consul agent that has its answers ready as bytes: `python -m bench.canned_agent PORT`.

It blocks by index and by content hash, and like the real one it takes no more than 200 connections. `PUT /put/...` lays
an answer down; the answers of a batch are laid down together.
"""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import sha256

from aiohttp import web

MAX_CONNECTIONS = 200  # limits.http_max_conns_per_client
_WITHOUT_INDEX = "agent/service/"


class Agent:
    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.index = 1
        self.busy = 0
        self.reads = 0
        self.refused = 0
        self.changed: dict[str, asyncio.Event] = {}

    async def put(self, request: web.Request) -> web.Response:
        """Take {path: answer}."""
        batch = json.loads(await request.read())
        self.index += 1
        for path, answer in batch.items():
            self.answers[path] = (self.index, json.dumps(answer).encode())
            self.changed.pop(path, asyncio.Event()).set()
        return web.Response()

    async def told(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"reads": self.reads, "refused": self.refused})

    async def get(self, request: web.Request) -> web.Response:
        if self.busy >= MAX_CONNECTIONS:
            self.refused += 1
            return web.Response(status=429, text="Your IP is issuing too many concurrent connections")
        self.busy += 1
        self.reads += 1
        try:
            return await self.answer(request)
        finally:
            self.busy -= 1

    async def answer(self, request: web.Request) -> web.Response:
        path, query = request.match_info["path"], request.query
        if query.get("name"):
            path += "?" + query["name"]
        by_hash = path.startswith(_WITHOUT_INDEX)
        known = query.get("hash" if by_hash else "index", "")
        index, content = self.answers.get(path, (1, b""))
        mark = sha256(content).hexdigest() if by_hash else str(index)
        if known == mark and query.get("wait"):
            changed = self.changed.setdefault(path, asyncio.Event())
            try:
                async with asyncio.timeout(float(query["wait"].removesuffix("s"))):
                    await changed.wait()
            except TimeoutError:
                pass
            index, content = self.answers.get(path, (1, b""))
            mark = sha256(content).hexdigest() if by_hash else str(index)
        headers = {"X-Consul-ContentHash" if by_hash else "X-Consul-Index": mark}
        if not content:
            return web.Response(status=404, headers=headers)
        return web.Response(body=content, headers=headers, content_type="application/json")


def main() -> None:
    agent = Agent()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/put", agent.put)
    app.router.add_get("/told", agent.told)
    app.router.add_route("*", "/v1/{path:.*}", agent.get)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
