"""A child process: started in a session of its own, its lines told with its name, started again when it dies.

    spawn ─▶ lives ─▶ ends ─▶ the rest of its session is killed ─▶ pause ─▶ spawn ...

The pause grows while it keeps dying young. When this process dies the kernel tells each child (PR_SET_PDEATHSIG), and
what the children left behind is for `guard`: everything below carries a mark in its environment.
"""

from __future__ import annotations

import asyncio
import collections
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
LONGEST_LINE = 64 * 1024
LINES_KEPT = 6
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def next_pause(deaths: int, draw: float) -> float:
    """Return how long to wait after so many deaths in a row; `draw` from 0 to 1 spreads it over the upper half."""
    longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * float(2 ** min(deaths, 16)))
    return longest * (1 + draw) / 2


@dataclass(slots=True)
class Child:
    """One process. `prepare` is called before every start; without `restarts` it lives once."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    console: Console
    prepare: Callable[[], Awaitable[None]] | None = None
    restarts: bool = True
    last_signal: int = signal.SIGKILL  # what the kernel sends it when we die
    without: tuple[str, ...] = ()  # prefixes of variables that are not passed on
    draw: Callable[[], float] = random.random
    now: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    deaths: int = 0  # since the start
    ending: str = ""  # how it ended last
    code: int = 0  # with which exit code, as a shell tells it
    said: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=LINES_KEPT))
    process: asyncio.subprocess.Process | None = None  # while it lives
    over: asyncio.Event = field(default_factory=asyncio.Event)  # it will not be started again
    _task: asyncio.Task[None] | None = None
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Start it, and see to it that it is started again."""
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"child {self.name}")

    @property
    def pid(self) -> int:
        """Return the process ID, 0 while there is none."""
        return self.process.pid if self.process is not None else 0

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it and what it started: politely, then not."""
        self._told.set()
        if self._task is None:
            return
        if self.process is None:
            self._task.cancel()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait((self._task,), timeout=seconds)
        if not done:
            self.console.warn(self.name, f"did not end within {seconds:g} s of SIGTERM: killed")
        await self.kill()

    async def kill(self) -> None:
        """End it and what it started, at once."""
        self._told.set()
        if self._task is None:
            return
        if self.process is None:
            self._task.cancel()
        self._signal(signal.SIGKILL)
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.result()

    # --- its lives ---

    async def _live(self) -> None:
        try:
            young = 0
            while True:
                begun = self.now()
                self.code = await self._once()
                self.deaths += 1
                if self._told.is_set() or not self.restarts:
                    return
                young = 0 if self.now() - begun > STEADY_SECONDS else young + 1
                wait = next_pause(young, self.draw())
                self.console.warn(self.name, f"{self.ending}; again in {wait:.1f} s")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), wait)
                    return
        finally:
            self.over.set()

    async def _once(self) -> int:
        """Live once; return the exit code as a shell tells it: 128 and more for signals, 126 for no start."""
        if self.prepare is not None:
            await self.prepare()
        reading, writing = os.pipe()
        try:
            self.process = await self._spawn(writing)
        except OSError as error:
            os.close(reading)
            self.ending = f"could not be started: {error.strerror or error}"
            return 126
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        telling = asyncio.get_running_loop().create_task(self._tell(reading))
        try:
            code = await self.process.wait()
            self._signal(signal.SIGKILL)  # what it leaves behind would hold its port
            self.ending = ending(code)
            await asyncio.wait((telling,), timeout=1.0)
            return code if code >= 0 else 128 - code
        finally:
            self.process = None
            telling.cancel()
            await asyncio.wait((telling,))

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(self.without)}
        parent = os.getpid()

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, self.last_signal)
            if os.getppid() != parent:  # it died meanwhile
                os.kill(os.getpid(), signal.SIGKILL)

        return await asyncio.create_subprocess_exec(
            *self.command,
            cwd=self.folder,
            env={**inherited, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=before_exec,
        )

    async def _tell(self, descriptor: int) -> None:
        """Pass its lines on until the last writer has closed the pipe."""
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        rest = b""
        try:
            while chunk := await reader.read(LONGEST_LINE):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._line(line)
                if len(rest) > LONGEST_LINE:
                    self._line(rest)
                    rest = b""
        finally:
            transport.close()
            if rest:
                self._line(rest)

    def _line(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").rstrip()
        self.said.append(text)
        self.console.line(self.name, text)

    def _signal(self, number: int) -> None:
        """Send a signal to its session, while it is ours for sure."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def ending(code: int) -> str:
    """Return how a process ended, for people."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"
