"""The compose project, up once for all tests, on the images that `make e2e` made."""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.compose import Compose
from lictor.up.ports import free_ports


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    assert os.environ.get("LICTOR_E2E"), "type `make e2e`: it makes the images that these tests need"
    names = ("GATEWAY_PORT", "GATEWAY_TLS_PORT", "CONSUL_PORT", "VAULT_PORT")
    ports = {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    project = Compose(f"lictor-e2e-{uuid.uuid4().hex[:8]}", {**os.environ, **ports})
    try:
        project.up()
        yield project
    finally:
        project("down", "--volumes", "--remove-orphans", "-t", "5", check=False)


@pytest.fixture
def edge_ca(compose: Compose, tmp_path: Path) -> str:
    """Return the file with the CA of the edge, as a user gets it."""
    url = f"http://127.0.0.1:{compose.environment['VAULT_PORT']}/v1/pki_edge/ca/pem"
    file = tmp_path / "edge-ca.pem"
    with urllib.request.urlopen(url, timeout=10) as answer:
        file.write_bytes(answer.read())
    return str(file)
