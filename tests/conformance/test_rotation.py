"""Leaves of 30 seconds under load: no request fails, and every new handshake meets a leaf with time left."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from cryptography import x509

from harness.load import load
from harness.wire import Wire
from harness.world import World, world

SECONDS = float(os.environ.get("LICTOR_ROTATION_SECONDS", "120"))  # on the real servers: six leaves for each proxy
EMBEDDED_SECONDS = min(SECONDS, 45.0)
LEAF_SECONDS = 30
SLACK_SECONDS = 2.0  # for signing and for the time between two looks
RATE = 100  # requests a second, over connections enough for each to take 0.16 s


@pytest.fixture(scope="module", params=["real", "embedded"])
def mesh(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(embedded=request.param == "embedded", leaf_ttl=f"{LEAF_SECONDS}s") as running:
        yield running


def client_context(mesh: World) -> ssl.SSLContext:
    """Return the context of a mesh client with a leaf of the Connect CA, whose root is the same."""
    token = mesh.consul.token if mesh.embedded else mesh.token_file("management").read_text()
    leaf = mesh.consul.api("agent/connect/ca/leaf/probe", token=token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies the chain, and so the dates of the leaf
    context.check_hostname = False
    for root in mesh.consul.api("agent/connect/ca/roots")["Roots"]:
        context.load_verify_locations(cadata=root["RootCert"])
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def shown(port: int, context: ssl.SSLContext) -> x509.Certificate:
    """Return the leaf that a sidecar shows in a new handshake."""
    async with await Wire.open(port, context) as wire:
        return x509.load_der_x509_certificate(wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


@dataclass
class Seen:
    """What one proxy has shown so far: its leaves in order, and the shortest rest of a life that was met."""

    leaves: list[x509.Certificate] = field(default_factory=list)
    shortest: float = float("inf")

    def note(self, leaf: x509.Certificate) -> None:
        if not self.leaves or self.leaves[-1].serial_number != leaf.serial_number:
            assert leaf.serial_number not in [old.serial_number for old in self.leaves], "an old leaf came back"
            self.leaves.append(leaf)
        ends = leaf.not_valid_after_utc
        assert all(old.not_valid_after_utc <= ends for old in self.leaves), "a leaf ends before one that came earlier"
        self.shortest = min(self.shortest, (ends - datetime.now(UTC)).total_seconds())


async def in_force(mesh: World, name: str) -> x509.Certificate:
    """Return the leaf that a proxy says is in force."""
    page = await asyncio.to_thread(mesh.proxies[name].admin, "certs")
    return x509.load_pem_x509_certificates(page["leaf"]["chain"].encode())[0]  # type: ignore[index]


async def probe(mesh: World, name: str, context: ssl.SSLContext) -> x509.Certificate:
    """Return what a new handshake shows: the leaf that was in force just before it or just after it."""
    before = await in_force(mesh, name)
    if name not in SIDES:
        return before
    leaf = await shown(mesh.ports[f"{name}-side"], context)
    after = await in_force(mesh, name)
    assert leaf.serial_number in {before.serial_number, after.serial_number}, "a handshake on a leaf of the past"
    return leaf


SIDES = ("web", "api-v1", "api-v2", "db")


@pytest.mark.timeout(SECONDS + 240)
async def test_nothing_fails_while_every_leaf_of_the_mesh_is_replaced_again_and_again(mesh: World) -> None:
    seconds = EMBEDDED_SECONDS if mesh.embedded else SECONDS
    context = client_context(mesh)
    seen = {name: Seen() for name in mesh.proxies}
    assert set(SIDES) < set(seen)
    async with load(mesh.gateway_port, "web.example.com", rate=RATE, connections=16) as running:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, one in seen.items():
                one.note(await probe(mesh, name, context))
            await asyncio.sleep(0.5)
    assert running.failures == []
    assert running.statuses[200] > RATE * seconds * 0.9
    for name, one in seen.items():
        assert len(one.leaves) >= seconds / LEAF_SECONDS, name
        assert len(one.leaves) <= 2 + seconds / (LEAF_SECONDS * 0.4), f"{name} asks for leaves without need"
        assert one.shortest > LEAF_SECONDS / 3 - SLACK_SECONDS, f"{name} was renewed after two thirds of its life"
