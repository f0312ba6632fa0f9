from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.command_lines import HTTP, forget
from harness.servers import ConsulServer


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(consul: ConsulServer) -> Iterator[ConsulServer]:
    """A Consul with three http services, as bare again afterwards as it was: each test removes what it wrote."""
    forget(consul)
    consul.write(*({"Kind": "service-defaults", "Name": name, "Protocol": "http"} for name in HTTP))
    yield consul
    forget(consul)
