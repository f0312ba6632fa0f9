from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world import World, world


@pytest.fixture(autouse=True)
async def _nothing_left(nothing_left_behind: None) -> None:
    del nothing_left_behind


@pytest.fixture(scope="module", params=["real", "embedded"])
def mesh(request: pytest.FixtureRequest) -> Iterator[World]:
    """The demo's mesh: on a real Consul with ACLs and a Vault, prepared by the operator's scripts; and on ours."""
    with world(embedded=request.param == "embedded") as running:
        yield running
