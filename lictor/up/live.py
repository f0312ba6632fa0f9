"""`lictor up` and `lictor run` from the first line to the last: signals, and the exit code.

starting ──all ready──▶ up ──told, or the one command has ended──▶ stopping ──▶ 0, or the command's code
    │ told: 130                                                       │ told again
    └ not ready: 1 ────────────────────▶ stopping                     └▶ everything is killed
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lictor.up.console import Console
from lictor.up.plan import MeshFile
from lictor.up.readiness import READY_SECONDS, NotReady
from lictor.up.run import Mesh
from policies.errors import ConfigError, MeshError

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Told:
    """How often we were told to end, by Ctrl-C or another signal."""

    def __init__(self) -> None:
        self.once, self.twice = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._tell)

    def _tell(self) -> None:
        (self.twice if self.once.is_set() else self.once).set()


async def live(file: MeshFile, *, seconds: float = READY_SECONDS, writes: bool = True, restarts: bool = True) -> int:
    """Run a mesh until it is told to end; without `restarts`, until its command has ended. Return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="lictor-up-"))
    told, console = Told(), Console()
    mesh = Mesh(file, console, folder, seconds, writes, restarts)
    failure: MeshError | None = None
    try:
        code = await _until_over(mesh, told, console)
    except MeshError as error:
        failure, code = error, error.code if isinstance(error, NotReady) else 1
        console.progress(str(error).partition("; its last lines")[0].splitlines()[0])
    finally:
        await _end(mesh, told, console)
        shutil.rmtree(folder, ignore_errors=True)
    console.progress("done; nothing is left running")
    if failure is not None:
        _complain(failure)
    return code


async def _until_over(mesh: Mesh, told: Told, console: Console) -> int:
    """Return the exit code when it is over. Raise MeshError when it does not get ready."""
    starting = asyncio.create_task(mesh.start())
    if await _first(starting, told.once.wait()):
        console.progress("interrupted while it was starting")
        return INTERRUPTED
    starting.result()
    if mesh.restarts:
        console.progress("the mesh is up; Ctrl-C ends it")
        await told.once.wait()
        return 0
    (instance,) = mesh.instances
    console.progress(f"{instance.service.id} is in the mesh; Ctrl-C ends it")
    if await _first(asyncio.create_task(_wait(instance.app.over)), told.once.wait()):
        return 0
    console.progress(f"{instance.service.id} {instance.app.ending}")
    return instance.app.code


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _end(mesh: Mesh, told: Told, console: Console) -> None:
    console.progress("stopping, callers first" + ("" if told.twice.is_set() else "; Ctrl-C again ends it at once"))
    told.once.set()
    stopping = asyncio.create_task(mesh.stop())
    if await _first(stopping, told.twice.wait()):
        console.progress("ending everything at once")
        await mesh.kill()
        return
    stopping.result()


async def _first(work: asyncio.Task[Any], other: Coroutine[Any, Any, Any]) -> bool:
    """Wait for the work; return whether the other came first, which ends the work."""
    waiting = asyncio.create_task(other)
    try:
        await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
        return not work.done()
    finally:
        for task in (work, waiting):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def _complain(error: MeshError) -> None:
    lines = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
    for line in lines:
        print(f"lictor: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the command's output
