"""Leaves that Vault signed for us meet proxies whose leaves come from Consul's CA, which is the same Vault."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.peers import Peers, peers
from harness.servers import ConsulServer, VaultServer, consul_server, eventually, vault_server
from harness.wire import App, Wire, echo_server
from lictor.dev.mesh import Preparation
from lictor.up.ports import free_ports

SERVICES = ("va-web", "va-api")


@pytest.fixture(scope="module")
def vault() -> Iterator[VaultServer]:
    with vault_server() as running:
        yield running


@pytest.fixture(scope="module")
def consul(vault: VaultServer) -> Iterator[ConsulServer]:
    with consul_server(settings={"default_intention_policy": "deny"}) as running:

        async def prepare() -> None:
            async with Preparation(running.http_addr, vault.address, vault.token) as preparation:
                await preparation.authority(SERVICES, "1h")

        asyncio.run(prepare())
        yield running


@pytest.fixture
def proxies(consul: ConsulServer, tmp_path: Path) -> Iterator[Peers]:
    with peers(consul, tmp_path) as running:
        yield running
        running.stop()
        for service in consul.api("agent/services"):
            consul.api(f"agent/service/deregister/{service}", "PUT")


async def with_vault_leaf(proxies: Peers, vault: VaultServer, service: str) -> None:
    """Start our sidecar of an instance that is registered, with a leaf that it asks Vault for."""
    folder = proxies.folder / service
    async with Preparation(proxies.consul.http_addr, vault.address, vault.token) as preparation:
        await preparation.credentials(service, folder)
    environment = {
        "VAULT_ADDR": vault.address,
        "LICTOR_VAULT_ROLE": "mesh",
        "LICTOR_VAULT_ROLE_ID_FILE": str(folder / "role-id"),
        "LICTOR_VAULT_SECRET_ID_FILE": str(folder / "wrapped-secret-id"),
    }
    program = await asyncio.to_thread(proxies.lictor_sidecar, f"{service}-1", environment)
    assert "issuer=vault" in program.log or '"issuer": "vault"' in program.log


@pytest.mark.parametrize("kinds", ["lictor-envoy", "envoy-lictor", "lictor-connect", "connect-lictor"])
async def test_a_leaf_of_vault_is_good_on_both_ends(
    consul: ConsulServer, vault: VaultServer, proxies: Peers, kinds: str
) -> None:
    protocol = "tcp" if "connect" in kinds else "http"
    consul.write(
        *({"Kind": "service-defaults", "Name": name, "Protocol": protocol} for name in SERVICES),
        {"Kind": "service-intentions", "Name": "va-api", "Sources": [{"Name": "va-web", "Action": "allow"}]},
    )
    async with App().running() as app, echo_server() as echo:
        (port,) = free_ports(1)
        side = await asyncio.to_thread(proxies.register, "va-api", app.port if protocol == "http" else echo)
        await asyncio.to_thread(lambda: proxies.register("va-web", 1, upstreams={"va-api": port}))
        for service, kind, listens in reversed(list(zip(SERVICES, kinds.split("-"), (port, side), strict=True))):
            if kind == "lictor":
                await with_vault_leaf(proxies, vault, service)
            elif kind == "envoy":
                await asyncio.to_thread(proxies.envoy_sidecar, f"{service}-1")
            else:
                await asyncio.to_thread(proxies.connect_proxy, f"{service}-1", listens)

        async def works() -> bool:
            async with await Wire.open(port) as wire:
                if protocol == "http":
                    return (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")).body == b"hello"
                await wire.send(b"ping")
                return await wire.read() == b"ping"

        await eventually(works, 20)
        consul.write(
            {"Kind": "service-intentions", "Name": "va-api", "Sources": [{"Name": "va-web", "Action": "deny"}]}
        )

        async def denied() -> bool:
            async with await Wire.open(port) as wire:
                if protocol == "http":
                    return (await wire.ask(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n")).status == 403
                await wire.send(b"ping")
                return await wire.read() == b""

        await eventually(denied, 20)
