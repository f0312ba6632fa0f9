"""The last process of `lictor up`: when that ends, however it ends, nothing that it started is left.

Whatever `lictor up` starts carries a mark in its environment, and so does what that starts in turn, even as a daemon
in a session of its own. The guard waits for SIGTERM, which `lictor up` sends at its end and the kernel when it dies.
Then apps are killed at once, proxies after a while, since they have to leave the catalog, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

APP, PROXY = "LICTOR_UP", "LICTOR_UP_PROXY"  # variables; their value is the folder of this `lictor up`
GRACE_SECONDS = 8.0
POLL_SECONDS = 0.05


def marked(variable: str, folder: str) -> list[int]:
    """Return the processes that carry a mark, as far as this user may see them."""
    mark = f"\0{variable}={folder}\0".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in b"\0" + (process / "environ").read_bytes() + b"\0":
                    found.append(int(process.name))
    return found


def sweep(folder: str, grace: float = GRACE_SECONDS) -> None:
    """End everything that carries the mark of a folder."""
    _kill(APP, folder)
    deadline = time.monotonic() + grace
    while marked(PROXY, folder) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _kill(PROXY, folder)
    _kill(APP, folder)


def _kill(variable: str, folder: str) -> None:
    while found := marked(variable, folder):  # who is killed may have forked a moment before
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS / 5)


def main(folder: str, parent: int) -> None:
    """Wait until it is time, and sweep."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    if os.getppid() == parent:
        signal.sigwait({signal.SIGTERM})
    sweep(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
