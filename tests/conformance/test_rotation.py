"""Leaves of 30 seconds under load: no request fails, and every new handshake meets a leaf with time left."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography import x509

from harness.load import load
from harness.wire import Wire
from harness.world import World, world

SECONDS = float(os.environ.get("LICTOR_ROTATION_SECONDS", "180"))
LEAF_SECONDS = 30


@pytest.fixture(scope="module", params=["real", "embedded"])
def mesh(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(embedded=request.param == "embedded", leaf_ttl=f"{LEAF_SECONDS}s") as running:
        yield running


def client_context(mesh: World) -> ssl.SSLContext:
    """Return the context of a mesh client with a leaf of the Connect CA, whose root is the same."""
    token = mesh.consul.token if mesh.embedded else mesh.token_file("management").read_text()
    leaf = mesh.consul.api("agent/connect/ca/leaf/probe", token=token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def shown(port: int, context: ssl.SSLContext) -> x509.Certificate:
    """Return the leaf that a sidecar shows in a new handshake."""
    async with await Wire.open(port, context) as wire:
        return x509.load_der_x509_certificate(wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


@pytest.mark.timeout(SECONDS + 120)
async def test_nothing_fails_while_every_leaf_of_the_mesh_is_replaced_again_and_again(mesh: World) -> None:
    context = client_context(mesh)
    serials: set[int] = set()
    shortest = float("inf")
    async with load(mesh.gateway_port, "web.example.com", rate=200) as running:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            leaf = await shown(mesh.ports["web-side"], context)
            serials.add(leaf.serial_number)
            shortest = min(shortest, (leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds())
            await asyncio.sleep(1.0)
    assert running.failures == []
    assert running.statuses[200] > 200 * SECONDS * 0.9
    assert len(serials) >= SECONDS / LEAF_SECONDS
    assert shortest > LEAF_SECONDS * 0.2
