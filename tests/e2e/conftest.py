"""The compose project, up once for all tests, on the images that `make e2e` made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from harness.compose import Compose
from lictor.up.ports import free_ports


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    assert os.environ.get("LICTOR_E2E"), "type `make e2e`: it makes the images that these tests need"
    gateway, consul, vault = free_ports(3)
    ports = {"GATEWAY_PORT": str(gateway), "CONSUL_PORT": str(consul), "VAULT_PORT": str(vault)}
    project = Compose(f"lictor-e2e-{uuid.uuid4().hex[:8]}", {**os.environ, **ports})
    try:
        project.up()
        yield project
    finally:
        project("down", "--volumes", "--remove-orphans", "-t", "5", check=False)
