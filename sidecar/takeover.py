"""Whether somebody else listens where we listen: a second instance that has taken over the port (SO_REUSEPORT).

Whoever is relieved in this way leaves without a word to Consul: the registration is the successor's now. Linux tells
of it in /proc/net/tcp; where there is none, nobody is ever found.
Source: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

_LISTENING = "0A"
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_DESCRIPTORS = "/proc/self/fd"


def listening(tables: Iterable[str]) -> Mapping[str, str]:
    """Return the local address (the kernel's `0100007F:1F90`) of every listening socket, by its inode."""
    found = {}
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTENING:  # noqa: PLR2004 - the inode is the tenth column
                found[fields[9]] = fields[1]
    return found


def places(ports: Iterable[int]) -> frozenset[str]:
    """Return where this process listens on these ports."""
    wanted = {f"{port:04X}" for port in ports}
    own = _own_inodes()
    sockets = listening(_tables()).items()
    return frozenset(local for inode, local in sockets if inode in own and local.rpartition(":")[2] in wanted)


def taken_over(ours: frozenset[str]) -> bool:
    """Return whether another process listens at every one of these places, and there are any."""
    own = _own_inodes()
    return bool(ours) and ours <= {local for inode, local in listening(_tables()).items() if inode not in own}


def _tables() -> list[str]:
    return [Path(table).read_text(encoding="ascii") for table in _TABLES if Path(table).is_file()]


def _own_inodes() -> frozenset[str]:
    found = set()
    try:
        for descriptor in Path(_DESCRIPTORS).iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                found.add(target.removeprefix("socket:[").removesuffix("]"))
    except OSError:
        return frozenset()
    return frozenset(found)
