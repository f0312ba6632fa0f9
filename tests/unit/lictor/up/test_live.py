from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lictor.up.live import Told, live
from lictor.up.plan import MeshFile, Service
from lictor.up.ports import free_ports


async def test_a_second_signal_is_another_word_than_the_first() -> None:
    told = Told()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        await told.once.wait()
        await asyncio.sleep(0)
        assert not told.twice.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await told.twice.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_mesh_that_cannot_start_says_why_last_and_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (port,) = free_ports(1)
    link = {"consul": {"address": f"http://127.0.0.1:{port}"}, "issuer": "consul"}
    service = Service("web", "web", ("sleep", "1"), tmp_path)
    assert await live(MeshFile((service,), links={"web": link, "operator": link})) == 1
    said = capsys.readouterr()
    assert f"lictor: http://127.0.0.1:{port}: no Consul agent answers" in said.err
    assert said.out.endswith("done; nothing is left running\n")
    assert list(tmp_path.iterdir()) == []
