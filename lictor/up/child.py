"""A child process: started in a session of its own, its lines told with its name, started again when it dies.

The kernel ends it when this process dies (PR_SET_PDEATHSIG), so that a killed `lictor up` leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lictor.up.console import Console

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STEADY_SECONDS = 10.0  # who has run for so long begins again with the shortest pause
STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def pauses() -> Callable[[float], float]:
    """Return a function that tells, given how long a process lived, how long to wait until its next start."""
    exponent = 0

    def after(lived: float) -> float:
        nonlocal exponent
        exponent = 0 if lived > STEADY_SECONDS else exponent + 1
        longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2**exponent)
        return random.uniform(longest / 2, longest)

    return after


@dataclass(slots=True)
class Child:
    """One process to be kept alive. `prepare` is called before every start."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    console: Console
    prepare: Callable[[], Awaitable[None]] | None = None
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _stopping: bool = False

    async def start(self) -> None:
        """Start it, and see to it that it is started again."""
        await self._spawn()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"child {self.name}")

    async def _spawn(self) -> None:
        if self.prepare is not None:
            await self.prepare()
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self.starts += 1

    async def _keep(self) -> None:
        pause, loop = pauses(), asyncio.get_running_loop()
        while True:
            begun = loop.time()
            code = await self._until_ended()
            if self._stopping:
                return
            wait = pause(loop.time() - begun)
            self.console.warn(self.name, f"ended with {_ending(code)}; again in {wait:.1f} s")
            await asyncio.sleep(wait)
            try:
                await self._spawn()
            except OSError as error:
                self.console.warn(self.name, f"cannot be started: {error}")

    async def _until_ended(self) -> int:
        process = self.process
        if process is None or process.stdout is None:
            return -1
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the reader's buffer: what is left of it follows
                continue
            if not line:
                break
            self.console.line(self.name, line.decode("utf-8", "replace").rstrip())
        return await process.wait()

    @property
    def pid(self) -> int:
        """Return the process ID, 0 before the first start."""
        return self.process.pid if self.process is not None else 0

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it and what it started: politely, then not."""
        self._stopping = True
        if self.process is not None and self.process.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(seconds):
                    await self.process.wait()
            except TimeoutError:
                self.console.warn(self.name, f"did not end within {seconds:g} s: killed")
        self._signal(signal.SIGKILL)  # the session's rest, or it itself
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.process is not None:
            await self.process.wait()

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
