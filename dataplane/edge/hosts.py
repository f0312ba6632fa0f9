"""The virtual hosts of an ingress listener: which one takes a Host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from policies.prefixes import Prefixes
from policies.table import VirtualHost

_T = TypeVar("_T")


class Hosts(Generic[_T]):
    """Virtual hosts by Envoy's rules: exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.

    An explicit host is also taken with the listener's own port; the default hosts end in `.*`, which takes any port.
    """

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes")

    def __init__(self, hosts: Sequence[tuple[VirtualHost, _T]], port: int) -> None:
        self._exact: dict[str, _T] = {}
        self._any: _T | None = None
        suffixes: dict[str, _T] = {}  # written backwards
        prefixes: dict[str, _T] = {}
        for virtual_host, prepared in hosts:
            for name in virtual_host.hosts:
                if name == "*":
                    self._any = prepared
                elif name.startswith("*"):
                    for suffix in (name[1:], f"{name[1:]}:{port}"):
                        suffixes.setdefault(suffix[::-1], prepared)
                elif name.endswith("*"):
                    prefixes.setdefault(name[:-1], prepared)
                else:
                    self._exact[name] = self._exact[f"{name}:{port}"] = prepared
        self._suffixes, self._prefixes = Prefixes(suffixes), Prefixes(prefixes)

    def find(self, host: str) -> _T | None:
        """Return what stands behind a Host (lower case), or None."""
        return (
            self._exact.get(host) or _longer(self._suffixes, host[::-1]) or _longer(self._prefixes, host) or self._any
        )


def _longer(prefixes: Prefixes[_T], text: str) -> _T | None:
    """Return what belongs to the longest prefix; `*` stands for one character at least."""
    node = prefixes.longest(text)
    if node is not None and len(node.prefix) == len(text):
        node = node.above
    return node.value if node is not None else None
