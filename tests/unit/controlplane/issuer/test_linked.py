"""A stream of leaves for each link: begun and ended with it, one's failure no other's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controlplane.issuer import IssuerStatus
from controlplane.issuer.linked import LinkedLeaves
from harness.certificates import Authority, spiffe
from harness.servers import eventually
from policies.identity import Leaf, SpiffeId
from policies.updates import LeafUpdate, Update


class Issuer:
    """Gives a leaf for each word on an identity's queue; None is a failure."""

    def __init__(self, authority: Authority) -> None:
        self.status = IssuerStatus("test")
        self.queues: dict[SpiffeId, asyncio.Queue[bool]] = {}
        self.ended: list[str] = []
        self._authority = authority

    async def leaves(self, spiffe_id: SpiffeId, status: IssuerStatus | None = None) -> AsyncIterator[Leaf]:
        queue = self.queues[spiffe_id] = asyncio.Queue()
        assert status is not None
        try:
            while True:
                if await queue.get():
                    status.error = ""
                    yield self._authority.leaf(spiffe_id.service)
                else:
                    status.error = "refused"
        finally:
            self.ended.append(spiffe_id.service)

    async def close(self) -> None:
        """Nothing is held."""


async def test_links_come_and_go_each_with_its_own_leaf(authority: Authority) -> None:
    taken: list[Update] = []
    issuer = Issuer(authority)
    linked = LinkedLeaves(issuer, taken.append)
    linked.adjust({"a": spiffe("a")})  # before it runs
    running = asyncio.create_task(linked.run())
    try:
        await eventually(lambda: spiffe("a") in issuer.queues)
        linked.adjust({"a": spiffe("a"), "b": spiffe("b")})
        await eventually(lambda: spiffe("b") in issuer.queues)
        issuer.queues[spiffe("a")].put_nowait(True)
        issuer.queues[spiffe("b")].put_nowait(False)
        await eventually(lambda: taken and linked.problems())
        assert [(one.linked, one.leaf.spiffe_id) for one in taken if isinstance(one, LeafUpdate)] == [
            ("a", spiffe("a"))
        ]
        assert [problem.where for problem in linked.problems()] == ["leaf of b"]
        assert linked.awaited() == {"a"}

        linked.adjust({"b": spiffe("b")})
        await eventually(lambda: issuer.ended == ["a"])
        assert set(linked.statuses) == {"b"}
        issuer.queues[spiffe("b")].put_nowait(True)
        await eventually(lambda: len(taken) == 2)
        assert linked.problems() == ()

        linked.adjust({"b": spiffe("b", "dc2")})  # another identity is another leaf
        await eventually(lambda: issuer.ended == ["a", "b"])
        assert spiffe("b", "dc2") in issuer.queues
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
