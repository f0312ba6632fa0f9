"""Leaves from the agent's Connect CA, real and scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from controlplane import issuer as issuer_module
from controlplane.consul.catalog import Answer, Catalog
from controlplane.consul.settings import ConsulSettings
from controlplane.issuer.consul import ConsulIssuer
from harness.certificates import Authority, spiffe
from harness.servers import ConsulServer, consul_server, eventually
from policies.errors import CatalogUnreachable
from policies.identity import Leaf, SpiffeId


async def collect(
    issuer: ConsulIssuer, spiffe_id: SpiffeId, count: int, seconds: float, found: list[Leaf] | None = None
) -> list[Leaf]:
    stream = cast("AsyncGenerator[Leaf, None]", issuer.leaves(spiffe_id))
    found = [] if found is None else found
    try:
        async with asyncio.timeout(seconds):
            async for leaf in stream:
                found.append(leaf)
                if len(found) == count:
                    break
    finally:
        await stream.aclose()
    return found


async def test_the_agents_leaf_is_a_leaf_of_ours(consul: ConsulServer) -> None:
    async with Catalog(ConsulSettings(consul.http_addr)) as agent:
        roots = await agent.roots()
        identity = SpiffeId(str(roots["TrustDomain"]), "dc1", "leaf-web")
        (leaf,) = await collect(ConsulIssuer(agent, local=True), identity, 1, 10)
    assert leaf.spiffe_id == identity


async def test_a_rotation_of_the_ca_brings_a_new_leaf() -> None:
    with consul_server() as server:
        async with Catalog(ConsulSettings(server.http_addr)) as agent:
            identity = SpiffeId(str((await agent.roots())["TrustDomain"]), "dc1", "web")
            found: list[Leaf] = []
            collecting = asyncio.create_task(collect(ConsulIssuer(agent, local=True), identity, 2, 90, found))
            await eventually(lambda: found)
            config = server.api("connect/ca/configuration")
            config["Config"]["PrivateKeyType"] = "rsa"
            config["Config"]["PrivateKeyBits"] = 2048
            await asyncio.to_thread(server.api, "connect/ca/configuration", "PUT", config)
            first, second = await collecting
    assert first.serial != second.serial


class Scripted:
    """Gives what stands in `answers`, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def leaf(self, service: str, cursor: str, wait: float) -> Answer:
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, "1")


def told(leaf: Leaf) -> dict[str, str]:
    return {"CertPEM": leaf.chain_pem, "PrivateKeyPEM": leaf.key_pem.decode()}


@pytest.mark.parametrize("kind", ["unreachable", "empty", "another-service", "garbage"])
async def test_what_is_no_leaf_of_ours_is_asked_for_again_and_told_once(
    authority: Authority, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "retry_pause", lambda *_: 0.0)
    bad: Any = {
        "unreachable": CatalogUnreachable("GET /x", "refused"),
        "empty": {},
        "another-service": told(authority.leaf("db")),
        "garbage": {"CertPEM": "x", "PrivateKeyPEM": "y"},
    }[kind]
    good = authority.leaf("web")
    issuer = ConsulIssuer(Scripted(bad, bad, told(good)), local=True)
    with capture_logs() as logs:
        (leaf,) = await collect(issuer, spiffe("web"), 1, 10)
    assert leaf.serial == good.serial
    assert [entry["event"] for entry in logs] == ["issuer_failing", "issuer_recovered", "leaf_issued"]
    assert issuer.status.failures == 0


async def test_an_agent_that_others_can_reach_is_warned_of(authority: Authority) -> None:
    with capture_logs() as logs:
        await collect(ConsulIssuer(Scripted(told(authority.leaf("web"))), local=False), spiffe("web"), 1, 5)
    assert any(entry["log_level"] == "warning" for entry in logs)


async def test_the_same_leaf_again_is_no_news(authority: Authority) -> None:
    one, two = told(authority.leaf("web")), told(authority.leaf("web"))
    issuer = ConsulIssuer(Scripted(one, one, one, two), local=True)
    first, second = await collect(issuer, spiffe("web"), 2, 10)
    assert first.serial != second.serial
    assert issuer.status.issued == 2
    await eventually(lambda: True)
