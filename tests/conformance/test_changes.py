"""Splits and intentions changed with the stock command line while requests go on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from harness.load import load
from harness.servers import eventually
from harness.wire import Wire
from harness.world import World

API = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
WEB = b"GET / HTTP/1.1\r\nHost: web.example.com\r\n\r\n"
SPLIT = """
Kind = "service-splitter"
Name = "api"
Splits = [
  {{ Weight = {v1}, ServiceSubset = "v1" }},
  {{ Weight = {v2}, ServiceSubset = "v2" }},
]
"""


async def command(mesh: World, *words: str) -> None:
    done = await asyncio.to_thread(mesh.consul_cli, *words, check=False)
    assert done.returncode == 0, done.stderr


async def split(mesh: World, folder: Path, v1: int, v2: int) -> None:
    file = folder / "split.hcl"
    file.write_text(SPLIT.format(v1=v1, v2=v2))
    await command(mesh, "config", "write", str(file))


async def shares(mesh: World, count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    async with await Wire.open(mesh.gateway_port) as wire:
        for _ in range(count):
            answer = await wire.ask(API)
            assert answer.status == 200, answer
            found[answer.body.decode().strip()] += 1
    return found


async def test_5000_requests_land_within_2_points_of_80_20(mesh: World) -> None:
    parts = await asyncio.gather(*(shares(mesh, 1250) for _ in range(4)))
    found = sum(parts, Counter())
    assert abs(found["api v1"] / 5000 - 0.80) < 0.02
    assert found["api v1"] + found["api v2"] == 5000


async def test_a_new_split_holds_within_a_second_and_no_request_fails(mesh: World, tmp_path: Path) -> None:
    async with load(mesh.gateway_port, "api.example.com", rate=400) as running:
        await eventually(lambda: running.sent > 100)
        await split(mesh, tmp_path, 50, 50)
        await asyncio.sleep(1.0)
        running.answers.clear()
        await eventually(lambda: running.answers.total() >= 1500)
        share = running.answers["api v1"] / running.answers.total()
        await split(mesh, tmp_path, 80, 20)
    assert 0.44 < share < 0.56
    assert running.failures == []


async def status(wire: Wire, request: bytes) -> int:
    return (await wire.ask(request)).status


async def until(wire: Wire, request: bytes, expected: int) -> float:
    begun = time.monotonic()
    while await status(wire, request) != expected:
        assert time.monotonic() - begun < 1.0, f"still not {expected} after a second"
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


async def test_a_denial_and_its_end_hold_within_a_second_on_an_old_connection(mesh: World) -> None:
    async with await Wire.open(mesh.gateway_port) as wire:
        assert await status(wire, WEB) == 200
        await command(mesh, "intention", "delete", "edge", "web")
        await command(mesh, "intention", "create", "-deny", "edge", "web")
        await until(wire, WEB, 403)
        assert (await wire.ask(WEB)).body == b"RBAC: access denied"
        await command(mesh, "intention", "delete", "edge", "web")
        await command(mesh, "intention", "create", "-allow", "edge", "web")
        await until(wire, WEB, 200)


async def test_a_denial_of_one_path_and_method_leaves_the_others(mesh: World, tmp_path: Path) -> None:
    file = tmp_path / "intentions.hcl"
    file.write_text(
        """
        Kind = "service-intentions"
        Name = "api"
        Sources = [
          { Name = "web", Action = "allow" },
          { Name = "edge", Permissions = [
              { Action = "deny", HTTP = { PathExact = "/secret", Methods = ["GET"] } },
              { Action = "allow", HTTP = { PathPrefix = "/" } },
          ] },
        ]
        """
    )
    secret = b"GET /secret HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
    async with await Wire.open(mesh.gateway_port) as wire:
        await command(mesh, "config", "write", str(file))
        await until(wire, secret, 403)
        assert await status(wire, secret.replace(b"GET /secret", b"GET /x/../secret")) == 403
        assert (
            await status(wire, secret.replace(b"GET", b"PUT").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"))
            == 200
        )
        assert await status(wire, API) == 200


async def test_a_tcp_connection_is_closed_when_its_intention_is_revoked(mesh: World) -> None:
    port = mesh.ports["web-to-db"]
    async with await Wire.open(port) as held:
        await held.send(b"ping\n")
        assert await held.until(b"\n") == b"db: ping\n"
        await command(mesh, "intention", "delete", "web", "db")
        begun = time.monotonic()
        await command(mesh, "intention", "create", "-deny", "web", "db")
        assert await held.rest() == b""
        assert time.monotonic() - begun < 1.5
    async with await Wire.open(port) as refused:
        await refused.send(b"ping\n")
        assert await refused.rest() == b""
    await command(mesh, "intention", "delete", "web", "db")
    await command(mesh, "intention", "create", "-allow", "web", "db")

    async def works() -> bool:
        async with await Wire.open(port) as again:
            await again.send(b"ping\n")
            return bool(await again.read())

    await eventually(works, 1.0)


async def test_the_chain_of_calls_goes_through_two_pairs(mesh: World) -> None:
    async with await Wire.open(mesh.gateway_port) as wire:
        answer = await wire.ask(WEB)
    assert answer.status == 200
    assert answer.body.startswith(b"web v1 -> api: api v")
